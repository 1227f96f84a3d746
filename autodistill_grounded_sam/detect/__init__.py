"""Image and prompts to candidates: the detectors."""
