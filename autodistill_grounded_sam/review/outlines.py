"""Masks as paths of SVG, in pixels of the image: what a browser draws crisply at any zoom."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from autodistill_grounded_sam.mask_runs import paint_crops, read_runs
from autodistill_grounded_sam.types import Rle

HALF_PIXELS = np.uint16(0x0101)  # two bytes of ink a pixel, so that an outline runs near the edge of the pixel, not in its middle
TOLERANCE = 1.0  # half pixels that an outline may stray: not to be seen, and a tenth of the points
SMALL = (
    32  # half pixels; a smaller one strays less, since it is looked at closely: a disc would be an octagon, a pixel its diagonal
)

OUTLINES_IN_MEMORY = 1024


def outline(rle: Rle) -> str:
    """The path of a mask, holes included, to be filled by the rule `evenodd`; "" of an empty one."""
    return _outline(*rle["size"], rle["counts"])


@lru_cache(OUTLINES_IN_MEMORY)
def _outline(height: int, width: int, counts: str) -> str:
    import cv2

    runs = read_runs([Rle(size=[height, width], counts=counts)])
    if not len(runs.mask):
        return ""
    (crop,) = paint_crops(runs, HALF_PIXELS)  # a row is a column of the image
    left, top = runs.boxes_xyxy()[0, :2].tolist()
    rings, _ = cv2.findContours(np.repeat(crop.view(np.uint8), 2, axis=0), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = []
    for ring in rings:
        tolerance = min(TOLERANCE, np.ptp(ring, axis=(0, 1)).min() / SMALL)
        points = cv2.approxPolyDP(ring, tolerance, True)[:, 0, ::-1] / 2 + (left + 0.25, top + 0.25)
        parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + "Z")
    return "".join(parts)
