"""Images to tags: what is in them, by name and without a place."""
