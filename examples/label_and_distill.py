# %% [markdown]
# # Label and distill in ten lines
#
# You have a folder of images and know what you want found in it. Nobody has drawn a box yet. A large model that understands words
# (Grounding DINO, with SAM for the outlines) labels the folder; a small one (YOLO) learns from those labels and runs anywhere.
#
# So that this runs offline in minutes, the images are painted scenes and the models the tiny `mini` ones inside the package,
# which know coloured shapes and nothing else of the world. For photographs leave `detector` and `segmenter` out.

# %%
from pathlib import Path

from PIL import Image

from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.measuring import evaluate
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

SCENES = 50
EPOCHS = 35
UNSEEN = 20
here = Path("label_and_distill")  # everything is written below this folder

# what to ask for -> the class it becomes; two prompts may name one class
ontology = {"red circle": "ball", "orange circle": "ball", "green star": "star", "blue square": "box"}

# in place of your photographs: scenes with these things in them
scenes = PainterSettings(objects=(2, 5), pairs=tuple((name.split()[0], name.split()[1]) for name in ontology))
paint_dataset(here, SCENES, scenes, seed=1_000, class_names=ontology)
print(f"{len(list((here / 'images').iterdir()))} images, no labels")

# %% [markdown]
# ## The ten lines

# %%
from autodistill_grounded_sam import GroundedSAM, YOLOv8

teacher = GroundedSAM(ontology, detector="mini", segmenter="mini")
dataset = teacher.label(str(here / "images"), output_folder=str(here / "dataset"))

student = YOLOv8("yolov8n-seg.yaml")  # in earnest "yolov8n-seg.pt", which starts from pretrained weights
trained = student.train(here / "dataset/data.yaml", epochs=EPOCHS, imgsz=160, batch=8)

print(f"{len(dataset)} images with the classes {', '.join(dataset.classes)}")

# %% [markdown]
# `label` may be interrupted: run again, it goes on where it was. Beside the dataset lie `report.html`, which shows what was found
# and what was dropped and why, and `run/`, from which other thresholds, classes and formats are decided without looking again.

# %%
Image.fromarray(dataset_sheet(here / "dataset", 6, columns=3, cell_width_px=320)).save(here / "labels.jpg")
Image.open(here / "labels.jpg")

# %% [markdown]
# ## Is it any good?
#
# Painted scenes come with their truth, so both can be measured on images that neither has seen: how many objects of the truth are
# found, and how many of those found are right.

# %%
truth = paint_dataset(here / "unseen", UNSEEN, scenes, seed=2_000, class_names=ontology)
teacher.label(str(here / "unseen/images"), output_folder=str(here / "unseen_labelled"))
for name, source in {"teacher": here / "unseen_labelled", "student": trained.weights}.items():
    figures = evaluate(source, truth)
    point = figures.operating_point
    print(f"{name}: precision {point['precision']:.2f}, recall {point['recall']:.2f}, box AP50 {figures.box['AP50']:.2f}")

# %%
from autodistill_grounded_sam.drawing import contact_sheet, draw_labels
from autodistill_grounded_sam.images import read_image

pictures = []
for path in sorted((here / "unseen/images").iterdir())[:3]:
    seen = student.predict(path)
    pictures.append(draw_labels(read_image(path), seen.xyxy, seen.class_id, dataset.classes, score=seen.confidence))
Image.fromarray(contact_sheet(pictures, columns=3, cell_width_px=320)).save(here / "student.jpg")
Image.open(here / "student.jpg")

# %% [markdown]
# ## What next
#
# - Look at `report.html`. If a class is full of mistakes, try other words first, then a threshold of its own (*tune thresholds*).
# - The student began from random weights, with few images and few epochs, and is well behind its teacher. Start from
#   `yolov8n-seg.pt`, give it more of both (`SCENES`, `EPOCHS` above), and measure again; `make demo` is this story at a larger
#   size.
# - On a command line the same is `grounded-sam label images --ontology words.yaml --out dataset` and `grounded-sam distill
#   dataset --out student`.
