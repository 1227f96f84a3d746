"""Few labelled images to adapted weights. Read `training.train` first."""
