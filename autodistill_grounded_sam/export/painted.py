"""Masks as pictures in which a pixel is of one object: VOC, COCO panoptic and plain PNG masks share this.

Where objects overlap, the smaller lies on the larger: a cup on a table stays a cup, and fewest objects vanish. What the larger
lose is measured when the pictures are read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.mask_runs import paint_crops, read_runs
from autodistill_grounded_sam.types import Int32, Rle
from autodistill_grounded_sam.voc_datasets import voc_palette


def paint_objects(rles: list[Rle], width: int, height: int) -> Int32:
    """The picture (height, width) of masks of that size, best first: 0 is background, k + 1 is mask k.

    A smaller mask lies on a larger one, and of two of one size the better on the other.
    """
    picture = np.zeros((height, width), np.int32)
    runs = read_runs(rles)
    corners = runs.boxes_xyxy()[:, :2].astype(np.int64).tolist()
    crops = list(paint_crops(runs, np.uint8(1)))
    for place in np.lexsort((-np.arange(len(rles)), -runs.areas())).tolist():
        crop, (left, top) = crops[place].T, corners[place]
        picture[top : top + crop.shape[0], left : left + crop.shape[1]][crop.view(np.bool_)] = place + 1
    return picture


def covered_objects(picture: Int32, count: int) -> npt.NDArray[np.bool_]:
    """(count,) which of the objects of a picture have no pixel left in it."""
    covered: npt.NDArray[np.bool_] = np.bincount(picture.reshape(-1), minlength=count + 1)[1 : count + 1] == 0
    return covered


def ious_with(picture: npt.NDArray[Any], rles: list[Rle]) -> list[float]:
    """The IoU of each mask with what a picture of `paint_objects` shows of it."""
    runs = read_runs(rles)
    shown = np.bincount(picture.reshape(-1), minlength=len(rles) + 1)
    boxes, areas = runs.boxes_xyxy().astype(np.int64).tolist(), runs.areas().tolist()
    ious = []
    for place, crop in enumerate(paint_crops(runs, np.uint8(1))):
        left, top, right, bottom = boxes[place]
        here = picture[top:bottom, left:right] == place + 1
        shared = int(np.count_nonzero(here & crop.T.view(np.bool_)))
        ious.append(shared / max(1, int(shown[place + 1]) + areas[place] - shared))
    return ious


def save_indexed(picture: npt.NDArray[Any], path: Path) -> None:
    """Write a picture of numbers as PNG: of 8 bits in VOC's colours where they fit, else of 16 bits."""
    if int(picture.max(initial=0)) < 256:
        image = Image.fromarray(picture.astype(np.uint8))
        image.putpalette(voc_palette())
    else:
        image = Image.fromarray(picture.astype(np.uint16))
    image.save(path, compress_level=3)


def load_indexed(path: Path) -> npt.NDArray[Any]:
    """The numbers of a picture of `save_indexed`."""
    with Image.open(path) as image:
        return np.asarray(image)
