"""Duplicates and herds, each rule by hand, and the short way past most masks against a plain loop over all pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.decide.overlaps import Overlaps, find_herds, measure_overlaps, one_object, suppress
from autodistill_grounded_sam.masks import areas, boxes_xyxy, encode_mask
from autodistill_grounded_sam.types import Mask, Rle

Flags = npt.NDArray[np.bool_]


def of_boxes(*xyxy: tuple[float, float, float, float], iou: float = 0.7, containment: float = 0.85) -> Overlaps:
    boxes = np.array(xyxy, np.float32).reshape(-1, 4)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)
    return measure_overlaps(boxes, area, None, np.ones((len(boxes),) * 2, np.bool_), iou, containment)


def of_masks(*several: Mask, iou: float = 0.7, containment: float = 0.85, comparable: Flags | None = None) -> Overlaps:
    codes: list[Rle] = [encode_mask(mask) for mask in several]
    every = np.ones((len(codes),) * 2, np.bool_) if comparable is None else comparable
    return measure_overlaps(boxes_xyxy(codes), areas(codes).astype(np.float64), codes, every, iou, containment)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> Mask:
    mask = np.zeros((100, 100), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def test_boxes__limits_are_reached_at_their_very_value() -> None:
    tens = (0, 0, 10, 10), (0, 0, 10, 7), (0, 0, 10, 6.9)
    overlaps = of_boxes(*tens, containment=1)
    assert overlaps.same.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert overlaps.inside.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert not overlaps.of_masks


def test_masks__limits_are_reached_at_their_very_value() -> None:
    """0.7 is another number in float32 than in float64; both kinds of run decide alike."""
    overlaps = of_masks(rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 7), rectangle(0, 0, 10, 6))
    assert overlaps.same.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert overlaps.inside.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert overlaps.of_masks
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


def pairs(count: int, *which: tuple[int, int]) -> Flags:
    flags = np.zeros((count, count), np.bool_)
    for i, j in which:
        flags[i, j] = flags[j, i] = True
    return flags


def test_suppress__the_better_takes_the_worse() -> None:
    alive, rival = suppress(pairs(4, (0, 2), (1, 3)), np.ones(4, np.bool_))
    assert alive.tolist() == [True, True, False, False]
    assert rival.tolist() == [-1, -1, 0, 1]


def test_suppress__who_fell_takes_nobody_with_it() -> None:
    alive, rival = suppress(pairs(3, (0, 1), (1, 2)), np.ones(3, np.bool_))
    assert alive.tolist() == [True, False, True]
    assert rival.tolist() == [-1, 0, -1]


def test_suppress__who_does_not_stand_neither_takes_nor_falls() -> None:
    before = np.array([False, True, True, False])
    alive, rival = suppress(pairs(4, (0, 1), (1, 2), (1, 3)), before)
    assert alive.tolist() == [False, True, False, False]
    assert rival.tolist() == [-1, -1, 1, -1]
    assert before.tolist() == [False, True, True, False]


def test_suppress__the_worse_never_takes_the_better() -> None:
    worse_goes = np.zeros((2, 2), np.bool_)
    worse_goes[1] = True
    assert suppress(worse_goes, np.ones(2, np.bool_))[0].tolist() == [True, True]


def herd_of(*boxes: tuple[float, float, float, float], members: int = 3, classes: list[int] | None = None) -> list[bool]:
    overlaps = of_boxes(*boxes)
    class_id = np.array(classes or [0] * len(boxes), np.int32)
    return [bool(herd) for herd in find_herds(overlaps, class_id, np.ones(len(boxes), np.bool_), members)]


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
    class_id = np.zeros(4, np.int32)
    for dead in range(4):
        alive = np.arange(4) != dead
        assert not find_herds(overlaps, class_id, alive, 3).any()


def one(*boxes_or_masks: object, masks: bool) -> bool:
    overlaps = of_masks(*boxes_or_masks) if masks else of_boxes(*boxes_or_masks)  # type: ignore[arg-type]
    flags = one_object(overlaps)
    assert (flags == flags.T).all()
    return bool(flags[0, 1])


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
