# %% [markdown]
# # Negatives
#
# You ask for balls and also get oranges and plates: a prompt finds whatever is near it. Lower thresholds make it worse, higher
# ones lose balls. Name what it is mistaken for instead. A negative is a prompt that competes for every box and is never labelled.
#
# Here balls are red circles among orange and blue ones, and the ontology asks for "circle".

# %%
from pathlib import Path

from PIL import Image

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import contact_sheet, dataset_sheet
from autodistill_grounded_sam.measuring import evaluate
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

SCENES = 16
here = Path("negatives")

pairs = (("red", "circle"), ("orange", "circle"), ("blue", "circle"))
scenes = PainterSettings(objects=(3, 5), pairs=pairs)
truth = paint_dataset(here, SCENES, scenes, seed=6_000, class_names={"red circle": "ball"})

classes = {"ball": {"prompts": ["circle"]}}
plain = {"version": 1, "name": "balls", "classes": classes}
better = {**plain, "negatives": ["orange circle", "blue circle"]}


def tell(name: str) -> None:
    point = evaluate(here / name, truth).operating_point
    print(f"{name}: {point['precision']:.2f} of the labels are right, {point['recall']:.2f} of the balls are found")


config = LabelConfig(see=SeeConfig(detector="mini", segmenter="mini"))
for name, ontology in {"plain": plain, "with negatives": better}.items():
    label(here / "images", ontology, here / name, config)
    tell(name)

# %% [markdown]
# The same two pictures, above without negatives, below with them:

# %%
both = [dataset_sheet(here / name, 2, columns=2, cell_width_px=360) for name in ("plain", "with negatives")]
Image.fromarray(contact_sheet(both, columns=1, cell_width_px=728)).save(here / "both.jpg")
Image.open(here / "both.jpg")

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
# - A negative is worth it when you see one kind of mistake again and again: open the report, look at the worst labels of a class,
#   and name what you see. It costs some words of the caption, no further look.
# - Negatives are words for the models, so a new one means that they look again; taking one out of play later does not.
# - Where two of your own classes are mistaken for each other, say that they exclude one another: `exclusive: [[ball, orange]]`.
