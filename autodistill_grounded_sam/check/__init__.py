"""Suspicious labels of a dataset, from its labels and the predictions of models that never saw them: arrays in, a list out."""
