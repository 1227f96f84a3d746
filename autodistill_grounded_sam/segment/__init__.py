"""Image + boxes -> masks as run-length codes."""
