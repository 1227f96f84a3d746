"""Where workers run: planning of batches, the worker, and the engine of this machine."""
