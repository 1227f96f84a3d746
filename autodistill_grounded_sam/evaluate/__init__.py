"""Labels or a student against a human reference in COCO form. Read `report.evaluate_labels` first."""
