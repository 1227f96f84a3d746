"""From a labelled dataset to a trained student."""
