# %% [markdown]
# # A drop-in for autodistill
#
# Code that was written for the published `autodistill-grounded-sam` runs as it is: same import, same class, same `label` and
# `predict`. Here only the two lines that name the tiny `mini` models are new, so that it runs offline. Without them the weights
# are those of the published plugin: Grounding DINO Swin-T and SAM ViT-H.

# %%
from pathlib import Path

from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder

SCENES = 12
here = Path("drop_in_for_autodistill")

pairs = (("red", "circle"), ("green", "star"), ("blue", "square"), ("purple", "moon"))
paint_folder(here / "images", SCENES, seed=500, settings=PainterSettings(512, 384, (2, 5), pairs=pairs))  # your photographs
image = str(here / "images/scene_0001.png")

# %% [markdown]
# ## The code of before

# %%
import cv2
from autodistill.detection import CaptionOntology
from autodistill.utils import plot

from autodistill_grounded_sam import GroundedSAM

# caption -> class
base_model = GroundedSAM(
    ontology=CaptionOntology({"red circle": "ball", "green star": "star", "blue square": "box"}),
    detector="mini",
    segmenter="mini",
)

# one image: a path, a PIL image, or what cv2.imread returns
results = base_model.predict(image)
print(f"{len(results)} objects in {image}")
plotted = plot(cv2.imread(image), results, classes=base_model.ontology.classes(), raw=True)

# %%
from PIL import Image

Image.fromarray(cv2.cvtColor(plotted, cv2.COLOR_BGR2RGB))

# %% [markdown]
# `results` is a `supervision.Detections` with masks; `plot` is autodistill's own. And a whole folder:

# %%
dataset = base_model.label(str(here / "images"), extension=".png", record_confidence=True)
print(f"{len(dataset)} images labelled, classes {dataset.classes}")
for path in sorted((here / "images_labeled").glob("*/*")):
    if path.is_dir() and path.parent.name in ("train", "valid"):
        print(f"{path.as_posix()}: {len(list(path.iterdir()))} files")

# %% [markdown]
# The layout is autodistill's (`<folder>_labeled/{data.yaml,train,valid}`), so a target model of autodistill trains on it. With
# `record_confidence` a file of scores lies beside each label file.
#
# ## What is different
#
# - Run it again after an interruption and it goes on; the split is drawn by content, so it stays the same.
# - A box carries a class of your ontology, never a half-decoded phrase: scores are taken over each prompt's own words.
# - `images_labeled/report.html` shows what was found, and `images_labeled/run/` remembers what the models saw:

# %%
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.pipeline import redecide

for threshold in (0.35, 0.8):
    summary = redecide(here / "images_labeled", DecideConfig(box_threshold=threshold))
    print(f"box threshold {threshold}: {summary.labels} labels, {summary.looked_at} images looked at again")

# %% [markdown]
# A threshold costs no second look. *Tune thresholds* says how to choose one.
