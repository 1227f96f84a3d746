"""Pictures: what is cut out, where the outlines lie, what fits in a page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.report.pictures import FINE, SIDE_PX, Picture, draw, draw_pictures
from autodistill_grounded_sam.report.samples import Example, Shape
from autodistill_grounded_sam.types import ImageRecord, Mask


def record(width: int, height: int, root: Path = Path("/nowhere")) -> ImageRecord:
    return ImageRecord("image.png", "0" * 64, root, width, height)


def disc(width: int, height: int, x: float, y: float, radius: float) -> Mask:
    down, across = np.mgrid[:height, :width]
    return np.asarray((across + 0.5 - x) ** 2 + (down + 0.5 - y) ** 2 < radius**2)


def painted(path: str, picture: Picture) -> Mask:
    """What a browser fills, on the grid of the outline; runs of the path are `M x y l dx dy ... z`."""
    canvas = np.zeros((picture.height * FINE, picture.width * FINE), np.uint8)
    rings = []
    for ring in re.findall(r"M([^z]*)z", path):
        start, _, steps = ring.partition("l")
        points = np.array([[float(v) for v in start.split()], *np.array(steps.split(), float).reshape(-1, 2).tolist()])
        rings.append(points.cumsum(axis=0).astype(np.int32))
    cv2.fillPoly(canvas, rings, 1)
    return canvas.astype(np.bool_)


@pytest.mark.parametrize(
    ("width", "height", "x", "y", "radius"), [(640, 480, 300, 200, 60), (2000, 1500, 1900, 40, 300), (50, 40, 20, 20, 6)]
)
def test_outline_and_picture_show_the_same_place(width: int, height: int, x: float, y: float, radius: float) -> None:
    mask = disc(width, height, x, y, radius)
    image_rgb = np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    picture = draw(image_rgb, Example(record(width, height), Shape(box, encode_mask(mask))))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data.partition(",")[2]))).convert("L"))
    assert shown.shape == (picture.height, picture.width) and max(shown.shape) <= SIDE_PX
    fine = cv2.resize(shown, None, fx=FINE, fy=FINE, interpolation=cv2.INTER_LINEAR) > 127
    outline = painted(picture.own, picture)
    assert (fine & outline).sum() / (fine | outline).sum() > 0.95
    close_x, close_y, close_width, close_height = picture.close
    assert 0 <= close_x <= close_x + close_width <= picture.width + 1e-6
    assert 0 <= close_y <= close_y + close_height <= picture.height + 1e-6


def test_a_hole_stays_a_hole_and_parts_stay_parts() -> None:
    mask = disc(200, 200, 100, 100, 60) & ~disc(200, 200, 100, 100, 30) | disc(200, 200, 20, 20, 10)
    picture = draw(np.zeros((200, 200, 3), np.uint8), Example(record(200, 200), Shape((10, 10, 160, 160), encode_mask(mask))))
    assert picture.own.count("M") == 3
    assert not painted(picture.own, picture)[100 * FINE, 100 * FINE]


@pytest.mark.parametrize(("high", "wide"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_speck_is_a_square_and_no_diagonal(high: int, wide: int) -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[20 : 20 + high, 10 : 10 + wide] = True
    box = (10.0, 20.0, 10.0 + wide, 20.0 + high)
    picture = draw(np.zeros((40, 40, 3), np.uint8), Example(record(40, 40), Shape(box, encode_mask(mask))))
    assert painted(picture.own, picture).sum() == high * wide * FINE**2


def test_without_a_mask_the_box_is_drawn_and_beside_the_piece_nothing() -> None:
    far = Shape((900, 900, 950, 950))
    picture = draw(np.zeros((1000, 1000, 3), np.uint8), Example(record(1000, 1000), Shape((10, 20, 60, 80)), neighbours=(far,)))
    assert picture.own.count("l") == 1 and picture.neighbours == ""


def test_of_a_duplicate_the_one_it_lost_to_is_in_the_picture() -> None:
    shape, rival = Shape((10, 10, 30, 30)), Shape((300, 300, 320, 320))
    picture = draw(np.zeros((400, 400, 3), np.uint8), Example(record(400, 400), shape, rival=rival))
    assert picture.own and picture.rival


def test_what_does_not_fit_or_cannot_be_read_has_no_picture(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "image.png")
    digest = hashlib.sha256((tmp_path / "image.png").read_bytes()).hexdigest()
    here, gone = ImageRecord("image.png", digest, tmp_path, 64, 64), ImageRecord("gone.png", "1" * 64, tmp_path, 64, 64)
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    other = ImageRecord("other.png", "2" * 64, tmp_path, 64, 64)  # of the same size, of other bytes
    examples = [Example(here), Example(gone), Example(here, Shape((1, 1, 9, 9))), Example(other)]
    first, missing, second, changed = draw_pictures(examples, 10**6)
    assert first and second and missing is None and changed is None
    assert [one is None for one in draw_pictures(examples, first.bytes)] == [False, True, True, True]
