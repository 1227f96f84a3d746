"""Looks at one image become one: repeats merge, parts that tiles cut are joined, and what only touches stays two."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.engine.seams import (
    Part,
    agreement,
    box_iou,
    join_parts,
    merge_looks,
    mistaken_parts,
    parts_of_larger,
)
from autodistill_grounded_sam.engine.tiles import TiledDetector
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Candidates, Mask, RgbImage

TILE = 100  # of which 20 overlap


class Numbered:
    """Every object has a grey value of its own. In the whole picture this detector is blind; in a tile it sees all there is."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._one(image, len(prompts)) for image in images]

    def _one(self, image: RgbImage, prompts: int) -> Candidates:
        numbers = np.unique(image[..., 0])[1:] if max(image.shape) <= TILE else []
        boxes = np.array([box_of(image[..., 0] == number) for number in numbers], np.float32).reshape(-1, 4)
        return Candidates(boxes, np.full((len(boxes), prompts), 0.9, np.float32))


class NumberedMasks:
    """The object that has most pixels in the box, as far as it lies in the box."""

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        rows = []
        for image, found in zip(images, candidates, strict=True):
            masks = []
            for x1, y1, x2, y2 in found.xyxy.astype(int):
                number = 1 + np.bincount(image[y1:y2, x1:x2, 0].ravel(), minlength=256)[1:].argmax()
                mask = np.zeros(image.shape[:2], np.bool_)
                mask[y1:y2, x1:x2] = image[y1:y2, x1:x2, 0] == number
                masks.append(encode_mask(mask))
            rows.append(Candidates(found.xyxy, found.scores, tuple(masks), np.ones(len(masks), np.float32)))
        return rows


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


places = st.integers(0, 280)
objects = st.lists(
    st.tuples(
        st.sampled_from(["bar", "ellipse", "box"]), places, places, st.integers(12, 200), st.integers(12, 60), st.integers(0, 179)
    ),
    min_size=1,
    max_size=7,
)


