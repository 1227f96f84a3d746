"""Which words, thresholds and duplicate settings serve best on a few labelled images. Read `choosing.choose` first."""
