"""One self-contained HTML page of a run: gathered in one pass, drawn by our own code, opened from disk."""
