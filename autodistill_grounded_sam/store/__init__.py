"""The record on disk of what the models saw: Parquet parts and run.json; resume lives here and nowhere else."""
