"""COCO's AP on cases that were worked out by hand, and what must hold for any labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.evaluate.average_precision import MAX_LABELS, average_precision
from autodistill_grounded_sam.evaluate.matching import Objects, Pair
from autodistill_grounded_sam.masks import encode_mask

A, B, FAR = (10, 10, 30, 30), (50, 10, 80, 30), (60, 60, 70, 70)


def objects(rows: Sequence[tuple[Any, ...]], *, masks: bool = False) -> Objects:
    """Rows of (class id, box, score=1, crowd=False), best first; masks are the filled boxes."""
    full = sorted(((*row, *(1.0, False)[len(row) - 2 :]) for row in rows), key=lambda row: -row[2])
    xyxy = np.array([row[1] for row in full], np.float32).reshape(-1, 4)
    return Objects(
        np.array([row[0] for row in full], np.int32),
        xyxy,
        np.array([row[2] for row in full], np.float32),
        np.array([row[3] for row in full], np.bool_),
        tuple(encode_mask(filled(box)) for box in xyxy) if masks else None,
        np.arange(len(full), dtype=np.int32),
    )


def filled(box: Any) -> Any:
    mask = np.zeros((80, 100), np.bool_)
    x1, y1, x2, y2 = (int(value) for value in box)
    mask[y1:y2, x1:x2] = True
    return mask


def pair(truth: Sequence[tuple[Any, ...]], labels: Sequence[tuple[Any, ...]], *, masks: bool = False) -> Pair:
    return Pair("a.jpg", 100, 80, objects(truth, masks=masks), objects(labels, masks=masks))


def ap(*pairs: Pair, classes: int = 1, kind: Any = "box") -> dict[str, float]:
    return dict(average_precision(pairs, classes, kind).overall)


def interpolated(recall: float, precision: float = 1.0) -> float:
    """AP of a curve that holds `precision` up to `recall` and is 0 after it, on COCO's 101 points 0, 0.01, ..., 1."""
    return precision * (math.floor(recall * 100 + 1e-9) + 1) / 101


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_perfect_labels(kind: str) -> None:
    same = pair([(0, A), (0, B)], [(0, A, 0.9), (0, B, 0.8)], masks=True)
    assert ap(same, kind=kind) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


def test_half_of_the_objects_are_found() -> None:
    assert ap(pair([(0, A), (0, B)], [(0, A, 0.9)])) == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75"), interpolated(0.5)))


def test_a_wrong_label_above_a_right_one_halves_precision() -> None:
    assert ap(pair([(0, A)], [(0, FAR, 0.9), (0, A, 0.8)]))["AP"] == pytest.approx(0.5)


def test_a_wrong_label_below_every_right_one_costs_nothing() -> None:
    assert ap(pair([(0, A)], [(0, A, 0.9), (0, FAR, 0.8)]))["AP"] == pytest.approx(1)


def test_a_box_that_fits_at_some_thresholds() -> None:
    # 20 x 20 against 16 x 20 inside it: IoU 0.8, so right at 0.50 ... 0.80, seven of the ten thresholds
    found = ap(pair([(0, A)], [(0, (10, 10, 26, 30))]))
    assert found == pytest.approx({"AP": 0.7, "AP50": 1, "AP75": 1})
    # 14 x 20: IoU 0.7, five thresholds
    assert ap(pair([(0, A)], [(0, (10, 10, 24, 30))])) == pytest.approx({"AP": 0.5, "AP50": 1, "AP75": 0})


def test_the_mask_is_measured_apart_from_the_box() -> None:
    cut = filled(A)
    cut[10:20, 10:22] = False  # 280 of 400 pixels: IoU 0.7, in the same box
    labels = replace(objects([(0, A)]), rle=(encode_mask(cut),))
    image = Pair("a.jpg", 100, 80, objects([(0, A)], masks=True), labels)
    assert ap(image) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert ap(image, kind="mask") == pytest.approx({"AP": 0.5, "AP50": 1, "AP75": 0})


def test_the_same_object_twice_is_wrong_once() -> None:
    assert ap(pair([(0, A), (0, B)], [(0, A, 0.9), (0, A, 0.8), (0, B, 0.7)]))["AP50"] == pytest.approx(
        (51 * 1 + 50 * 2 / 3) / 101
    )


