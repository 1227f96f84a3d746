"""Masks without a model, for rough work on a CPU: the ellipse in each box, and GrabCut, which parts colours in and around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage, Rle

UNRATED = 0.5  # the mask_score of every mask: these segmenters do not know how good they are
MARGIN = 0.3  # of a box's sides: what GrabCut sees around the box to learn the background from
WORKING_PX = 192  # the longer side of what GrabCut works on; larger boxes are brought down to it
ROUNDS = 5  # of GrabCut's estimation

Plane = npt.NDArray[np.uint8]  # (height, width)


def refuse_guesses(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where one of several masks is asked of a segmenter that makes one."""
    if settings.get("mask_guess", "single") != "single":
        raise ConfigError(f"{name} draws one mask a box; mask_guess {settings['mask_guess']!r} is of SAM and its relatives")


class Ellipse:
    """The ellipse that touches the four sides of each box, after the protocol Segmenter.

    Settings of a model (device, offline, precision) mean nothing to it and are taken, so that it can be named wherever one can.
    """

    about: ClassVar = (About("ellipse", "IoU 0.64 to 0.80 from true boxes of three sets (`benchmarks/masks_from_boxes.py`)"),)

    def __init__(self, name: str = "ellipse", **settings: Any) -> None:
        refuse_guesses(name, settings)

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        """Each image's candidates with `rle` and a `mask_score` that is the same for all."""
        return [self._segment_one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _segment_one(self, image_rgb: RgbImage, found: Candidates) -> Candidates:
        rle = tuple(self._mask(image_rgb, box) for box in found.xyxy)
        return replace(found, rle=rle, mask_score=np.full(len(found), UNRATED, np.float32))

    def _mask(self, image_rgb: RgbImage, box: Float32) -> Rle:
        height, width = image_rgb.shape[:2]
        return encode_mask(ellipse(box, height, width))


class GrabCut(Ellipse):
    """OpenCV's GrabCut in each box, begun from the ellipse in it; where colours say nothing, the ellipse stays."""

    about: ClassVar = (About("grabcut", "IoU 0.81 to 0.95 from true boxes of three sets (`benchmarks/masks_from_boxes.py`)"),)

    def __init__(self, name: str = "grabcut", **settings: Any) -> None:
        super().__init__(name, **settings)

    def _mask(self, image_rgb: RgbImage, box: Float32) -> Rle:
        height, width = image_rgb.shape[:2]
        margin = (box[2:] - box[:2]) * MARGIN
        x1, y1 = np.floor(np.maximum(box[:2] - margin, 0)).astype(int)
        x2, y2 = np.ceil(np.minimum(box[2:] + margin, [width, height])).astype(int)
        mask = np.zeros((height, width), np.uint8, order="F")
        if x2 > x1 and y2 > y1:
            own = box - np.array([x1, y1, x1, y1], np.float32)
            mask[y1:y2, x1:x2] = _cut(np.ascontiguousarray(image_rgb[y1:y2, x1:x2]), own)
        return encode_mask(mask)


def ellipse(box: Float32, height: int, width: int) -> Plane:
    """The 0/1 mask (height, width) of the pixels whose centres lie in the ellipse of `box` (xyxy, px)."""
    (x1, y1, x2, y2) = box.astype(np.float64)
    if x2 <= x1 or y2 <= y1:
        return np.zeros((height, width), np.uint8, order="F")
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return np.asfortranarray((x[None] ** 2 + y[:, None] ** 2 <= 1).astype(np.uint8))


def _cut(region_rgb: RgbImage, box: Float32) -> Plane:
    """The 0/1 mask of a region (height, width) in which `box` lies: nothing outside the box, colours decide inside."""
    import cv2

    height, width = region_rgb.shape[:2]
    start = ellipse(box, height, width)
    scale = min(1.0, WORKING_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(region_rgb, size, interpolation=cv2.INTER_AREA)
    # One column or row too many is better than an edge of the object called background.
    (x1, y1), (x2, y2) = np.floor(box[:2] * scale).astype(int), np.ceil(box[2:] * scale).astype(int)
    seen = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    seen[max(y1, 0) : y2, max(x1, 0) : x2] = cv2.GC_PR_BGD
    seen[ellipse(box * np.float32(scale), *small.shape[:2]) > 0] = cv2.GC_PR_FGD
    if not (seen == cv2.GC_PR_FGD).any() or (seen == cv2.GC_PR_FGD).all():
        return start  # GrabCut wants both
    cv2.setRNGSeed(0)  # it draws at random, and a mask must not depend on those before it
    try:
        cv2.grabCut(small, seen, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of either kind for its colour models
        return start
    cut = (seen == cv2.GC_PR_FGD).astype(np.float32)
    if not cut.any():
        return start
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5, np.uint8)
