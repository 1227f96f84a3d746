"""Tiles cover the image, and what comes back from them is whole and in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.engine.tiles import OVERLAP, TiledDetector, tiles
from autodistill_grounded_sam.types import Candidates, RgbImage


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tiles__cover_every_pixel_and_overlap(width: int, height: int) -> None:
    cover = np.zeros((height, width), np.bool_)
    found = list(tiles(width, height))
    for x1, y1, x2, y2 in found:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        cover[y1:y2, x1:x2] = True
    assert bool(found) == (max(width, height) > 640)
    assert not found or cover.all()
    columns = sorted({(x1, x2) for x1, _, x2, _ in found})
    assert all(a[1] - b[0] >= 640 * OVERLAP - 1 for a, b in pairwise(columns))


class WhiteSpots:
    """Finds each white blob's box, as far as the picture it is given shows it."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        import cv2

        rows = []
        for image in images:
            _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 127).astype(np.uint8))
            boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]], np.float32).reshape(-1, 4)
            rows.append(Candidates(boxes, np.ones((len(boxes), len(prompts)), np.float32)))
        return rows


def test_tiled_detector__gives_whole_objects_in_image_pixels() -> None:
    image = np.zeros((700, 1500, 3), np.uint8)
    image[100:130, 630:650] = 255  # on the edge of the first tile
    image[600:690, 1480:1500] = 255  # at the edge of the picture itself
    found = TiledDetector(WhiteSpots()).detect([image], ["spot"])[0]
    assert {tuple(box) for box in found.xyxy.astype(int).tolist()} == {(630, 100, 650, 130), (1480, 600, 1500, 690)}
    assert len(found) > 2, "each was seen by a tile as well as in the whole picture"


def test_tiled_detector__small_image_is_asked_once() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[10:20, 10:20] = 255
    assert len(TiledDetector(WhiteSpots()).detect([image], ["spot"])[0]) == 1
