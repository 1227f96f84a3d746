"""The labels of an image beside what a model saw in it: predictions merged to objects, and each label given one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.evaluate.operating_point import CROWD_SHARE, MATCH_IOU, box_overlaps
from autodistill_grounded_sam.types import DatasetImage, Float32, Int32

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.integer[Any]]

MERGE_IOU = 0.6  # predictions of one IoU or more are of one object, whatever their class
LEAST_IOU = 0.2  # a label and an object that overlap less are two things, not one badly located


@dataclass(frozen=True)
class Scene:
    """One image with n labels, and m objects that a model saw in it.

    `class_id` (n,), `xyxy` (n, 4) pixels, and `row` (n,), the place of each among the image's labels; `seen_xyxy` (m, 4) and
    `scores` (m, C), what the model gives each class. `label_of` (m,) is the label that each object stands for, or -1,
    `object_of` (n,) the same the other way, `iou` (n,) of the two, 0 where there is none.
    """

    class_id: Int32
    xyxy: Float32
    row: Int32
    seen_xyxy: Float32
    scores: Floats
    label_of: Places
    object_of: Places
    iou: Floats

    @staticmethod
    def of(labels: DatasetImage, predictions: DatasetImage, classes: int) -> Scene:
        """`class_id` of both numbers the same C classes. Crowd regions are no labels, and excuse what was seen in them."""
        n = len(labels.class_id)
        crowd = np.zeros(n, np.bool_) if labels.crowd is None else labels.crowd
        score = np.ones(len(predictions.class_id), np.float32) if predictions.score is None else predictions.score
        seen, scores = merged(predictions.class_id, predictions.xyxy, score, classes)
        in_crowd = (box_overlaps(seen, labels.xyxy[crowd])[1] >= CROWD_SHARE).any(axis=1)
        seen, scores, xyxy, class_id = seen[~in_crowd], scores[~in_crowd], labels.xyxy[~crowd], labels.class_id[~crowd]
        object_of = _assigned(class_id, xyxy, seen, scores)
        label_of, iou = np.full(len(seen), -1, np.intp), np.zeros(len(xyxy))
        found = np.flatnonzero(object_of >= 0)
        label_of[object_of[found]] = found
        iou[found] = box_overlaps(xyxy, seen)[0][found, object_of[found]]
        return Scene(class_id, xyxy, np.flatnonzero(~crowd).astype(np.int32), seen, scores, label_of, object_of, iou)

    @property
    def seen_class(self) -> Places:
        """The best class (m,) of each object."""
        return np.asarray(self.scores.argmax(axis=1))


@dataclass(frozen=True)
class Objects:
    """All objects of many scenes in a row, k of them: what calibration learns from.

    `scene` (k,) numbers the scene of each and `place` (k,) the object in it; `label` (k,) its label there or -1, `label_class`
    (k,) the class of that label or -1, `iou` (k,) their IoU; `scores` (k, C).
    """

    scene: Places
    place: Places
    scores: Floats
    label: Places
    label_class: Places
    iou: Floats

    @staticmethod
    def of(scenes: Sequence[Scene]) -> Objects:
        classes = scenes[0].scores.shape[1]
        label = [scene.label_of for scene in scenes]
        class_of = [np.append(scene.class_id, -1)[scene.label_of] for scene in scenes]  # -1 takes the last, which is -1
        iou = [np.append(scene.iou, 0.0)[scene.label_of] for scene in scenes]
        return Objects(
            np.repeat(np.arange(len(scenes)), [len(scene.scores) for scene in scenes]),
            np.concatenate([np.arange(len(scene.scores)) for scene in scenes]),
            np.concatenate([scene.scores for scene in scenes]).reshape(-1, classes),
            np.concatenate(label),
            np.concatenate(class_of),
            np.concatenate(iou),
        )

    @property
    def best(self) -> Places:
        """The best class (k,)."""
        return np.asarray(self.scores.argmax(axis=1))

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Where (k,) a label of any class lies as it should."""
        return self.iou >= MATCH_IOU


def merged(class_id: Int32, xyxy: Float32, score: Float32, classes: int) -> tuple[Float32, Floats]:
    """Predictions of one place as one object, best first: its box (m, 4) is that of the best, its scores (m, C) the best of each
    class."""
    order = np.lexsort((*xyxy.T[::-1], class_id, -score))
    iou = box_overlaps(xyxy[order], xyxy[order])[0]
    kept: list[int] = []
    scores = np.zeros((len(order), classes))
    for place, one in enumerate(order):
        near = [leader for leader in kept if iou[place, leader] >= MERGE_IOU]
        home = max(near, key=lambda leader: iou[place, leader]) if near else place
        if not near:
            kept.append(place)
        scores[home, class_id[one]] = max(scores[home, class_id[one]], score[one])
    return xyxy[order[kept]], scores[kept]


def _assigned(class_id: Int32, xyxy: Float32, seen: Float32, scores: Floats) -> Places:
    """The object (n,) of each label, or -1: one each, so that the sum of IoU, weighed by how sure the model is, is largest.

    An object that scores in the label's own class is worth more than one of the same IoU that does not.
    """
    from scipy.optimize import linear_sum_assignment

    object_of = np.full(len(xyxy), -1, np.intp)
    if not len(xyxy) or not len(seen):
        return object_of
    iou = box_overlaps(xyxy, seen)[0]
    worth = np.where(iou >= LEAST_IOU, iou * (scores.max(axis=1) + scores[:, class_id].T) / 2, 0.0)
    labels, objects = linear_sum_assignment(worth, maximize=True)
    good = worth[labels, objects] > 0
    object_of[labels[good]] = objects[good]
    return object_of


def logit(p: Any, least: float = 1e-3) -> Floats:
    p = np.clip(np.asarray(p, np.float64), least, 1 - least)
    return np.asarray(np.log(p / (1 - p)), np.float64)
