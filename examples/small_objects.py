# %% [markdown]
# # Small objects in large pictures
#
# A detector shrinks every picture to its input, so a bird in a harbour or a car from above has few pixels left. `tiles="auto"`
# also looks at overlapping tiles of the picture, where that pays, and joins what a seam cuts.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.measuring import evaluate
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

SCENES = 3
WIDTH_PX = 640
HEIGHT_PX = 480
here = Path("small_objects")

names = ["red circle", "blue square", "yellow triangle", "green star"]
pairs = tuple((name.split()[0], name.split()[1]) for name in names)
small = (22 / HEIGHT_PX, 46 / HEIGHT_PX)  # of the shorter side: objects of about 20 to 45 pixels
scenes = PainterSettings(WIDTH_PX, HEIGHT_PX, objects=(14, 18), size=small, pairs=pairs, backgrounds=("cloud", "gradient"))
truth = paint_dataset(here, SCENES, scenes, seed=4_000, class_names=names)

ontology = {name: name for name in names}
for tiles in ("none", "auto"):
    config = LabelConfig(see=SeeConfig(detector="mini", segmenter="mini", tiles=tiles))
    summary = label(here / "images", ontology, here / tiles, config)
    point = evaluate(here / tiles, truth).operating_point
    right, found = point["precision"], point["recall"]
    print(f"tiles {tiles}: {summary.labels} labels, of which right {right:.2f}; of the objects found {found:.2f}")

# %% [markdown]
# The same picture, without tiles and with them:

# %%
both = [dataset_sheet(here / tiles, 1, columns=1, cell_width_px=520) for tiles in ("none", "auto")]
Image.fromarray(np.concatenate(both, axis=1)).save(here / "both.jpg")
Image.open(here / "both.jpg")

# %% [markdown]
# ## What it costs
#
# Time: a look at each tile beside the look at the whole. `auto` leaves out the tiles of pictures whose objects are large; `all`
# takes the tiles of every picture. Where large objects are among small ones, tiles can mistake the corner of a large one for an
# object: `docs/tiles.md` measures that and says how it is kept small.
#
# On a command line it is `grounded-sam label images --ontology words.yaml --tiles auto`; in code for autodistill, `label(...,
# sahi=True)` takes all tiles. `--tile-px` sets their side; left out, it follows from the detector's input.
