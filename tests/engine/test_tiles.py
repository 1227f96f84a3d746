"""Tiles cover the image, and what comes back from them is whole and in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.engine.memory import OutOfMemoryError
from autodistill_grounded_sam.engine.tiles import OVERLAP, TiledDetector, TiledSegmenter, natural_tile_px, tiles
from autodistill_grounded_sam.engine.worker import trim
from autodistill_grounded_sam.masks import decode_mask, encode_mask
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


class Sized(WhiteSpots):
    """As a real detector tells its input: the shorter side becomes 100 px."""

    def __init__(self) -> None:
        self.asked = 0

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        return round(100 * width / min(width, height)), round(100 * height / min(width, height))

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        self.asked += len(images)
        return super().detect(images, prompts)


def test_tile__holds_what_the_input_of_the_detector_holds() -> None:
    assert natural_tile_px(Sized()) == 80
    assert natural_tile_px(WhiteSpots()) == 640


@pytest.mark.parametrize(
    ("spot_px", "width", "tiled"),
    [(None, 300, True), (15, 300, True), (60, 300, False), (15, 110, False)],
    ids=["nothing seen", "small", "large", "hardly larger than a tile"],
)
def test_auto__tiles_only_where_it_pays(spot_px: int | None, width: int, tiled: bool) -> None:
    image = np.zeros((width, width, 3), np.uint8)
    if spot_px:
        image[20 : 20 + spot_px, 20 : 20 + spot_px] = 255
    detector = Sized()
    TiledDetector(detector, which="auto").detect([image], ["spot"])
    assert (detector.asked > 1) == tiled


class Corners:
    """Sees what is large for its picture as one object, and a white corner or a small spot for what it is not."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        self.asked += [image.shape[:2] for image in images]
        return [self._one(image) for image in images]

    def _one(self, image: RgbImage) -> Candidates:
        (found,) = WhiteSpots().detect([image], ["spot"])
        sides = (found.xyxy[:, 2:] - found.xyxy[:, :2]).max(axis=1)
        if len(image) == 600:  # the whole: too coarse for anything
            return Candidates.none(1)
        if len(image) == 200:  # wider than a tile: small things are too small for it
            return found.select(sides > 40)
        cut = (found.xyxy[:, 2:] == 100).any(axis=1) | (found.xyxy[:, :2] == 0).any(axis=1)
        inner = (found.xyxy + cut[:, None] * np.array([10, 10, -10, -10])).astype(np.float32)  # it does not see the cut
        solid = (inner[:, 2:] > inner[:, :2] + 5).all(axis=1)
        return Candidates(inner[solid], found.scores[solid])


def test_tiled_detector__a_corner_is_looked_at_again_with_more_around_it() -> None:
    image = np.zeros((600, 600, 3), np.uint8)
    image[30:50, 30:50] = 255
    detector = Corners()
    (found,) = TiledDetector(detector, None, 100).detect([image], ["spot"])
    assert found.xyxy.tolist() == [[30, 30, 50, 50]], "too small for the wider look, and nothing larger is there"
    assert detector.asked.count((200, 200)) == 1, "only where the whole look saw nothing"
    image[300:450, 300:450] = 255
    (found,) = TiledDetector(Corners(), None, 100).detect([image], ["spot"])
    assert found.xyxy.tolist() == [[30, 30, 50, 50]], "no corner of the large one"
    image[360:366, 360:366] = 100  # what white spots do not hold: a thing of 6 px on the large one, in one tile alone

    class WithScrews(Corners):
        def _one(self, picture: RgbImage) -> Candidates:
            seen, (ys, xs) = super()._one(picture), np.nonzero(picture[..., 0] == 100)
            if len(picture) != 100 or not len(ys):
                return seen
            screw = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
            return Candidates(np.concatenate([seen.xyxy, screw]), np.concatenate([seen.scores, np.ones((1, 1), np.float32)]))

    (found,) = TiledDetector(WithScrews(), None, 100).detect([image], ["spot"])
    assert [360, 360, 366, 366] in found.xyxy.tolist(), "too small to be asked of the wider look"


class WhiteMasks:
    """What is white in each box; `sizes` are those of the pictures it was shown."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        rows = []
        for image, found in zip(images, candidates, strict=True):
            self.sizes.append(image.shape[:2])
            masks = [np.zeros(image.shape[:2], np.bool_) for _ in found.xyxy]
            for mask, (x1, y1, x2, y2) in zip(masks, found.xyxy.astype(int), strict=True):
                mask[y1:y2, x1:x2] = image[y1:y2, x1:x2, 0] > 127
            rle = tuple(encode_mask(mask) for mask in masks)
            rows.append(Candidates(found.xyxy, found.scores, rle, np.full(len(masks), 0.5, np.float32)))
        return rows


def test_tiled_segmenter__small_boxes_in_their_tiles_and_the_very_same_masks() -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((500, 700, 1)) > 0.3).astype(np.uint8).repeat(3, axis=2) * 255
    corner = rng.integers(0, 400, (12, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 90, (12, 2))], axis=1).astype(np.float32)
    found = Candidates(np.array([*boxes, [3, 3, 650, 480]], np.float32), np.ones((13, 1), np.float32))
    masks = WhiteMasks()
    answers = TiledSegmenter(masks, 100).segment([image, image[:90, :90]], [found, found.select(np.arange(0))])
    assert masks.sizes[0] == (500, 700) and set(masks.sizes[1:-1]) == {(100, 100)} and masks.sizes[-1] == (90, 90)
    (whole,) = WhiteMasks().segment([image], [found])
    assert all(np.array_equal(decode_mask(a), decode_mask(b)) for a, b in zip(answers[0].rle or (), whole.rle or (), strict=True))
    np.testing.assert_array_equal(answers[0].xyxy, found.xyxy)
    assert answers[0].mask_score is not None and answers[0].mask_score.tolist() == [0.5] * 13
    assert len(answers[1]) == 0 and answers[1].rle == ()