def test_labels_of_another_class_are_wrong() -> None:
    found = average_precision([pair([(0, A), (1, B)], [(1, A, 0.9), (1, B, 0.8)])], 2, "box")
    assert [of_class["AP"] for of_class in found.per_class] == pytest.approx([0, 0.5])
    assert found.overall["AP"] == pytest.approx(0.25)


def test_classes_without_an_object_are_left_out_of_the_mean() -> None:
    found = average_precision([pair([(0, A)], [(0, A), (1, B)])], 3, "box")
    assert found.overall["AP"] == pytest.approx(1)
    assert [math.isnan(of_class["AP50"]) for of_class in found.per_class] == [False, True, True]


def test_labels_of_classes_beyond_the_reference_are_left_out() -> None:
    assert ap(pair([(0, A)], [(7, A, 0.9), (0, A, 0.1)]), classes=1)["AP"] == pytest.approx(1)


def test_images_are_ranked_together() -> None:
    first, second = pair([(0, A)], [(0, FAR, 0.9)]), pair([(0, A)], [(0, A, 0.8)])
    assert ap(first, second)["AP"] == pytest.approx(interpolated(0.5, 0.5))


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_without_labels_it_is_zero_and_without_objects_it_is_nan(kind: str) -> None:
    assert ap(pair([(0, A)], [], masks=True), kind=kind) == {"AP": 0, "AP50": 0, "AP75": 0}
    assert all(math.isnan(value) for value in ap(pair([], [(0, A)], masks=True), kind=kind).values())


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_labels_in_a_crowd_are_neither_right_nor_wrong(kind: str) -> None:
    crowd = (40, 0, 100, 80)
    truth = [(0, A), (0, crowd, 1.0, True)]
    in_it = [(0, A, 0.5), (0, B, 0.9), (0, FAR, 0.8)]
    assert ap(pair(truth, in_it, masks=True), kind=kind)["AP"] == pytest.approx(1)
    assert ap(pair(truth, [(0, A, 0.5), (0, (0, 50, 20, 70), 0.9)], masks=True), kind=kind)["AP"] == pytest.approx(0.5)
    other = [(0, A), (1, B), (1, crowd, 1.0, True)]
    assert average_precision([pair(other, in_it, masks=True)], 2, kind).per_class[0]["AP"] == pytest.approx(1 / 3)  # type: ignore[arg-type]


def test_only_the_best_hundred_of_an_image_and_class_count() -> None:
    wrong = [(0, FAR, 0.9)] * MAX_LABELS
    assert ap(pair([(0, A)], [*wrong[1:], (0, A, 0.1)]))["AP"] == pytest.approx(1 / MAX_LABELS)
    assert ap(pair([(0, A)], [*wrong, (0, A, 0.1)]))["AP"] == 0
    other_class = [(1, FAR, 0.9)] * MAX_LABELS
    assert ap(pair([(0, A)], [*other_class, (0, A, 0.1)]), classes=2)["AP"] == pytest.approx(1)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ap(pair([(0, A)], [(0, A)]))
    assert capsys.readouterr() == ("", "")


CORNERS = st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(1, 39), st.integers(1, 29))
ROWS = st.lists(
    st.tuples(st.integers(0, 2), CORNERS.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])), st.floats(1 / 64, 1, width=32)),
    max_size=6,
)
SCENES = st.lists(ROWS, min_size=1, max_size=4).filter(lambda rows: any(rows))


@settings(max_examples=30, deadline=None)
@given(SCENES)
def test_perfect_labels_of_any_scene(scenes: list[list[Any]]) -> None:
    pairs = [pair([row[:2] for row in rows], rows, masks=True) for rows in scenes]
    for kind in ("box", "mask"):
        assert ap(*pairs, classes=3, kind=kind) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


@settings(max_examples=30, deadline=None)
@given(SCENES, st.data())
def test_ap_lies_in_0_to_1_and_falls_with_the_threshold(scenes: list[list[Any]], data: st.DataObject) -> None:
    pairs = [pair([row[:2] for row in rows], data.draw(ROWS)) for rows in scenes]
    found = ap(*pairs, classes=3)
    rounding = 1e-9
    assert 0 <= found["AP75"] <= found["AP50"] + rounding <= 1 + 2 * rounding
    assert found["AP"] <= found["AP50"] + rounding
