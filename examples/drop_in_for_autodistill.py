"""Code that was written for the published plugin, unchanged: only its weights are named, so that it runs offline here.

python examples/drop_in_for_autodistill.py IMAGES IMAGE
"""

import sys

import cv2
from autodistill.detection import CaptionOntology
from autodistill.utils import plot

from autodistill_grounded_sam import GroundedSAM

folder, image = sys.argv[1], sys.argv[2]

# caption -> class, as ever
base_model = GroundedSAM(
    ontology=CaptionOntology({"red circle": "ball", "green star": "star"}),
    detector="mini",  # leave these two lines out for Grounding DINO Swin-T and SAM ViT-H
    segmenter="mini",
)

# one image, as a path or as cv2 reads it
results = base_model.predict(image)
plotted = plot(cv2.imread(image), results, classes=base_model.ontology.classes(), raw=True)
print(f"{len(results)} objects in {image}, drawn on a picture of {plotted.shape[1]}x{plotted.shape[0]}")

# a whole folder: <folder>_labeled/{data.yaml,train,valid}
dataset = base_model.label(folder, extension=".png", record_confidence=True)
print(f"{len(dataset)} images labelled")
