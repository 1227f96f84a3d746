# %% [markdown]
# # Adapt to your domain with twenty images
#
# Words fail where the domain is odd: parts with names of the trade, cells under a microscope. Then label twenty images by hand,
# let the detector learn from them, and have it label the rest.
#
# The parts here are painted: rings, stars and hearts, which the trade calls sprockets, widgets and gadgets. The detector (`mini`,
# which knows shapes and colours) has never read those names.

# %%
from pathlib import Path

from PIL import Image

from autodistill_grounded_sam import LabelConfig, adapt_weights, label
from autodistill_grounded_sam.config import DecideConfig, SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.measuring import evaluate
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

LABELLED = 20
STEPS = 160
OTHERS = 12
here = Path("adapt_with_twenty_images")

names = {"green ring": "sprocket", "purple star": "widget", "yellow heart": "gadget"}
pairs = tuple((name.split()[0], name.split()[1]) for name in names)
scenes = PainterSettings(objects=(2, 5), size=(0.14, 0.4), pairs=pairs, backgrounds=("waves", "stripes"))
by_hand = paint_dataset(here / "labelled", LABELLED, scenes, seed=500, class_names=names)  # COCO, as labelling tools write it
truth = paint_dataset(here / "others", OTHERS, scenes, seed=900, class_names=names)

images = here / "labelled/images"
Image.fromarray(dataset_sheet(by_hand, 3, columns=3, cell_width_px=320, images=images)).save(here / "by_hand.jpg")
Image.open(here / "by_hand.jpg")

# %% [markdown]
# Above: three of the twenty, as a person labelled them. Label *every* object of an image: what has no label is learnt as not
# there.

# %%
ontology = {"sprocket": "sprocket", "widget": "widget", "gadget": "gadget"}  # words to ask for -> classes

adapted = adapt_weights(images, by_hand, ontology, here / "weights", detector="mini", steps=STEPS)

print(f"{adapted.steps} steps; {adapted.held_out} of the {adapted.images} images were held out and judge the others:")
for when, figures in {"before": adapted.figures_before, "after": adapted.figures}.items():
    print(f"box AP50 {when}: {figures['AP50']:.2f}")

# %% [markdown]
# Say `minutes=10` instead of `steps`, or `grounded-sam adapt --minutes 10`. A killed run goes on where it was. The folder it
# writes is a detector like any other, with a card of what it learnt from. So label the other images with it, and with its parent
# beside it:

# %%
for name, detector in {"before": "mini", "after": str(here / "weights")}.items():
    config = LabelConfig(see=SeeConfig(detector=detector, segmenter="mini"), decide=DecideConfig(box_threshold=0.2))
    summary = label(here / "others/images", ontology, here / name, config)
    point = evaluate(here / name, truth).operating_point
    print(f"{name}: {summary.labels} labels, of which right {point['precision']:.2f}; objects found {point['recall']:.2f}")

# %%
Image.fromarray(dataset_sheet(here / "after", 6, columns=3, cell_width_px=320)).save(here / "after.jpg")
Image.open(here / "after.jpg")

# %% [markdown]
# ## What next
#
# - The threshold of 0.2 is a guess: new words score lower than old ones. *Tune thresholds* finds the best of each class from
#   images that the detector did not learn from.
# - `docs/adapt.md` says what to watch for, `docs/real.md` what twenty and fifty labelled photographs brought on real sets.
# - Twenty painted images are an easy domain; the held-out figure tells you how hard yours is.
