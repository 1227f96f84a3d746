"""How far a model may be believed against a label: likelihood ratios, fitted to how often its claims and the labels agree.

A claim is that an object is there, that it is of a class, that it has these edges, or that two labels are one object. Each ratio
says how much likelier what was seen is if the label is wrong than if it is right. Where the model errs often, or people leave
out often, the same disagreement weighs less: so ratios of all kinds can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.check.scenes import Floats, Objects, Places, Scene, logit
from autodistill_grounded_sam.evaluate.operating_point import box_overlaps
from autodistill_grounded_sam.quality.calibration import Calibration, fit
from autodistill_grounded_sam.quality.facts import FACTS

PRIOR = 0.05  # the share of labels that are wrong, before anything is seen; other values keep the order within a kind
UNFOUNDED_PRIOR = 0.01  # people leave out and misdraw objects more often than they mark what is none
# No claim outweighs a label by more than this: wrong labels are among those that the claims are measured by, and a claim that
# is never contradicted by 100 labels may be by the next 30.
LEAST_DOUBT = 0.03
FEWEST = 20  # pairs of a class from which its own boxes say how well boxes fit; below it those of all classes do
TAIL = 4.0  # degrees of freedom of Student's t: the boxes of a model scatter with heavier tails than Gauss
LEAST_WIDTH = 0.3  # of the logit of IoU: nobody draws boxes more alike than 0.9 and 0.93
SPREAD = 1.4826  # standard deviations in a median absolute deviation


def suspicion(ratio: Floats, prior: float = PRIOR) -> Floats:
    """The probability that a label is wrong, from its likelihood ratio."""
    odds = ratio * prior / (1 - prior)
    return odds / (1 + odds)


@dataclass(frozen=True)
class Evidence:
    """What was learnt of a model from all its objects and the labels of a dataset with C classes."""

    presence: Calibration  # that a label lies where the model sees an object
    temperature: float  # of the differences of class logits, as log odds
    middle: Floats  # (C,) median logit of the IoU of label and object
    width: Floats  # (C,) its spread
    missed: Floats  # (C,) share of labels that the model sees no object for
    crowding: tuple[float, float]  # how many neighbours of IoU 0.1 or more a label has, and the mean of what IoU exceeds 0.1

    @staticmethod
    def of(scenes: Sequence[Scene], objects: Objects) -> Evidence:
        classes = objects.scores.shape[1]
        presence = fit(_facts(objects.scores), objects.best.astype(np.int32), objects.labelled, classes)
        middle, width = _fits_of_boxes(objects, classes)
        return Evidence(presence, _temperature(objects), middle, width, _missed(scenes, classes), _crowding(scenes))

    def present(self, scores: Floats) -> Floats:
        """The probability (m,) that people label what the model gives these `scores` (m, C)."""
        return self.presence.trust(_facts(scores), scores.argmax(axis=1).astype(np.int32)).astype(np.float64)

    def overlooked(self, scores: Floats) -> Floats:
        """Ratios (m,) for objects without a label."""
        present = self.present(scores)
        return present / np.maximum(1 - present, LEAST_DOUBT)

    def swapped(self, scores: Floats, label_class: Places) -> Floats:
        """Ratios (m,) for objects with a label of `label_class` (m,), against the best class."""
        rows = np.arange(len(scores))
        gap = logit(scores.max(axis=1)) - logit(scores[rows, label_class])
        claimed = 1 / (1 + np.exp(-self.temperature * gap))
        return claimed / np.maximum(1 - claimed, LEAST_DOUBT)

    def located(self, iou: Floats, class_id: Places) -> Floats:
        """Ratios (m,) for labels that overlap their object so much: a wrong box may have any IoU up to the usual one."""
        middle, width = self.middle[class_id], self.width[class_id]
        usual = 1 / (1 + np.exp(-middle))
        clipped = np.minimum(np.clip(iou, *_CLEAR_IOU), usual)  # a label that fits better than usual is confirmed no more
        right = _student((logit(clipped) - middle) / width) / width / (clipped * (1 - clipped))
        wrong = 1 / usual
        return np.asarray(wrong / ((1 - LEAST_DOUBT) * right + LEAST_DOUBT * wrong))

    def unseen(self, class_id: Places) -> Floats:
        """Ratios (n,) for labels where the model sees nothing."""
        return 1 / np.maximum(self.missed[class_id], LEAST_DOUBT)

    def duplicate(self, iou: Floats) -> Floats:
        """Ratios (n,) for labels without an object of their own that overlap another label so much."""
        rate, mean = self.crowding
        return 1 / np.maximum(rate * np.exp(-(iou - _NEIGHBOUR_IOU) / mean), LEAST_DOUBT)


_NEIGHBOUR_IOU, _DISTINCT_IOU = 0.1, 0.6
_CLEAR_IOU = (0.02, 0.98)  # beyond them the logit tells of rounding to pixels


def _facts(scores: Floats) -> Floats:
    facts = np.zeros((len(scores), len(FACTS)))  # only the score is known here; the other facts stay 0
    if len(scores):
        facts[:, 0] = logit(scores.max(axis=1))
    return facts


def _temperature(objects: Objects) -> float:
    """The factor on differences of class logits that makes the labels' classes likeliest, where labels err at times."""
    from scipy.optimize import minimize_scalar

    pairs = objects.labelled
    if not pairs.any() or objects.scores.shape[1] < 2:
        return 1.0
    logits, label = logit(objects.scores[pairs]), objects.label_class[pairs]
    other = logits.copy()
    other[np.arange(len(label)), label] = -np.inf
    gap = logits[np.arange(len(label)), label] - other.max(axis=1)

    def loss(log_factor: float) -> float:
        agrees = 1 / (1 + np.exp(-np.exp(log_factor) * gap))
        return float(-np.log(LEAST_DOUBT / 2 + (1 - LEAST_DOUBT) * agrees).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def _fits_of_boxes(objects: Objects, classes: int) -> tuple[Floats, Floats]:
    agree = (objects.label >= 0) & (objects.best == objects.label_class)
    fits = logit(np.clip(objects.iou, *_CLEAR_IOU))
    middle, width = np.zeros(classes), np.zeros(classes)
    for class_id in range(classes):
        own = agree & (objects.best == class_id)
        chosen = fits[own if own.sum() >= FEWEST else agree]
        middle[class_id] = np.median(chosen) if len(chosen) else 1.0
        width[class_id] = max(SPREAD * np.median(np.abs(chosen - middle[class_id])), LEAST_WIDTH) if len(chosen) else 1.0
    return middle, width


def _missed(scenes: Sequence[Scene], classes: int) -> Floats:
    labels, missed = np.zeros(classes), np.zeros(classes)
    for scene in scenes:
        np.add.at(labels, scene.class_id, 1)
        np.add.at(missed, scene.class_id[scene.object_of < 0], 1)
    return (missed + 1) / (labels + 2)


def _crowding(scenes: Sequence[Scene]) -> tuple[float, float]:
    """Labels of one object are not meant: from how often labels overlap a little, how often they overlap much is told."""
    above: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    for scene in scenes:
        iou = box_overlaps(scene.xyxy, scene.xyxy)[0][np.triu_indices(len(scene.xyxy), 1)]
        above.append(iou[(iou >= _NEIGHBOUR_IOU) & (iou < _DISTINCT_IOU)] - _NEIGHBOUR_IOU)
    excess = np.concatenate(above)
    labels = sum(len(scene.xyxy) for scene in scenes)
    return (2 * len(excess) + 1) / (labels + 1), float((excess.sum() + 0.1) / (len(excess) + 1))


def _student(z: Floats) -> Floats:
    from scipy.stats import t

    return np.asarray(t.pdf(z, TAIL), np.float64)
