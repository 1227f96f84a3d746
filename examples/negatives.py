# %% [markdown]
# # Negatives
#
# You ask for balls and also get oranges and plates: a prompt finds whatever is near it. Lower thresholds make it worse, higher
# ones lose balls. Name what it is mistaken for instead. A negative is a prompt that competes for every box and is never labelled.
#
# Here balls are red circles among orange and blue ones, and the ontology asks for "circle".

# %%
from pathlib import Path

import numpy as np
from PIL import Image

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.measuring import evaluate
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

SCENES = 16
here = Path("negatives")

pairs = (("red", "circle"), ("orange", "circle"), ("blue", "circle"))
scenes = PainterSettings(objects=(3, 5), pairs=pairs)
truth = paint_dataset(here, SCENES, scenes, seed=6_000, class_names={"red circle": "ball"})


def ontology(prompt: str, *negatives: str) -> dict:
    return {"version": 1, "name": "balls", "classes": {"ball": {"prompts": [prompt]}}, "negatives": list(negatives)}


config = LabelConfig(see=SeeConfig(detector="mini", segmenter="mini"))
asked = {
    "plain": ontology("circle"),
    "with negatives": ontology("circle", "orange circle", "blue circle"),
    "and better words": ontology("red circle", "orange circle", "blue circle"),
}
for name, words in asked.items():
    label(here / "images", words, here / name, config)
    point = evaluate(here / name, truth).operating_point
    print(f"{name}: {point['precision']:.2f} of the labels are right, {point['recall']:.2f} of the balls are found")

# %% [markdown]
# The same two pictures, in this order from above:

# %%
rows = [dataset_sheet(here / name, 2, columns=2, cell_width_px=320) for name in asked]
Image.fromarray(np.concatenate(rows)).save(here / "compared.jpg")
Image.open(here / "compared.jpg")

# %% [markdown]
# ## What became of the others?
#
# Nothing is thrown away unseen. Each candidate that is not labelled has a reason, and `report.html` shows examples of every one.

# %%
from collections import Counter

from autodistill_grounded_sam.pipeline import decided_labels
from autodistill_grounded_sam.types import REASONS

_, labelled = decided_labels(here / "with negatives")
reasons = Counter(REASONS[number].value for _, labels in labelled for number in labels.reasons)
for reason, count in reasons.most_common():
    print(f"{count:4} {reason}")

# %% [markdown]
# ## What next
#
# - A negative pays where one kind of mistake comes again and again: open the report, look at the worst labels of a class, and
#   name what you see. It costs some words of the caption, not a look of its own.
# - It wins a box only where its words fit better. A class that is asked for by its own words needs fewer of them.
# - Negatives are words for the models, so a new one means that they look again; taking one out of play later does not.
# - Where two of your own classes are mistaken for each other, say that they exclude one another: `exclusive: [[ball, orange]]`.
