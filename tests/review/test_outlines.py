"""A path of SVG is the mask, with its holes and parts."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.review.outlines import outline
from autodistill_grounded_sam.types import Mask

SCALE = 8


def filled(path: str, mask: Mask) -> np.ndarray:
    """The path filled by the rule evenodd, SCALE pixels a pixel of the image."""
    canvas = Image.new("1", (mask.shape[1] * SCALE, mask.shape[0] * SCALE))
    for ring in re.findall(r"M([^Z]*)Z", path):
        points = [tuple(float(number) * SCALE for number in point.split()) for point in ring.split("L")]
        layer = Image.new("1", canvas.size)
        ImageDraw.Draw(layer).polygon(points, fill=1)
        canvas = ImageChops.logical_xor(canvas, layer)
    return np.asarray(canvas)


def iou(mask: Mask) -> float:
    painted, wanted = filled(outline(encode_mask(mask)), mask), mask.repeat(SCALE, 0).repeat(SCALE, 1)
    return float((painted & wanted).sum() / (painted | wanted).sum())


def test_a_disc_with_a_hole_and_a_part_beside_it() -> None:
    y, x = np.mgrid[:80, :120]
    far = np.hypot(x - 50, y - 40)
    assert iou((far < 30) & (far > 12) | (x > 100) & (y < 30)) > 0.95


def test_a_single_pixel_is_seen() -> None:
    mask = np.zeros((6, 9), np.bool_)
    mask[2, 4] = True
    assert outline(encode_mask(mask)).startswith("M4.25 2.25")


def test_a_speck_or_a_thin_line_is_no_diagonal() -> None:
    for high, wide in ((1, 1), (1, 2), (2, 2), (1, 6), (6, 1)):
        mask = np.zeros((9, 9), np.bool_)
        mask[2 : 2 + high, 1 : 1 + wide] = True
        assert outline(encode_mask(mask)).count("L") == 3


def test_an_empty_mask_has_none() -> None:
    assert outline(encode_mask(np.zeros((6, 9), np.bool_))) == ""
