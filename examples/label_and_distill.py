"""A folder of images and words in, a labelled dataset and a trained student out. Runs offline with the built-in mini weights.

    python examples/label_and_distill.py IMAGES OUT

For your own photographs leave `detector` and `segmenter` out: the defaults are Grounding DINO Swin-T and SAM ViT-H.
"""

import sys

from autodistill_grounded_sam import GroundedSAM, YOLOv8

images, out = sys.argv[1], sys.argv[2]

# The words: what to ask for -> the class it becomes. Two prompts may name one class.
ontology = {"red circle": "ball", "orange circle": "ball", "green star": "star", "blue square": "box"}

# The teacher labels the folder. Run again after an interruption, it goes on where it was.
teacher = GroundedSAM(ontology, detector="mini", segmenter="mini")
dataset = teacher.label(images, output_folder=out)
print(f"labelled {len(dataset)} images with the classes {', '.join(dataset.classes)}")

# The student learns from the labels: here three epochs from random weights, in earnest "yolov8n-seg.pt" and fifty.
student = YOLOv8("yolov8n-seg.yaml")
result = student.train(f"{out}/data.yaml", epochs=3, imgsz=192, batch=8)
print(f"student in {result.weights}, started from {result.started_from}")
