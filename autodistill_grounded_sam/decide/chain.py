"""The chain from candidates to labels: small pure steps over arrays, each naming what it drops.

    class score -> negatives -> threshold, margin -> mask clean-up -> box -> size limits -> duplicates, herds

Sizes are judged before duplicates: what may not be a label must not take one with it. (Else a box around the whole
picture, refused for its size, would first have deleted everything inside it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.cleaning import clean_masks
from autodistill_grounded_sam.decide.overlaps import find_herds, measure_overlaps, one_object, suppress
from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import REASONS, Candidates, Float32, Int32, Labels, Reason, Rle, State

Flags = npt.NDArray[np.bool_]
_CODE = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class _Standing:
    """The k candidates that no step has dropped yet, best first; `candidate` (k,) are their rows in `Candidates`.

    `xyxy` is the label's box, `tight` the one that overlaps are measured with: of the mask, or of the detector without masks.
    """

    candidate: npt.NDArray[np.intp]
    class_id: Int32
    score: Float32
    margin: Float32
    xyxy: Float32
    tight: Float32
    area: npt.NDArray[np.float64]
    rle: tuple[Rle, ...] | None

    def keep(self, which: Flags) -> _Standing:
        index = np.flatnonzero(which)
        return _Standing(
            self.candidate[index],
            self.class_id[index],
            self.score[index],
            self.margin[index],
            self.xyxy[index],
            self.tight[index],
            self.area[index],
            None if self.rle is None else tuple(self.rle[i] for i in index),
        )


@dataclass(frozen=True)
class _Verdicts:
    """Why each of the n candidates was dropped (so far), and whom a duplicate lost to: the last two fields of `Labels`."""

    reasons: npt.NDArray[np.uint8]
    rival: Int32

    def drop(self, candidates: npt.NDArray[np.intp], reason: Reason) -> None:
        self.reasons[candidates] = _CODE[reason]


def decide(candidates: Candidates, ontology: Ontology, config: DecideConfig, width: int, height: int) -> Labels:
    """The labels of one upright image of `width` x `height` pixels, best first, and why each other candidate was dropped.

    Equal scores stand in the order of the candidates. A rival may itself have been dropped by a later step. Raises
    `RecordError` if the scores are not of the ontology's prompts, or a mask is not of the image's size.
    """
    verdicts = _Verdicts(np.zeros(len(candidates), np.uint8), np.full(len(candidates), -1, np.int32))
    standing = _by_score(candidates, ontology, config, verdicts)
    standing = _by_shape(standing, ontology, config, width, height, verdicts)
    standing = _by_overlap(standing, ontology, config, verdicts)
    return Labels(
        State.LABELLED if len(standing.candidate) else State.EMPTY,
        standing.class_id,
        standing.score,
        standing.margin,
        standing.xyxy,
        standing.candidate.astype(np.int32),
        standing.rle,
        verdicts.reasons,
        verdicts.rival,
    )


def _by_score(candidates: Candidates, ontology: Ontology, config: DecideConfig, verdicts: _Verdicts) -> _Standing:
    """Class score, negatives, threshold and margin; those that stand are put best first."""
    scored = score_classes(candidates.scores, ontology)
    low, negative = scored.below_threshold(ontology, config), scored.beaten_by_negative()
    verdicts.drop(np.flatnonzero(low), Reason.THRESHOLD)
    verdicts.drop(np.flatnonzero(negative), Reason.NEGATIVE)
    stand = np.flatnonzero(~low & ~negative)
    stand = stand[np.argsort(-scored.score[stand], kind="stable")]
    xyxy = candidates.xyxy[stand]
    return _Standing(
        stand,
        scored.class_id[stand],
        scored.score[stand],
        scored.margin[stand],
        xyxy,
        xyxy,
        (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1, dtype=np.float64),
        None if candidates.rle is None else tuple(candidates.rle[i] for i in stand),
    )


def _by_shape(
    standing: _Standing, ontology: Ontology, config: DecideConfig, width: int, height: int, verdicts: _Verdicts
) -> _Standing:
    """Mask clean-up, box from mask, and the size limits of the class."""
    frame = np.array([width, height, width, height], np.float32)
    standing = replace(standing, xyxy=np.clip(standing.xyxy, 0, frame), tight=np.clip(standing.tight, 0, frame))
    if standing.rle is not None:
        clean = clean_masks(standing.rle, width, height, config.island_fraction, config.hole_fraction)
        standing = replace(standing, rle=clean.rle, area=clean.area, tight=clean.xyxy)
        if config.box_from == "mask":
            standing = replace(standing, xyxy=clean.xyxy)
        standing = _drop(standing, clean.area == 0, Reason.MASK, verdicts)
    return _drop(standing, _wrong_size(standing.xyxy, standing.class_id, ontology.classes, width * height), Reason.SIZE, verdicts)


def _by_overlap(standing: _Standing, ontology: Ontology, config: DecideConfig, verdicts: _Verdicts) -> _Standing:
    """Duplicates and herds, in the order that `overlaps` explains."""
    if len(standing.candidate) < 2:
        return standing
    comparable = ontology.exclusive_matrix[np.ix_(standing.class_id, standing.class_id)]
    overlaps = measure_overlaps(
        standing.tight, standing.area, standing.rle, comparable, config.duplicate_iou, config.duplicate_containment
    )
    if not (overlaps.same.any() or overlaps.inside.any()):
        return standing
    alive, lost_to_same = suppress(overlaps.same, np.ones(len(standing.candidate), np.bool_))
    herds = find_herds(overlaps, standing.class_id, alive, config.herd_members)
    alive, lost_to_around = suppress(one_object(overlaps), alive & ~herds)
    verdicts.drop(standing.candidate[herds], Reason.HERD)
    for rival in (lost_to_same, lost_to_around):
        lost = np.flatnonzero(rival >= 0)
        verdicts.drop(standing.candidate[lost], Reason.DUPLICATE)
        verdicts.rival[standing.candidate[lost]] = standing.candidate[rival[lost]]
    return standing.keep(alive)


def _drop(standing: _Standing, which: Flags, reason: Reason, verdicts: _Verdicts) -> _Standing:
    if not which.any():
        return standing
    verdicts.drop(standing.candidate[which], reason)
    return standing.keep(~which)


def _wrong_size(xyxy: Float32, class_id: Int32, classes: Sequence[ClassSpec], image_area_px: int) -> Flags:
    """(k,) True where a box is outside the size limits of its class (shorter side in pixels, share of the image's area)."""
    wrong = np.zeros(len(xyxy), np.bool_)
    sides = xyxy[:, 2:] - xyxy[:, :2]
    for own in np.unique(class_id):
        spec = classes[own]
        if not spec.limits:
            continue
        mine = class_id == own
        shorter, share = sides[mine].min(axis=1), sides[mine].prod(axis=1, dtype=np.float64) / image_area_px
        wrong[mine] = _outside(shorter, spec.min_size_px, spec.max_size_px)
        wrong[mine] |= _outside(share, spec.min_area_fraction, spec.max_area_fraction)
    return wrong


def _outside(values: npt.NDArray[np.floating], low: float | None, high: float | None) -> Flags:
    return (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
