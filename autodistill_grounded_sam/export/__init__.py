"""Labels to dataset folders: the split, YOLO segments and boxes, COCO json; every writer reads its own output back."""
