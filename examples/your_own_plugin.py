# %% [markdown]
# # A plugin of your own
#
# A detector is a class with one method: a batch of images and the prompts in, boxes and scores out. Whatever has that method, an
# old network of yours, a service, some lines of OpenCV, takes part in everything else: masks by SAM, resuming, thresholds,
# formats, students.
#
# Here it is a detector of coloured spots, without any network.

# %%
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from autodistill_grounded_sam.types import Candidates, RgbImage

SCENES = 8
here = Path("your_own_plugin")
COLOURS = {"red": (214, 38, 40), "blue": (34, 84, 206), "green": (36, 158, 66)}


class SpotDetector:
    """Spots of the colour that a prompt begins with; the score is the share of the box that the spot fills."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image, prompts) for image in images]

    def _detect_one(self, image_rgb: RgbImage, prompts: Sequence[str]) -> Candidates:
        boxes, scores = [], []
        for column, prompt in enumerate(prompts):
            colour = COLOURS.get(prompt.split()[0])
            if colour is None:
                continue
            near = np.linalg.norm(image_rgb.astype(np.float32) - colour, axis=-1) < 70
            count, _, spots, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8))
            for x, y, width, height, area in spots[1:count]:
                if area >= 80:
                    boxes.append((x, y, x + width, y + height))
                    scores.append([area / (width * height) if place == column else 0 for place in range(len(prompts))])
        return Candidates(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(len(boxes), len(prompts))
        )


# %% [markdown]
# ## Does it keep the contract?
#
# One call tells what is missing. It shows the detector pictures of odd sizes, an empty one, several prompts and batches.

# %%
from autodistill_grounded_sam.testing import check_detector

check_detector(SpotDetector())
print("SpotDetector keeps the contract")


class HastyDetector(SpotDetector):
    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return super().detect(images[:1], prompts)  # forgets the rest of the batch


try:
    check_detector(HastyDetector())
except AssertionError as error:
    print("HastyDetector does not:", error)

# %% [markdown]
# ## Use it
#
# A class is named `module:Class`, wherever a detector is named. Here the module is this script.

# %%
from autodistill_grounded_sam import LabelConfig, label
from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.drawing import dataset_sheet
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder

pairs = (("red", "circle"), ("red", "heart"), ("blue", "square"), ("blue", "moon"), ("green", "triangle"))
paint_folder(here / "images", SCENES, seed=7_000, settings=PainterSettings(objects=(2, 5), pairs=pairs))

config = LabelConfig(see=SeeConfig(detector="__main__:SpotDetector", segmenter="mini"))
summary = label(here / "images", {"blue": "cold", "red": "warm", "green": "plant"}, here / "dataset", config)
print(f"{summary.labels} labels: {dict(summary.per_class)}")

# %%
Image.fromarray(dataset_sheet(here / "dataset", 6, columns=3, cell_width_px=320)).save(here / "labels.jpg")
Image.open(here / "labels.jpg")

# %% [markdown]
# Spots of one colour that touch are one object to it. Better is a detector's own business; nothing else here has to change for
# it.
#
# ## Share it
#
# As a package with an entry point it has a name of its own (`--detector spots`), is listed by `grounded-sam plugins`, and works
# with the workers of a cluster. `examples/plugin/` is such a package, with a detector, a segmenter and a format; this is all that
# announces them:
#
# ```toml
# [project.entry-points."autodistill_grounded_sam.detectors"]
# spots = "my_package:SpotDetector"
# ```
#
# `docs/plugins.md` lists the five roles: detectors, segmenters, taggers, formats, students.
