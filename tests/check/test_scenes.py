"""Labels beside what a model saw: predictions merge to objects, every label has one object at most, crowds are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.check.scenes import LEAST_IOU, Scene, merged
from autodistill_grounded_sam.types import DatasetImage

Box = tuple[int, float, float, float, float]  # class, x1, y1, x2, y2


def image(boxes: list[Box], score: list[float] | None = None, crowd: list[bool] | None = None) -> DatasetImage:
    return DatasetImage(
        None, "a.png", "train", 200, 200,
        np.array([box[0] for box in boxes], np.int32), np.array([box[1:] for box in boxes], np.float32).reshape(-1, 4), None,
        None if score is None else np.array(score, np.float32), None if crowd is None else np.array(crowd, np.bool_),
    )  # fmt: skip


def scene(labels: list[Box], seen: list[Box], score: list[float], crowd: list[bool] | None = None) -> Scene:
    return Scene.of(image(labels, crowd=crowd), image(seen, score), 3)


def test_predictions_of_one_place_are_one_object_with_the_best_score_of_each_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [0, 0, 10, 10]], np.float32)
    seen, scores = merged(np.array([0, 1, 1, 0], np.int32), boxes, np.array([0.5, 0.9, 0.7, 0.4], np.float32), 3)
    assert seen.tolist() == [[0, 0, 10, 11], [50, 50, 60, 60]]
    assert scores == pytest.approx(np.array([[0.5, 0.9, 0], [0, 0.7, 0]]))


def test_an_object_whose_label_is_gone_does_not_take_the_label_of_its_neighbour() -> None:
    two = [(0, 0, 0, 40, 40), (0, 20, 0, 60, 40)]
    found = scene(two[:1], two, [0.6, 0.9])
    labelled = found.seen_xyxy[found.object_of[0]].tolist()
    assert labelled == [0, 0, 40, 40]
    assert (found.label_of < 0).sum() == 1


def test_a_sure_object_beats_an_unsure_one_that_fits_a_shifted_label_better() -> None:
    found = scene([(0, 20, 0, 60, 40)], [(0, 0, 0, 40, 40), (0, 24, 0, 64, 40)], [0.9, 0.05])
    assert found.seen_xyxy[found.object_of[0]].tolist() == [0, 0, 40, 40]
    assert found.iou[0] == pytest.approx(1 / 3)


def test_crowds_are_no_labels_and_what_is_seen_in_them_is_no_object() -> None:
    found = scene([(0, 0, 0, 100, 100), (1, 150, 150, 180, 180)], [(0, 10, 10, 30, 30), (1, 150, 150, 180, 180)], [0.9, 0.8],
                  crowd=[True, False])  # fmt: skip
    assert found.row.tolist() == [1]
    assert found.seen_xyxy.tolist() == [[150, 150, 180, 180]]
    assert found.object_of.tolist() == [0]


BOXES = st.tuples(st.integers(0, 2), *[st.integers(0, 90)] * 2, *[st.integers(1, 60)] * 2).map(
    lambda b: (b[0], b[1], b[2], b[1] + b[3], b[2] + b[4])
)


@given(st.lists(BOXES, max_size=6), st.lists(st.tuples(BOXES, st.floats(0.05, 1)), max_size=8), st.randoms())
def test_matching_is_one_to_one_and_does_not_depend_on_the_order_of_predictions(labels, seen, random) -> None:  # type: ignore[no-untyped-def]
    found = scene(labels, [box for box, _ in seen], [score for _, score in seen])
    for label, one in enumerate(found.object_of.tolist()):
        assert one < 0 or found.label_of[one] == label
        assert (one >= 0) == (found.iou[label] >= LEAST_IOU)
    assert (found.label_of >= 0).sum() == (found.object_of >= 0).sum()
    random.shuffle(seen)
    again = scene(labels, [box for box, _ in seen], [score for _, score in seen])
    assert again.seen_xyxy.tolist() == found.seen_xyxy.tolist()
    assert again.scores.tolist() == found.scores.tolist()
