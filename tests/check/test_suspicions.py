"""Planted damage in made-up datasets comes first, with the kind, class and box that it should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from autodistill_grounded_sam.check.evidence import LEAST_DOUBT, PRIOR, Evidence, suspicion
from autodistill_grounded_sam.check.scenes import Objects, Scene
from autodistill_grounded_sam.check.suspicions import Suspicion, suspicions_of
from autodistill_grounded_sam.types import DatasetImage

CLASSES, SIDE = 3, 400


class MadeUp:
    """A grid of objects, and a model that sees nearly all of them, roughly where they are, and a few that are none."""

    def __init__(self, images: int, seed: int = 0, right_class: float = 0.95) -> None:
        rng = np.random.default_rng(seed)
        self.labels: list[DatasetImage] = []
        self.predictions: list[DatasetImage] = []
        for number in range(images):
            cells = rng.permutation(16)[: rng.integers(3, 8)]
            low = np.stack([cells % 4, cells // 4], axis=1) * 100.0 + rng.uniform(0, 25, (len(cells), 2))
            xyxy = np.concatenate([low, low + rng.uniform(45, 75, (len(cells), 2))], axis=1)
            class_id = rng.integers(0, CLASSES, len(cells))
            self.labels.append(self._image(number, class_id, xyxy))
            seen = rng.random(len(cells)) < 0.93
            of_class = np.where(rng.random(len(cells)) < right_class, class_id, (class_id + 1) % CLASSES)
            boxes = xyxy + rng.normal(0, 2.5, xyxy.shape)
            free = np.setdiff1d(np.arange(16), cells)[: rng.integers(0, 3)]
            ghosts = np.stack([free % 4, free // 4, free % 4, free // 4], axis=1) * 100.0 + (20, 20, 70, 70)
            score = np.concatenate([rng.beta(8, 2, seen.sum()), rng.beta(2, 8, len(ghosts))])
            classes = np.concatenate([of_class[seen], rng.integers(0, CLASSES, len(ghosts))])
            self.predictions.append(self._image(number, classes, np.concatenate([boxes[seen], ghosts]), score))

    def _image(self, number: int, class_id: np.ndarray, xyxy: np.ndarray, score: np.ndarray | None = None) -> DatasetImage:
        scores = None if score is None else score.astype(np.float32)
        return DatasetImage(
            None, f"{number}.png", "train", SIDE, SIDE, class_id.astype(np.int32), xyxy.astype(np.float32), None, scores
        )

    def change(self, image: int, xyxy: Sequence[float], class_id: int | None = None, row: int | None = None) -> None:
        """Put a label there, in the place of another or as a new one."""
        old = self.labels[image]
        kept = np.arange(len(old.class_id)) != (-1 if row is None else row)
        own = int(old.class_id[row or 0]) if class_id is None else class_id
        self.labels[image] = replace(
            old, class_id=np.append(old.class_id[kept], np.int32(own)).astype(np.int32),
            xyxy=np.concatenate([old.xyxy[kept], np.array([xyxy], np.float32)]),
        )  # fmt: skip

    def drop(self, image: int, row: int) -> None:
        old, kept = self.labels[image], np.arange(len(self.labels[image].class_id)) != row
        self.labels[image] = replace(old, class_id=old.class_id[kept], xyxy=old.xyxy[kept])

    def scenes(self) -> list[Scene]:
        return [Scene.of(*pair, CLASSES) for pair in zip(self.labels, self.predictions, strict=True)]

    def sure(self, image: int) -> int:
        """The row of a label in this image that the model sees as it is, and is sure of."""
        one = Scene.of(self.labels[image], self.predictions[image], CLASSES)
        good = [
            row for row, seen in enumerate(one.object_of)
            if seen >= 0 and one.seen_class[seen] == one.class_id[row] and one.scores[seen].max() > 0.8 and one.iou[row] > 0.8
        ]  # fmt: skip
        return good[0]


def place_of(found: Sequence[Suspicion], image: int, kind: str) -> int:
    return next(place for place, one in enumerate(found) if (one.scene, one.kind) == (image, kind))


@pytest.fixture(scope="module")
def found() -> list[Suspicion]:
    """150 images, with one damage in each of the first four."""
    made = MadeUp(150)
    dropped, swapped, shifted, doubled = (made.sure(image) for image in range(4))
    made.drop(0, dropped)
    made.change(1, made.labels[1].xyxy[swapped].tolist(), (int(made.labels[1].class_id[swapped]) + 1) % CLASSES, row=swapped)
    x1, y1, x2, y2 = made.labels[2].xyxy[shifted].tolist()
    made.change(2, (x1 + (x2 - x1) * 0.4, y1, x2 + (x2 - x1) * 0.4, y2), row=shifted)
    x1, y1, x2, y2 = made.labels[3].xyxy[doubled].tolist()
    made.change(3, (x1 + 2, y1 + 1, x2 + 2, y2), int(made.labels[3].class_id[doubled]))
    return suspicions_of(made.scenes())


@pytest.mark.parametrize(("image", "kind"), [(0, "overlooked"), (1, "swapped"), (2, "located"), (3, "duplicate")])
def test_damage_of_every_kind_comes_early(found: list[Suspicion], image: int, kind: str) -> None:
    labels = len(MadeUp(150).labels) * 5
    assert place_of(found, image, kind) < 0.1 * labels  # a model that errs in one of twenty makes as many lines of its own


def test_the_list_is_in_order_and_every_label_is_in_it_once(found: list[Suspicion]) -> None:
    values = [one.suspicion for one in found]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] <= values[0] <= 1
    rows = [(one.scene, one.row) for one in found if one.row is not None]
    assert len(rows) == len(set(rows))


def test_a_line_says_what_would_be_right(found: list[Suspicion]) -> None:
    overlooked, swapped = found[place_of(found, 0, "overlooked")], found[place_of(found, 1, "swapped")]
    assert overlooked.xyxy is None
    assert overlooked.class_id is None
    assert overlooked.proposed_class is not None
    assert swapped.proposed_class == (swapped.class_id - 1) % CLASSES  # type: ignore[operator]
    duplicate = found[place_of(found, 3, "duplicate")]
    assert np.abs(duplicate.proposed_xyxy - duplicate.xyxy).max() <= 2  # type: ignore[operator]


def test_the_worse_the_model_the_less_its_claims_weigh() -> None:
    firsts = []
    for right_class in (0.98, 0.6):
        evidence = Evidence.of(scenes := MadeUp(150, right_class=right_class).scenes(), Objects.of(scenes))
        firsts.append(evidence.swapped(np.array([[0.8, 0.0, 0.0]]), np.array([1]))[0])
    assert firsts[0] > 3 * firsts[1] > 0


def test_where_people_leave_out_often_an_unlabelled_object_weighs_less() -> None:
    made = MadeUp(150)
    whole = Evidence.of(scenes := made.scenes(), Objects.of(scenes))
    for image, one in enumerate(made.labels):  # a third of the objects of class 0 is left out everywhere
        for row in np.flatnonzero(one.class_id == 0)[::3][::-1]:
            made.drop(image, int(row))
    sparse = Evidence.of(scenes := made.scenes(), Objects.of(scenes))
    seen = np.array([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0]])
    assert sparse.overlooked(seen)[0] < 0.5 * whole.overlooked(seen)[0]
    assert sparse.overlooked(seen)[0] < 0.5 * sparse.overlooked(seen)[1]


def test_evidence_only_grows_with_what_speaks_for_it() -> None:
    evidence = Evidence.of(scenes := MadeUp(100).scenes(), Objects.of(scenes))
    rising = np.linspace(0.05, 0.99, 30)
    scores = np.stack([rising, np.full(30, 0.05), np.zeros(30)], axis=1)
    ones = np.zeros(30, np.intp)
    assert (np.diff(evidence.overlooked(scores)) >= 0).all()
    assert (np.diff(evidence.swapped(scores, ones + 1)) >= 0).all()
    assert (np.diff(evidence.located(np.linspace(0.3, 0.99, 30), ones)) <= 1e-9).all()
    assert (np.diff(evidence.duplicate(rising)) >= 0).all()
    cap = 1 / LEAST_DOUBT + 1e-9
    for ratio in (evidence.overlooked(scores), evidence.swapped(scores, ones + 1), evidence.duplicate(rising)):
        assert ratio.max() <= cap
    assert suspicion(np.array([1.0]))[0] == pytest.approx(PRIOR)


def test_a_label_without_area_is_wrong_for_certain() -> None:
    made = MadeUp(20)
    made.change(5, (10, 10, 10, 40), 1)
    first = suspicions_of(made.scenes())[0]
    assert (first.scene, first.kind, first.suspicion) == (5, "located", 1.0)


def test_a_model_that_sees_nothing_says_nothing() -> None:
    made = MadeUp(20)
    nothing = [replace(one, class_id=one.class_id[:0], xyxy=one.xyxy[:0], score=one.score[:0]) for one in made.predictions]  # type: ignore[index]
    made.predictions = nothing
    assert all(one.suspicion < 0.02 for one in suspicions_of(made.scenes()))
