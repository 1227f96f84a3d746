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
from autodistill_grounded_sam.errors import RecordError
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
    `RecordError` if the scores are not of the ontology's prompts, or a mask that is looked at is not of the image's size.
    """
    return decide_many([(candidates, width, height)], ontology, config)[0]


def decide_many(seen: Sequence[tuple[Candidates, int, int]], ontology: Ontology, config: DecideConfig) -> list[Labels]:
    """The labels of many images, each given as (candidates, width, height); the same as `decide` gives for each alone.

    The masks of all are cleaned together, which for some dozens of images is about twice as quick as one by one.
    """
    verdicts = [_Verdicts(np.zeros(len(own), np.uint8), np.full(len(own), -1, np.int32)) for own, _, _ in seen]
    by_score = [_by_score(own, ontology, config, verdict) for (own, _, _), verdict in zip(seen, verdicts, strict=True)]
    cleaned = _clean(by_score, [(width, height) for _, width, height in seen], config)
    labels = []
    for standing, verdict, (_, width, height) in zip(cleaned, verdicts, seen, strict=True):
        standing = _by_shape(standing, ontology, width, height, verdict)
        labels.append(_labels(_by_overlap(standing, ontology, config, verdict), verdict))
    return labels


def _labels(standing: _Standing, verdicts: _Verdicts) -> Labels:
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
        np.zeros(len(stand)),  # until the masks are clean
        None if candidates.rle is None else tuple(candidates.rle[i] for i in stand),
    )


def _clean(images: Sequence[_Standing], sizes_wh: Sequence[tuple[int, int]], config: DecideConfig) -> list[_Standing]:
    """Boxes cut to their image; masks cleaned, of all images at once, and boxes measured on them."""
    codes: list[Rle] = []
    for standing, (width, height) in zip(images, sizes_wh, strict=True):
        own = standing.rle or ()
        for rle in own:
            if list(rle["size"]) != [height, width]:
                raise RecordError(
                    f"a mask of an image of {width}x{height} must have size [{height}, {width}], got {list(rle['size'])}"
                )
        codes.extend(own)
    masks = clean_masks(codes, config.island_fraction, config.hole_fraction)
    cleaned: list[_Standing] = []
    start = 0
    for standing, (width, height) in zip(images, sizes_wh, strict=True):
        boxes = np.clip(standing.xyxy, 0, np.array([width, height, width, height], np.float32))
        if standing.rle is None:
            area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64)
            cleaned.append(replace(standing, xyxy=boxes, tight=boxes, area=area))
            continue
        mine = slice(start, start + len(standing.rle))
        tight, start = masks.xyxy[mine], mine.stop
        xyxy = tight if config.box_from == "mask" else boxes
        cleaned.append(replace(standing, xyxy=xyxy, tight=tight, area=masks.area[mine], rle=masks.rle[mine]))
    return cleaned


def _by_shape(standing: _Standing, ontology: Ontology, width: int, height: int, verdicts: _Verdicts) -> _Standing:
    """What is left of the mask, and the size limits of the class."""
    if standing.rle is not None:
        standing = _drop(standing, standing.area == 0, Reason.MASK, verdicts)
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
    """(k,) True where a box is outside the size limits of its class (shorter side in pixels, share of the image's area).

    A box of no width or height, such as one that lay beside the image, is below every limit.
    """
    sides = xyxy[:, 2:] - xyxy[:, :2]
    wrong: Flags = np.any(sides <= 0, axis=1)
    for own in np.unique(class_id):
        spec = classes[own]
        if not spec.limits:
            continue
        mine = class_id == own
        shorter, share = sides[mine].min(axis=1), sides[mine].prod(axis=1, dtype=np.float64) / image_area_px
        wrong[mine] |= _outside(shorter, spec.min_size_px, spec.max_size_px)
        wrong[mine] |= _outside(share, spec.min_area_fraction, spec.max_area_fraction)
    return wrong


def _outside(values: npt.NDArray[np.floating], low: float | None, high: float | None) -> Flags:
    return (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