def paint(shapes: Sequence[tuple[str, int, int, int, int, int]]) -> tuple[RgbImage, list[tuple[int, int, int, int]]]:
    """280 px; objects do not cover one another, but they may touch. Returns the box of each."""
    image, boxes = np.zeros((280, 280), np.uint8), []
    for number, (kind, x, y, long, short, angle) in enumerate(shapes, 1):
        canvas = np.zeros_like(image)
        if kind == "bar":
            corners = cv2.boxPoints(((x, y), (long, 14 + short / 8), angle))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], 1)
        elif kind == "ellipse":
            cv2.ellipse(canvas, (x, y), (long // 2, short // 2), angle, 0, 360, 1, -1)
        else:
            canvas[y : y + long, x : x + short] = 1
        if canvas.sum() < 100 or (image[canvas > 0] > 0).any():
            continue
        box = box_of(canvas > 0)
        inside = [box_iou(np.array(a, np.float32), np.array([b], np.float32))[0] for a in [box] for b in boxes]
        if not inside or max(inside) < 0.05:  # what lies in the box of another is the detector's own matter, not the seams'
            image[canvas > 0] = 30 * number
            boxes.append(box)
    return image[..., None].repeat(3, axis=2), boxes


@settings(max_examples=120, deadline=None)
@given(objects)
def test_every_object_once_and_whole__whatever_the_seams_cut(shapes: list[tuple[str, int, int, int, int, int]]) -> None:
    image, boxes = paint(shapes)
    (found,) = TiledDetector(Numbered(), NumberedMasks(), TILE).detect([image], ["thing"])
    assert sorted(map(tuple, found.xyxy.astype(int).tolist())) == sorted(boxes)


def test_an_upright_object_is_joined_by_its_boxes_alone__a_slanted_one_needs_masks() -> None:
    upright, box = paint([("box", 30, 150, 60, 50, 0), ("box", 150, 40, 200, 30, 0)])
    (found,) = TiledDetector(Numbered(), None, TILE).detect([upright], ["thing"])
    assert sorted(map(tuple, found.xyxy.astype(int).tolist())) == sorted(box)
    slanted, box = paint([("bar", 140, 140, 180, 10, 40)])
    (by_box,) = TiledDetector(Numbered(), None, TILE).detect([slanted], ["thing"])
    assert [tuple(row) for row in by_box.xyxy.astype(int).tolist()] != box
    (found,) = TiledDetector(Numbered(), NumberedMasks(), TILE).detect([slanted], ["thing"])
    assert [tuple(row) for row in found.xyxy.astype(int).tolist()] == box


def test_what_touches_in_a_seam_stays_two() -> None:
    image, boxes = paint([("box", 20, 50, 60, 68, 0), ("box", 88, 50, 60, 100, 0)])
    assert len(boxes) == 2 and boxes[0][2] == boxes[1][0] == 88
    (found,) = TiledDetector(Numbered(), NumberedMasks(), TILE).detect([image], ["thing"])
    assert sorted(map(tuple, found.xyxy.astype(int).tolist())) == sorted(boxes)


def part(tile: tuple[int, int, int, int], box: Sequence[float], score: float = 0.5) -> Part:
    """A part whose mask is its box."""
    mask = np.zeros((tile[3] - tile[1], tile[2] - tile[0]), np.bool_)
    x1, y1, x2, y2 = np.array(box, int) - [*tile[:2], *tile[:2]]
    mask[y1:y2, x1:x2] = True
    return Part(tile, np.array(box, np.float32), np.array([score], np.float32), mask)


LEFT, RIGHT, FAR = (0, 0, 100, 100), (80, 0, 180, 100), (160, 0, 260, 100)


def test_join_parts__an_end_that_no_tile_shows_is_no_object() -> None:
    three = [part(LEFT, [50, 10, 100, 30], 0.4), part(RIGHT, [80, 10, 180, 30], 0.6), part(FAR, [160, 10, 200, 30])]
    joined = join_parts(three, 1, 260, 100)
    assert joined.xyxy.tolist() == [[50, 10, 200, 30]] and joined.scores.tolist() == [[np.float32(0.6)]]
    assert len(join_parts(three[:2], 1, 260, 100)) == 0
    assert len(join_parts([], 1, 260, 100)) == 0


def test_join_parts__two_parts_in_one_tile_are_never_one() -> None:
    upper, lower = part(LEFT, [50, 10, 100, 30]), part(LEFT, [50, 10, 100, 28])
    joined = join_parts([upper, lower, part(RIGHT, [80, 10, 120, 30])], 1, 260, 100)
    assert joined.xyxy.tolist() == [[50, 10, 120, 30]]


def test_agreement__only_in_the_strip_that_both_saw() -> None:
    assert agreement(part(LEFT, [0, 10, 100, 30]), part(RIGHT, [80, 10, 100, 30])) == 1
    assert agreement(part(LEFT, [0, 10, 100, 30]), part(RIGHT, [80, 20, 150, 40])) == 200 / 600
    assert agreement(part(LEFT, [0, 10, 80, 30]), part(RIGHT, [100, 10, 120, 30])) == 0
    assert agreement(part(LEFT, [50, 10, 100, 30]), part(FAR, [160, 10, 190, 30])) == 0


def test_mistaken_parts__a_corner_of_what_the_tile_cannot_show_whole() -> None:
    whole = look([50, 10, 300, 90, 0.6, 0.2], [10, 10, 60, 30, 0.9, 0], [82, 42, 98, 60, 0.1, 0])
    seen = look(
        [60, 12, 90, 40, 0.5, 0.3],  # a corner
        [60, 12, 90, 40, 0.5, 0.7],  # surer than the large one
        [82, 40, 98, 60, 0.5, 0.3],  # the whole look saw it too, faintly
        [20, 12, 40, 28, 0.5, 0.3],  # in an object that the tile shows whole
        [30, 40, 70, 80, 0.5, 0.3],  # half outside
    )
    assert mistaken_parts(seen, whole, LEFT).tolist() == [True, False, False, False, False]
    assert not mistaken_parts(seen, Candidates.none(2), LEFT).any()


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
    np.testing.assert_array_equal(merged.xyxy, np.array([[0, 0, 10, 9], [0, 0, 10, 8]], np.float32))
    np.testing.assert_array_equal(merged.scores, np.array([[0.9, 0.2], [0.6, 0.1]], np.float32))


def test_merge_looks__the_better_look_gives_the_box__but_the_first_is_coarse() -> None:
    looks = [look([0, 0, 10, 8, 0.2, 0.4]), look([0, 0, 10, 6.9, 0.1, 0.3]), look([0, 0, 10, 10, 0.2, 0.3])]
    merged = merge_looks(looks)
    np.testing.assert_array_equal(merged.xyxy, np.array([[0, 0, 10, 6.9]], np.float32))
    np.testing.assert_array_equal(merged.scores, np.array([[0.2, 0.4]], np.float32))
    np.testing.assert_array_equal(merge_looks([look(), *looks]).xyxy, np.array([[0, 0, 10, 8]], np.float32))


def test_merge_looks__what_only_the_better_box_reaches_is_the_same_object_too() -> None:
    tiles = look([2.4, 0, 12.4, 10, 0.8, 0]), look([4.4, 0, 14.4, 10, 0.7, 0])
    assert len(merge_looks([look(), *tiles])) == 1
    merged = merge_looks([look([0, 0, 10, 10, 0.9, 0]), *tiles])
    np.testing.assert_array_equal(merged.xyxy, tiles[0].xyxy)


def test_merge_looks__looks_that_say_another_thing_must_overlap_more() -> None:
    apart = merge_looks([look([0, 0, 10, 10, 0.3, 0.2]), look([0, 0, 10, 6.9, 0.2, 0.4])])
    np.testing.assert_array_equal(apart.xyxy[:, 3], np.array([6.9, 10], np.float32))
    assert len(merge_looks([look([0, 0, 10, 10, 0.3, 0.2]), look([0, 0, 10, 5.6, 0.4, 0.2])])) == 1
    assert len(merge_looks([look([0, 0, 10, 10, 0.3, 0.2]), look([0, 0, 10, 5.4, 0.4, 0.2])])) == 2
    assert merge_looks([Candidates.none(3), Candidates.none(3)]).scores.shape == (0, 3)


def test_parts_of_larger__what_a_wider_look_takes_for_a_part() -> None:
    wider = look([0, 0, 40, 40, 0.4, 0.1], [60, 0, 70, 10, 0.1, 0.1], [50, 0, 90, 40, 0.9, 0.1], [100, 0, 140, 40, 0.2, 0.1])
    found = look(
        [2, 2, 20, 20, 0.1, 0.8],  # half as sure is sure enough
        [60, 1, 70, 10, 0.8, 0.1],  # the wider look saw it too, faintly
        [52, 2, 88, 38, 0.8, 0.1],  # the same object, a little smaller
        [110, 5, 120, 15, 0.9, 0.1],  # far surer than what it lies in
        [30, 30, 50, 50, 0.2, 0.1],  # half outside
        [200, 0, 210, 10, 0.2, 0.1],  # nothing there: too small for the wider look
    )
    assert parts_of_larger(found, wider).tolist() == [True, False, False, False, False, False]
    assert not parts_of_larger(found, Candidates.none(2)).any()
