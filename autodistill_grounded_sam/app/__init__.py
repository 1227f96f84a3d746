"""The playground: one image, words and thresholds, seen at once; a folder when they are right."""
