"""Several detectors, or several views of an image, as one detector; several segmenters as one.

Boxes are fused after Solovyev, Wang and Gabruseva, "Weighted boxes fusion" (arXiv:1910.13302), with the columns of all prompts
kept: a fused score is the mean over all looks, those that saw nothing there counting 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from autodistill_grounded_sam.engine.seams import SAME_CLASS_IOU, SAME_OBJECT_IOU, box_iou
from autodistill_grounded_sam.masks import decode_mask, encode_mask, iou_and_containment
from autodistill_grounded_sam.protocols import Detector, Segmenter
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

View = Literal["flip", "scale"]  # mirrored; smaller, on a grey canvas

COMMON_THRESHOLD = 0.35  # the default of `decide`: what a detector's own usual threshold becomes
LOWEST_USUAL = 0.1  # of the detectors here: a member is asked for all that may reach the floor once it is calibrated
CANVAS = 1.25  # times the image's sides: objects come in at 0.8 of their size
GREY = (124, 116, 104)  # ImageNet's mean


def detector_of(
    names: Sequence[tuple[str, float | None]], load: Callable[[str, float], Detector], floor: float, views: Sequence[View]
) -> Detector:
    """The detector that these names and thresholds (`plugins.members`) stand for; `load` builds one from name and floor."""
    if len(names) == 1 and names[0][1] is None:
        alone = load(names[0][0], floor)
        return FusedDetector([alone], [COMMON_THRESHOLD], views) if views else alone
    members = [load(name, own_floor(floor, given or LOWEST_USUAL)) for name, given in names]
    usual = [float(getattr(member, "usual_threshold", COMMON_THRESHOLD)) for member in members]
    return FusedDetector(members, [given or own for (_, given), own in zip(names, usual, strict=True)], views)


def segmenter_of(names: Sequence[tuple[str, float | None]], load: Callable[[str], Segmenter]) -> Segmenter:
    """The segmenter that these names (`plugins.members`) stand for."""
    members = [load(name) for name, _ in names]
    return members[0] if len(members) == 1 else VotingSegmenter(members)


class FusedDetector:
    """A detector that asks each of `members` about the image, and about each of its `views`.

    `thresholds` are the scores of the members that mean the same: each becomes `COMMON_THRESHOLD` (see `calibrated`). Its answers
    hold `agreement`: the share of looks that saw a candidate, each counted by the IoU of its box where its best prompt is the
    fused one.
    """

    def __init__(self, members: Sequence[Detector], thresholds: Sequence[float], views: Sequence[View] = ()) -> None:
        self._members = list(zip(members, thresholds, strict=True))
        self._views: tuple[View | None, ...] = (None, *views)
        resize = getattr(members[0], "resized_size", None)
        if resize is not None:
            self.resized_size = resize

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        looks = [
            [_back(one, image, view, threshold) for one, image in zip(member.detect(seen, prompts), images, strict=True)]
            for view in self._views
            for seen in [[_shown(image, view) for image in images]]
            for member, threshold in self._members
        ]
        return [fuse(answers) for answers in zip(*looks, strict=True)]


class VotingSegmenter:
    """A segmenter that asks several: a pixel is in a mask if more than half of their votes say so, each weighed by its
    mask_score, so that of two the surer one decides. Where they disagree, the mask_score falls: it is the mean of theirs, each
    times the IoU of its mask with the voted one."""

    def __init__(self, members: Sequence[Segmenter]) -> None:
        self._members = members

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        answers = zip(*(member.segment(images, candidates) for member in self._members), strict=True)
        return [_voted(found, masks) for found, masks in zip(candidates, answers, strict=True)]


def fuse(looks: Sequence[Candidates]) -> Candidates:
    """What several looks at one image saw, as one, best first; a look adds at most one box to an object.

    Greedy, from the highest top score down: a box joins the object whose box so far overlaps it most, by an IoU of
    `SAME_CLASS_IOU` if both have the same best prompt, else of `SAME_OBJECT_IOU`; the box of an object is the mean of its boxes
    weighed by their top scores, its scores are their sum over the number of looks.
    """
    boxes, scores = np.concatenate([look.xyxy for look in looks]), np.concatenate([look.scores for look in looks])
    look_of = np.repeat(np.arange(len(looks)), [len(look) for look in looks])
    best = scores.max(axis=1, initial=0)
    objects: list[list[int]] = []
    fused, sums, has = np.zeros_like(boxes), np.zeros_like(scores), np.zeros((len(boxes), len(looks)), np.bool_)
    for row in np.argsort(-best, kind="stable").tolist():
        iou = box_iou(boxes[row], fused[: len(objects)])
        alike = sums[: len(objects)].argmax(axis=1) == scores[row].argmax() if scores.shape[1] else np.zeros(0, np.bool_)
        free = ~has[: len(objects), look_of[row]]
        joins = np.where(free & (iou >= np.where(alike, SAME_CLASS_IOU, SAME_OBJECT_IOU)), iou, 0)
        if joins.any():
            place = int(joins.argmax())
            objects[place].append(row)
        else:
            place = len(objects)
            objects.append([row])
        rows, has[place, look_of[row]] = objects[place], True
        fused[place] = np.average(boxes[rows], axis=0, weights=np.maximum(best[rows], 1e-9))
        sums[place] = scores[rows].sum(axis=0)
    fused, scores_of = fused[: len(objects)], sums[: len(objects)] / max(len(looks), 1)
    agreement = np.zeros(len(objects), np.float32)
    for place, rows in enumerate(objects):
        same = scores[rows].argmax(axis=1) == scores_of[place].argmax()
        agreement[place] = (box_iou(fused[place], boxes[rows]) * same).sum() / len(looks)
    order = np.argsort(-scores_of.max(axis=1, initial=0), kind="stable")
    return Candidates(fused[order], scores_of[order].clip(0, 1), agreement=agreement[order].clip(0, 1))


def calibrated(scores: Float32, threshold: float) -> Float32:
    """Scores moved along the log odds so that `threshold` becomes `COMMON_THRESHOLD`; 0 stays 0 and 1 stays 1."""
    from scipy.special import expit, logit

    with np.errstate(divide="ignore"):
        return np.asarray(expit(logit(scores.astype(np.float64)) + logit(COMMON_THRESHOLD) - logit(threshold)), np.float32)


def own_floor(floor: float, threshold: float) -> float:
    """The score of a detector with this threshold that `calibrated` turns into `floor`."""
    from scipy.special import expit, logit

    with np.errstate(divide="ignore"):
        return float(expit(logit(floor) - logit(COMMON_THRESHOLD) + logit(threshold)))


def _shown(image_rgb: RgbImage, view: View | None) -> RgbImage:
    if view == "flip":
        return np.ascontiguousarray(image_rgb[:, ::-1])
    if view == "scale":
        height, width = image_rgb.shape[:2]
        canvas = np.empty((round(CANVAS * height), round(CANVAS * width), 3), np.uint8)
        canvas[:] = GREY
        canvas[:height, :width] = image_rgb
        return canvas
    return image_rgb


def _back(seen: Candidates, image_rgb: RgbImage, view: View | None, threshold: float) -> Candidates:
    """What was seen in a view, in the image's own pixels and in common scores."""
    height, width = image_rgb.shape[:2]
    boxes = seen.xyxy
    if view == "flip":
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    scores = seen.scores if threshold == COMMON_THRESHOLD else calibrated(seen.scores, threshold)
    inside = Candidates(boxes.clip(0, [width, height] * 2).astype(np.float32), scores)
    return inside.select(np.asarray((inside.xyxy[:, 2:] > inside.xyxy[:, :2]).all(axis=1)))


def _voted(found: Candidates, answers: Sequence[Candidates]) -> Candidates:
    rles, mask_score = [], np.zeros(len(found), np.float32)
    for row in range(len(found)):
        own = [answer.rle[row] for answer in answers if answer.rle is not None]
        sure = np.array([answer.mask_score[row] for answer in answers if answer.mask_score is not None])
        weight = np.maximum(sure, 1e-6)
        votes = sum(decode_mask(rle) * one for rle, one in zip(own, weight, strict=True))
        rles.append(encode_mask(np.asarray(votes > weight.sum() / 2)))
        mask_score[row] = (sure * iou_and_containment(own, [rles[-1]])[0][:, 0]).mean()
    return Candidates(found.xyxy, found.scores, tuple(rles), mask_score)
