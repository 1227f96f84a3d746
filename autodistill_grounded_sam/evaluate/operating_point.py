"""Precision, recall and F1 of labels as they are, and which class is taken for which.

Labels and objects are matched by their boxes, always: so a run with masks and a student without can be compared. The matching
is COCO's: within an image the best label chooses first, and takes the free object of highest IoU, if that is 0.5 or more. For
precision, recall and F1 only objects of its own class are open to a label; for the confusion counts all are. A label that matches
nothing, but lies with half of its area in a crowd region (of its class; for the confusion of any), is neither right nor wrong,
and a crowd is no object to be found. How well masks fit is told apart, by the mean mask IoU of the matched pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.evaluate.matching import Joined, Objects, Pair
from autodistill_grounded_sam.masks import mask_iou
from autodistill_grounded_sam.types import Float32

MATCH_IOU = 0.5  # that of AP50 and of PASCAL VOC
CROWD_SHARE = 0.5  # of a label's own area: the threshold at which COCO excuses it
BACKGROUND = ""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class OperatingPoint(NamedTuple):
    """`overall` and each of `per_class`: precision, recall, f1, mask_iou, nan where there is nothing to divide by; per class also
    the counts `truth` and `labels` behind them. `confusion[truth][label]` counts, "" is background; zeros are left out."""

    overall: Mapping[str, float]
    per_class: tuple[Mapping[str, float], ...]
    confusion: Mapping[str, Mapping[str, int]]


class Matches(NamedTuple):
    """Of one image: `truth_of` (n,) the object that each label matched, or -1; `excused` (n,) labels that a crowd excuses."""

    truth_of: npt.NDArray[np.intp]
    excused: Flags


def operating_point(joined: Joined, *, min_score: float = 0.0) -> OperatingPoint:
    """Measure the labels that score at least `min_score`.

    Classes that only the labels know appear in the confusion, and nowhere else: the reference cannot say if they are right.
    """
    known = joined.known
    right, labels, objects = np.zeros(known, np.int64), np.zeros(known, np.int64), np.zeros(known, np.int64)
    mask_ious: list[list[float]] = [[] for _ in range(known)]
    confusion: Counter[tuple[int, int]] = Counter()
    for pair in joined.pairs:
        image = Pair(pair.name, pair.width, pair.height, pair.truth, pair.labels.select(pair.labels.score >= min_score))
        confusion.update(_confusion(image))
        found = image.labels.select(image.labels.class_id < known)
        matches = match_boxes(found, image.truth, within_class=True)
        np.add.at(objects, image.truth.class_id[~image.truth.crowd], 1)
        np.add.at(labels, found.class_id[~matches.excused], 1)
        np.add.at(right, found.class_id[matches.truth_of >= 0], 1)
        for label, truth in enumerate(matches.truth_of):
            if truth >= 0 and found.rle is not None and image.truth.rle is not None:
                mask_ious[found.class_id[label]].append(mask_iou(found.rle[label], image.truth.rle[truth]))
    per_class = tuple(
        {**_figures(right[k], labels[k], objects[k], mask_ious[k]), "truth": int(objects[k]), "labels": int(labels[k])}
        for k in range(known)
    )
    every_iou = [iou for of_class in mask_ious for iou in of_class]
    overall = _figures(right.sum(), labels.sum(), objects.sum(), every_iou)
    return OperatingPoint(overall, per_class, _named(confusion, joined.class_names))


def match_boxes(labels: Objects, truth: Objects, *, within_class: bool) -> Matches:
    """Match labels, best first, to the objects of one image; of equal IoU an object of the label's own class is preferred."""
    iou, share = box_overlaps(labels.xyxy, truth.xyxy)
    same_class = labels.class_id[:, None] == truth.class_id[None, :]
    comparable = same_class if within_class else np.ones_like(same_class)
    open_iou = np.where(comparable & ~truth.crowd, iou, -1.0)
    truth_of = np.full(len(labels), -1, np.intp)
    for label in range(len(labels)):
        candidates = np.flatnonzero(open_iou[label] >= MATCH_IOU)
        if len(candidates):
            best = max(candidates, key=lambda k: (open_iou[label, k], same_class[label, k], -k))
            truth_of[label] = best
            open_iou[:, best] = -1.0
    in_crowd = (comparable & truth.crowd & (share >= CROWD_SHARE)).any(axis=1)
    return Matches(truth_of, in_crowd & (truth_of < 0))


def box_overlaps(first: Float32, second: Float32) -> tuple[Floats, Floats]:
    """IoU (n, m) of boxes `xyxy` (n, 4) and (m, 4), and the intersection as a share of the first's area (n, m); 0 where empty."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(axis=-1), (b[..., 2:] - b[..., :2]).prod(axis=-1)
    union = area_a + area_b - shared
    tiny = np.finfo(np.float64).tiny  # an empty box shares nothing, so it divides 0
    return shared / np.maximum(union, tiny), shared / np.maximum(area_a, tiny)


def _confusion(image: Pair) -> Counter[tuple[int, int]]:
    """(class of the object, class of the label) of each match; -1 for an object or label that has none."""
    matches = match_boxes(image.labels, image.truth, within_class=False)
    counts: Counter[tuple[int, int]] = Counter()
    for label, truth in enumerate(matches.truth_of):
        if not matches.excused[label]:
            counts[int(image.truth.class_id[truth]) if truth >= 0 else -1, int(image.labels.class_id[label])] += 1
    missed = ~image.truth.crowd
    missed[matches.truth_of[matches.truth_of >= 0]] = False
    counts.update((int(class_id), -1) for class_id in image.truth.class_id[missed])
    return counts


def _named(confusion: Counter[tuple[int, int]], class_names: Sequence[str]) -> dict[str, dict[str, int]]:
    """By names, in the order of the classes, background last."""
    names = (*class_names, BACKGROUND)
    end = len(class_names)
    named: dict[str, dict[str, int]] = {}
    for truth, label in sorted(confusion, key=lambda cell: (cell[0] % (end + 1), cell[1] % (end + 1))):
        named.setdefault(names[truth], {})[names[label]] = confusion[truth, label]
    return named


def _figures(right: int, labels: int, objects: int, mask_ious: Sequence[float]) -> dict[str, float]:
    return {
        "precision": _ratio(right, labels),
        "recall": _ratio(right, objects),
        "f1": _ratio(2 * right, labels + objects),
        "mask_iou": _ratio(sum(mask_ious), len(mask_ious)),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
