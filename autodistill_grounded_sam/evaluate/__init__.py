"""Labels or a student against a human reference in COCO form. Read `measure.evaluate_labels` first."""
