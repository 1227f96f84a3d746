"""Tiles cover the image, and what comes back from them is whole and in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.engine.memory import OutOfMemoryError
from autodistill_grounded_sam.engine.tiles import OVERLAP, TiledDetector, merge_looks, tiles
from autodistill_grounded_sam.engine.worker import trim
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
    assert len({(x2 - x1, y2 - y1) for x1, y1, x2, y2 in found}) <= 1, "all of a size, so that they can share a forward pass"
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
    assert len(found) == 2, "what a tile and the whole picture see is one candidate"


def test_tiled_detector__small_image_is_asked_once() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[10:20, 10:20] = 255
    assert len(TiledDetector(WhiteSpots()).detect([image], ["spot"])[0]) == 1


class CoarseSpots(WhiteSpots):
    """As a real detector: what is brighter scores higher; a larger picture gives coarser boxes and lower first scores."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.asked: list[int] = []

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        self.asked.append(len(images))
        if len(images) > self.most:
            raise OutOfMemoryError("full")
        rows = []
        for image, exact in zip(images, super().detect(images, prompts), strict=True):
            step = 4 if len(image) > 640 else 1
            centres = exact.xyxy.reshape(-1, 2, 2).mean(axis=1).astype(int)
            light = image[centres[:, 1], centres[:, 0], :1] / np.float32(255)
            scores = light * np.array([0.85, 0.3] if step > 1 else [0.9, 0.1], np.float32)
            rows.append(Candidates(np.round(exact.xyxy / step).astype(np.float32) * step, scores))
        return rows


def squares() -> tuple[RgbImage, set[tuple[int, ...]]]:
    """1280 px with 64 squares of 40 px, none on the grid of 4 px, each brighter than the one before."""
    image, boxes = np.zeros((1280, 1280, 3), np.uint8), set()
    for number in range(64):
        x, y = 57 + 157 * (number % 8), 58 + 153 * (number // 8)
        image[y : y + 40, x : x + 40] = 130 + number
        boxes.add((x, y, x + 40, y + 40))
    return image, boxes


def test_tiled_detector__repeats_do_not_fill_the_cap() -> None:
    image, boxes = squares()
    (found,) = TiledDetector(CoarseSpots()).detect([image], ["spot", "stain"])
    kept = trim(found, 1280, 1280, 0.1, 100)
    assert {tuple(box) for box in kept.xyxy.astype(int).tolist()} == boxes
    assert len(found) == len(kept) == 64
    light = np.arange(193, 129, -1)[:, None] / 255
    np.testing.assert_allclose(kept.scores, light * [0.9, 0.3], rtol=1e-5)


def test_tiled_detector__asks_once_for_the_whole_and_once_an_image_for_its_tiles() -> None:
    detector = CoarseSpots()
    image, _ = squares()
    both = TiledDetector(detector).detect([image, image[:, ::-1]], ["spot", "stain"])
    assert detector.asked == [2, 9, 9]
    for alone, together in zip([image, image[:, ::-1]], both, strict=True):
        (found,) = TiledDetector(CoarseSpots()).detect([alone], ["spot", "stain"])
        np.testing.assert_array_equal(found.xyxy, together.xyxy)
        np.testing.assert_array_equal(found.scores, together.scores)


def test_tiled_detector__tiles_that_do_not_fit_together_are_asked_in_pieces() -> None:
    image, _ = squares()
    detector = CoarseSpots(most=3)
    tiled = TiledDetector(detector)
    small, again = (tiled.detect([image], ["spot", "stain"])[0] for _ in range(2))
    assert detector.asked == [1, 9, 5, 3, 2, 3, 1, 1, 3, 3, 3]
    np.testing.assert_array_equal(small.xyxy, again.xyxy)
    np.testing.assert_array_equal(small.xyxy, TiledDetector(CoarseSpots()).detect([image], ["spot", "stain"])[0].xyxy)
    with pytest.raises(OutOfMemoryError, match="full"):
        TiledDetector(CoarseSpots(most=0)).detect([image], ["spot", "stain"])


def look(*rows: Sequence[float]) -> Candidates:
    """Rows of x1, y1, x2, y2 and two scores."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Candidates(table[:, :4], table[:, 4:])


def test_merge_looks__boxes_of_one_look_stay() -> None:
    one = look([0, 0, 10, 10, 0.5, 0.1], [0, 0, 10, 9, 0.4, 0.3], [0, 0, 10, 10, 0.4, 0.2])
    merged = merge_looks([one, look()])
    np.testing.assert_array_equal(merged.xyxy, one.xyxy)
    np.testing.assert_array_equal(merged.scores, one.scores)


def test_merge_looks__two_of_one_look_are_not_one_by_way_of_a_third() -> None:
    merged = merge_looks([look([0, 0, 10, 10, 0.9, 0]), look([0, 0, 10, 8, 0.6, 0.1], [0, 0, 10, 9, 0.5, 0.2])])
    np.testing.assert_array_equal(merged.xyxy, np.array([[0, 0, 10, 10], [0, 0, 10, 8]], np.float32))
    np.testing.assert_array_equal(merged.scores, np.array([[0.9, 0.2], [0.6, 0.1]], np.float32))


def test_merge_looks__the_better_look_gives_the_box() -> None:
    merged = merge_looks([look([0, 0, 10, 10, 0.3, 0.2]), look([0, 0, 10, 7, 0.2, 0.4]), look([0, 0, 10, 6.9, 0.1, 0.1])])
    np.testing.assert_array_equal(merged.xyxy, np.array([[0, 0, 10, 7]], np.float32))
    np.testing.assert_array_equal(merged.scores, np.array([[0.3, 0.4]], np.float32))


def test_merge_looks__below_the_limit_and_nothing_at_all() -> None:
    apart = merge_looks([look([0, 0, 10, 10, 0.3, 0.2]), look([0, 0, 10, 6.9, 0.2, 0.4])])
    np.testing.assert_array_equal(apart.xyxy[:, 3], np.array([6.9, 10], np.float32))
    assert merge_looks([Candidates.none(3), Candidates.none(3)]).scores.shape == (0, 3)
