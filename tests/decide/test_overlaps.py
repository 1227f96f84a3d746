"""Duplicates and herds, each rule by hand, and the short way past most masks against a plain loop over all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.decide.overlaps import Overlaps, find_herds, measure_overlaps, one_object, pairs_of, suppress
from autodistill_grounded_sam.mask_runs import read_runs
from autodistill_grounded_sam.masks import areas, boxes_xyxy, encode_mask
from autodistill_grounded_sam.types import Float32, Mask, Rle

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """What was measured of the candidates of one image, and as matrices: `same` symmetric, `inside` row lies in column."""

    overlaps: Overlaps
    area: npt.NDArray[np.float64]
    mask: npt.NDArray[np.intp]

    @property
    def same(self) -> Flags:
        return self._matrix(self.overlaps.same, self.overlaps.same)

    @property
    def inside(self) -> Flags:
        return self._matrix(self.overlaps.first_inside, self.overlaps.second_inside)

    @property
    def one_object(self) -> Flags:
        one = one_object(self.overlaps, self.area, self.mask)
        return self._matrix(one, one)

    def herds(self, class_id: list[int], alive: Flags, members: int) -> Flags:
        return find_herds(self.overlaps, np.array(class_id, np.int32), self.area, alive, members)

    def _matrix(self, first_to_second: Flags, second_to_first: Flags) -> Flags:
        flags = np.zeros((len(self.area),) * 2, np.bool_)
        flags[self.overlaps.first, self.overlaps.second] = first_to_second
        flags[self.overlaps.second, self.overlaps.first] = second_to_first
        return flags


def measured(
    boxes: Float32,
    area: npt.NDArray[np.float64],
    codes: list[Rle],
    iou: float,
    containment: float,
    comparable: Flags | None = None,
) -> Measured:
    mask = np.arange(len(boxes)) if codes else np.full(len(boxes), -1)
    first, second = pairs_of(np.zeros(len(boxes), np.intp))
    looked_at = np.ones(len(first), np.bool_) if comparable is None else comparable[first, second]
    pairs = first[looked_at], second[looked_at]
    return Measured(measure_overlaps(pairs, boxes, area, read_runs(codes), mask, iou, containment), area, mask)


def of_boxes(*xyxy: tuple[float, float, float, float], iou: float = 0.7, containment: float = 0.85) -> Measured:
    boxes = np.array(xyxy, np.float32).reshape(-1, 4)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)
    return measured(boxes, area, [], iou, containment)


def of_masks(*several: Mask, iou: float = 0.7, containment: float = 0.85, comparable: Flags | None = None) -> Measured:
    codes: list[Rle] = [encode_mask(mask) for mask in several]
    return measured(boxes_xyxy(codes), areas(codes).astype(np.float64), codes, iou, containment, comparable)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> Mask:
    mask = np.zeros((100, 100), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def test_boxes__limits_are_reached_at_their_very_value() -> None:
    tens = (0, 0, 10, 10), (0, 0, 10, 7), (0, 0, 10, 6.9)
    overlaps = of_boxes(*tens, containment=1)
    assert overlaps.same.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert overlaps.inside.tolist() == [[False] * 3, [True, False, False], [True, True, False]]


def test_masks__limits_are_reached_at_their_very_value() -> None:
    """0.7 is another number in float32 than in float64; both kinds of run decide alike."""
    overlaps = of_masks(rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 7), rectangle(0, 0, 10, 6))
    assert overlaps.same.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert overlaps.inside.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert of_masks(rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 7), iou=0.71).same.any() == np.False_


@pytest.mark.parametrize("limit", [0.1, 0.28, 0.3, 0.56, 0.6, 0.7, 0.85, 0.9, 0.95])
def test_containment_of_exactly_the_limit(limit: float) -> None:
    """A box of 100 rows of which this share lies in a larger one."""
    rows = round(100 * limit)
    out = 100 - rows
    boxes = [(0, 0, 90, 100), (10, -out, 11, rows)]
    assert of_boxes(*boxes, iou=1, containment=limit).inside.tolist() == [[False, False], [True, False]]
    tall = np.zeros((200, 100), np.bool_)
    tall[100:, :90] = True
    small = np.zeros((200, 100), np.bool_)
    small[100 - out : 100 + rows, 10] = True
    assert of_masks(tall, small, iou=1, containment=limit).inside.tolist() == [[False, False], [True, False]]


def test_masks_not_boxes_are_compared_where_there_are_masks() -> None:
    """Two halves of one square along its diagonal: one box, no common pixel."""
    lower = np.tri(100, k=-1, dtype=np.bool_)
    upper = ~np.tri(100, dtype=np.bool_)
    for limit in (0.7, 0.0):
        overlaps = of_masks(lower, upper, iou=limit, containment=limit)
        assert not overlaps.same.any()
        assert not overlaps.inside.any()


def test_pairs_that_may_be_two_objects_are_not_compared() -> None:
    same = rectangle(10, 10, 50, 50)
    comparable = np.eye(3, dtype=np.bool_)
    comparable[0, 2] = comparable[2, 0] = True
    overlaps = of_masks(same, same, same, comparable=comparable)
    assert np.argwhere(overlaps.same).tolist() == [[0, 2], [2, 0]]
    assert np.argwhere(overlaps.inside).tolist() == [[0, 2], [2, 0]]


def test_limits_of_0_and_1() -> None:
    apart = of_boxes((0, 0, 10, 10), (10, 0, 20, 10), iou=0, containment=0)
    assert not apart.same.any()
    assert not apart.inside.any()
    touching = of_boxes((0, 0, 10, 10), (9, 9, 19, 19), iou=0, containment=0)
    assert touching.same.tolist() == [[False, True], [True, False]]
    equal = of_masks(rectangle(3, 3, 44, 57), rectangle(3, 3, 44, 57), rectangle(3, 3, 44, 58), iou=1, containment=1)
    assert np.argwhere(equal.same).tolist() == [[0, 1], [1, 0]]
    assert np.argwhere(equal.inside).tolist() == [[0, 1], [0, 2], [1, 0], [1, 2]]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 8), iou=st.floats(0.05, 0.95), containment=st.floats(0.05, 0.95))
def test_the_short_way_leaves_no_pair_out(seed: int, count: int, iou: float, containment: float) -> None:
    rng = np.random.default_rng(seed)
    drawn = [rectangle(*rng.integers(0, 50, 2), *rng.integers(51, 100, 2)) & (rng.random((100, 100)) < 0.8) for _ in range(count)]
    comparable = rng.random((count, count)) < 0.8
    comparable |= comparable.T
    overlaps = of_masks(*drawn, iou=iou, containment=containment, comparable=comparable)
    for i in range(count):
        for j in range(count):
            shared, either = (drawn[i] & drawn[j]).sum(), (drawn[i] | drawn[j]).sum()
            looked_at = i != j and bool(comparable[i, j])
            small, large = drawn[i].sum(), drawn[j].sum()
            assert overlaps.same[i, j] == (looked_at and shared / either >= iou)
            assert overlaps.inside[i, j] == (looked_at and small <= large and shared / min(small, large) >= containment)


def pairs(*which: tuple[int, int]) -> Overlaps:
    first, second = np.array(sorted(which), np.intp).T
    flags = np.ones(len(which), np.bool_)
    return Overlaps(first, second, flags, ~flags, ~flags)


def test_suppress__the_better_takes_the_worse() -> None:
    both = pairs((0, 2), (1, 3))
    alive, rival = suppress(both, both.same, np.ones(4, np.bool_))
    assert alive.tolist() == [True, True, False, False]
    assert rival.tolist() == [-1, -1, 0, 1]
    assert suppress(both, np.array([False, True]), np.ones(4, np.bool_))[0].tolist() == [True, True, True, False]


def test_suppress__who_fell_takes_nobody_with_it() -> None:
    chain = pairs((0, 1), (1, 2))
    alive, rival = suppress(chain, chain.same, np.ones(3, np.bool_))
    assert alive.tolist() == [True, False, True]
    assert rival.tolist() == [-1, 0, -1]


def test_suppress__who_does_not_stand_neither_takes_nor_falls() -> None:
    before, three = np.array([False, True, True, False]), pairs((0, 1), (1, 2), (1, 3))
    alive, rival = suppress(three, three.same, before)
    assert alive.tolist() == [False, True, False, False]
    assert rival.tolist() == [-1, -1, 1, -1]
    assert before.tolist() == [False, True, True, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_pairs_are_those_of_one_image_better_first_and_in_order(images: list[int]) -> None:
    image = np.array(sorted(images), np.intp)
    first, second = pairs_of(image)
    expected = [(i, j) for i in range(len(image)) for j in range(i + 1, len(image)) if image[i] == image[j]]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


def herd_of(*boxes: tuple[float, float, float, float], members: int = 3, classes: list[int] | None = None) -> list[bool]:
    herds = of_boxes(*boxes).herds(classes or [0] * len(boxes), np.ones(len(boxes), np.bool_), members)
    return [bool(herd) for herd in herds]


HERD = (0, 0, 40, 10)
THREE = [(0, 0, 10, 10), (12, 0, 22, 10), (24, 0, 34, 10)]


def test_a_box_around_many_of_its_kind_is_a_herd() -> None:
    assert herd_of(HERD, *THREE) == [True, False, False, False]
    assert herd_of(*THREE, HERD) == [False, False, False, True]  # wherever it stands


def test_too_few_are_no_herd() -> None:
    assert not any(herd_of(HERD, *THREE[:2]))
    assert herd_of(HERD, *THREE[:2], members=2)[0]
    assert not any(herd_of(HERD, *THREE, members=4))


def test_members_are_of_its_own_class() -> None:
    assert not any(herd_of(HERD, *THREE, classes=[0, 0, 0, 1]))


def test_members_cover_less_than_half_of_it() -> None:
    half, below = (0, 0, 20, 10), (0, 0, 19, 10)
    others = [(21, 0, 30, 10), (31, 0, 40, 10)]
    assert not any(herd_of(HERD, half, *others))
    assert herd_of(HERD, below, *others)[0]


def test_members_do_not_lie_in_one_another() -> None:
    matryoshka = [(0, 0, 18, 10), (0, 0, 9, 10), (0, 0, 4, 10)]
    assert not any(herd_of(HERD, *matryoshka))


def test_a_herd_in_a_herd_is_no_member() -> None:
    smaller = (0, 0, 36, 10)
    around = (0, 0, 80, 10)
    assert herd_of(around, smaller, *THREE) == [True, True, False, False, False]
    larger = (0, 0, 200, 10)  # holds the three and their herd: one of each thing, and the herd is no thing
    assert herd_of(larger, smaller, *THREE, members=3) == [True, True, False, False, False]
    assert not any(herd_of(larger, smaller, *THREE, members=4))


def test_dead_ones_are_neither_herds_nor_members() -> None:
    overlaps = of_boxes(HERD, *THREE)
    for dead in range(4):
        assert not overlaps.herds([0] * 4, np.arange(4) != dead, 3).any()


def one(*boxes_or_masks: object, masks: bool) -> bool:
    overlaps = of_masks(*boxes_or_masks) if masks else of_boxes(*boxes_or_masks)  # type: ignore[arg-type]
    return bool(overlaps.one_object[0, 1])


@pytest.mark.parametrize(
    ("first", "second", "by_masks", "by_boxes"),
    [
        ((0, 0, 40, 40), (0, 0, 20, 20), True, True),  # a quarter of the area: one object
        ((0, 0, 20, 20), (0, 0, 40, 40), True, True),
        ((0, 0, 40, 40), (0, 0, 20, 19), True, False),  # far smaller and worse: a part, unless only boxes say so
        ((0, 0, 20, 19), (0, 0, 40, 40), False, False),  # far smaller and better: most likely two objects
        ((0, 0, 40, 40), (30, 30, 50, 50), False, False),
    ],
)
def test_one_inside_the_other(
    first: tuple[int, int, int, int], second: tuple[int, int, int, int], by_masks: bool, by_boxes: bool
) -> None:
    assert one(rectangle(*first), rectangle(*second), masks=True) is by_masks
    assert one(first, second, masks=False) is by_boxes
