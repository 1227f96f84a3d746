"""Precision, recall and confusion counted by hand, and checked for any labels against a slow count of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.evaluate.matching import Joined, Objects, Pair
from autodistill_grounded_sam.evaluate.operating_point import OperatingPoint, box_overlaps, match_boxes, operating_point
from autodistill_grounded_sam.masks import encode_mask

A, B, FAR = (10, 10, 30, 30), (50, 10, 80, 30), (60, 60, 70, 70)
NAMES = ("cat", "dog", "emu")


def objects(rows: Sequence[tuple[Any, ...]], masks: Sequence[Any] | None = None) -> Objects:
    """Rows of (class id, box, score=1, crowd=False), best first; `masks` dense, in the order of the rows."""
    full = [(*row, *(1.0, False)[len(row) - 2 :]) for row in rows]
    return Objects(
        np.array([row[0] for row in full], np.int32),
        np.array([row[1] for row in full], np.float32).reshape(-1, 4),
        np.array([row[2] for row in full], np.float32),
        np.array([row[3] for row in full], np.bool_),
        None if masks is None else tuple(encode_mask(mask) for mask in masks),
        np.arange(len(full), dtype=np.int32),
    )


def measured(*images: tuple[Any, Any], known: int = 2, min_score: float = 0.0) -> OperatingPoint:
    pairs = tuple(Pair("a.jpg", 100, 80, objects(truth), objects(labels)) for truth, labels in images)
    return operating_point(Joined(NAMES, known, pairs, ()), min_score=min_score)


def figures(found: Mapping[str, float]) -> tuple[float, float, float]:
    return found["precision"], found["recall"], found["f1"]


def test_perfect_labels() -> None:
    found = measured(([(0, A), (1, B)], [(0, A), (1, B)]), ([], []))
    assert figures(found.overall) == (1, 1, 1)
    assert [(row["truth"], row["labels"]) for row in found.per_class] == [(1, 1), (1, 1)]
    assert found.confusion == {"cat": {"cat": 1}, "dog": {"dog": 1}}


def test_hand_counted_figures() -> None:
    # cats: two right, one of nothing, one missed; dogs: one taken for a cat
    truth = [(0, A), (0, B), (0, (0, 40, 20, 60)), (1, FAR)]
    labels = [(0, A, 0.9), (0, B, 0.8), (0, FAR, 0.7), (0, (80, 60, 99, 79), 0.6)]
    found = measured((truth, labels))
    assert figures(found.per_class[0]) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert figures(found.overall) == pytest.approx((2 / 4, 2 / 4, 1 / 2))
    assert math.isnan(found.per_class[1]["precision"])
    assert (found.per_class[1]["recall"], found.per_class[1]["f1"]) == (0, 0)
    assert found.confusion == {"cat": {"cat": 2, "": 1}, "dog": {"cat": 1}, "": {"cat": 1}}


def test_the_confusion_names_classes_in_order_and_background_last() -> None:
    found = measured(([(1, A), (0, B)], [(0, FAR), (0, A)]))
    assert list(found.confusion) == ["cat", "dog", ""]
    assert found.confusion == {"cat": {"": 1}, "dog": {"cat": 1}, "": {"cat": 1}}


@pytest.mark.parametrize(("right", "side"), [(1, 15), (0, 14)])
def test_a_match_needs_half(right: int, side: int) -> None:
    # a box of `side` x 20 in one of 30 x 20: IoU side / 30
    found = measured(([(0, (0, 0, 30, 20))], [(0, (0, 0, side, 20))]))
    assert found.overall["recall"] == right


def test_the_best_label_chooses_first_and_an_object_is_found_once() -> None:
    found = measured(([(0, A)], [(0, A, 0.9), (0, A, 0.8)]))
    assert figures(found.overall) == pytest.approx((0.5, 1, 2 / 3))
    # the better label takes the object that it fits best, and leaves the other to the second
    wide, narrow = (0, 0, 30, 20), (0, 0, 20, 20)
    found = measured(([(0, wide), (0, narrow)], [(0, narrow, 0.9), (0, wide, 0.8)]))
    assert figures(found.overall) == (1, 1, 1)


def test_of_two_objects_in_one_place_a_label_takes_its_own_class() -> None:
    for truth in ([(0, A), (1, A)], [(1, A), (0, A)]):
        assert measured((truth, [(0, A, 0.9), (1, A, 0.8)])).confusion == {"cat": {"cat": 1}, "dog": {"dog": 1}}


def test_labels_below_the_score_are_left_out() -> None:
    image = ([(0, A)], [(0, A, 0.5), (0, FAR, 0.2)])
    assert measured(image).overall["precision"] == 0.5
    found = measured(image, min_score=0.5)
    assert figures(found.overall) == (1, 1, 1)
    assert found.confusion == {"cat": {"cat": 1}}
    assert figures(measured(image, min_score=0.6).overall)[1] == 0


def test_classes_that_only_labels_know_are_in_the_confusion_alone() -> None:
    found = measured(([(0, A), (1, B)], [(2, A), (1, B), (2, FAR)]))
    assert figures(found.overall) == pytest.approx((1, 0.5, 2 / 3))
    assert len(found.per_class) == 2
    assert found.confusion == {"cat": {"emu": 1}, "dog": {"dog": 1}, "": {"emu": 1}}


def test_a_crowd_excuses_labels_and_need_not_be_found() -> None:
    crowd = (0, (40, 0, 100, 80), 1.0, True)
    found = measured(([(0, A), crowd], [(0, A), (0, B), (0, FAR)]))
    assert figures(found.overall) == (1, 1, 1)
    assert (found.per_class[0]["truth"], found.per_class[0]["labels"]) == (1, 1)
    assert found.confusion == {"cat": {"cat": 1}}


def test_a_crowd_excuses_only_its_class_and_only_what_lies_in_it() -> None:
    crowd = (0, (40, 0, 100, 80), 1.0, True)
    other_class = measured(([(0, A), crowd], [(0, A), (1, B)]))
    assert other_class.per_class[1]["precision"] == 0
    assert other_class.confusion == {"cat": {"cat": 1}}  # of any class: nobody said what else is in the crowd
    a_third_inside = measured(([(0, A), crowd], [(0, A), (0, (20, 50, 50, 60))]))
    assert a_third_inside.overall["precision"] == 0.5
    half_inside = measured(([(0, A), crowd], [(0, A), (0, (30, 50, 50, 60))]))
    assert half_inside.overall["precision"] == 1


def test_an_object_in_a_crowd_still_counts() -> None:
    crowd = (0, (40, 0, 100, 80), 1.0, True)
    assert figures(measured(([(0, B), crowd], [(0, B)])).overall) == (1, 1, 1)


def test_mask_iou_is_the_mean_over_matched_pairs_that_have_masks() -> None:
    whole, half = np.zeros((80, 100), np.bool_), np.zeros((80, 100), np.bool_)
    whole[10:30, 10:30], half[10:30, 10:20] = True, True
    truth = objects([(0, A), (1, A)], [whole, whole])
    labels = objects([(0, A), (1, A), (1, FAR)], [half, whole, half])
    boxes_only = Pair("b.jpg", 100, 80, objects([(0, A)]), objects([(0, A)]))
    found = operating_point(Joined(NAMES, 3, (Pair("a.jpg", 100, 80, truth, labels), boxes_only), ()))
    assert found.per_class[0]["mask_iou"] == pytest.approx(0.5)
    assert found.per_class[1]["mask_iou"] == pytest.approx(1)
    assert math.isnan(found.per_class[2]["mask_iou"])
    assert found.overall["mask_iou"] == pytest.approx(0.75)


def test_what_cannot_be_divided_is_nan() -> None:
    found = measured(([(0, A)], []))
    assert math.isnan(found.overall["precision"])
    assert (found.overall["recall"], found.overall["f1"]) == (0, 0)
    assert all(math.isnan(found.per_class[1][key]) for key in ("precision", "recall", "f1", "mask_iou"))
    assert all(math.isnan(measured(([], [])).overall[key]) for key in ("precision", "recall", "f1"))


def test_overlaps_of_boxes() -> None:
    empty = (10, 10, 10, 30)
    boxes = np.array([A, (20, 10, 40, 30), empty], np.float32)
    iou, share = box_overlaps(boxes, boxes[[0, 2]])
    np.testing.assert_allclose(iou, [[1, 0], [1 / 3, 0], [0, 0]])
    np.testing.assert_allclose(share, [[1, 0], [0.5, 0], [0, 0]])
    assert box_overlaps(boxes[:0], boxes)[0].shape == (0, 3)
    assert box_overlaps(boxes, boxes[:0])[1].shape == (3, 0)


CORNERS = st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(1, 39), st.integers(1, 29))
BOXES = CORNERS.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3]))
LABELS = st.lists(st.tuples(st.integers(0, 2), BOXES, st.floats(0, 1)), max_size=8).map(
    lambda rows: sorted(rows, key=lambda row: -row[2])
)
TRUTH = st.lists(st.tuples(st.integers(0, 1), BOXES, st.just(1.0), st.booleans()), max_size=8)
IMAGES = st.lists(st.tuples(TRUTH, LABELS), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, max_size=4))
def test_any_perfect_labels_are_right(scenes: list[list[Any]]) -> None:
    found = measured(*(([row[:2] for row in rows], rows) for rows in scenes), known=3)
    counts = Counter(NAMES[row[0]] for rows in scenes for row in rows)
    assert found.confusion == {name: {name: counts[name]} for name in NAMES if counts[name]}
    if counts:
        assert figures(found.overall) == (1, 1, 1)


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_the_confusion_holds_every_object_and_label_once(images: list[tuple[Any, Any]]) -> None:
    found = measured(*images)
    objects_of = Counter(NAMES[row[0]] for truth, _ in images for row in truth if not row[3])
    assert {name: sum(row.values()) for name, row in found.confusion.items() if name} == dict(objects_of)
    for class_id, row in enumerate(found.per_class):
        assert row["truth"] == objects_of[NAMES[class_id]]
    excused = sum(int(match_boxes(objects(labels), objects(truth), within_class=False).excused.sum()) for truth, labels in images)
    labelled = sum(count for row in found.confusion.values() for name, count in row.items() if name)
    assert labelled == sum(len(labels) for _, labels in images) - excused


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_figures_agree_with_a_slow_count(images: list[tuple[Any, Any]]) -> None:
    found = measured(*images)
    right = labelled = wanted = 0
    for truth, labels in images:
        for class_id in (0, 1):
            free = [row[1] for row in truth if row[0] == class_id and not row[3]]
            crowds = [row[1] for row in truth if row[0] == class_id and row[3]]
            wanted += len(free)
            for box in (row[1] for row in labels if row[0] == class_id):
                best = max(free, key=lambda other: iou(box, other), default=None)
                if best is not None and iou(box, best) >= 0.5:
                    free.remove(best)
                    right, labelled = right + 1, labelled + 1
                elif not any(2 * shared(box, crowd) >= area(box) for crowd in crowds):
                    labelled += 1
    assert found.overall["recall"] == pytest.approx(right / wanted if wanted else math.nan, nan_ok=True)
    assert found.overall["precision"] == pytest.approx(right / labelled if labelled else math.nan, nan_ok=True)


def area(box: Any) -> int:
    return int((box[2] - box[0]) * (box[3] - box[1]))


def shared(a: Any, b: Any) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Any, b: Any) -> float:
    return shared(a, b) / (area(a) + area(b) - shared(a, b))
