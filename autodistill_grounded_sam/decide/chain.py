"""The chain from candidates to labels: small steps over arrays of all candidates of some images, each naming what it drops.

    class score -> negatives -> threshold, margin -> mask clean-up -> box -> size limits -> duplicates, herds

Sizes are judged before duplicates: what may not be a label must not take one with it. (Else a box around the whole
picture, refused for its size, would first have deleted everything inside it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.cleaning import CleanMasks, clean_masks
from autodistill_grounded_sam.decide.overlaps import Flags, Places, find_herds, measure_overlaps, one_object, pairs_of, suppress
from autodistill_grounded_sam.decide.scores import require_prompts, score_classes
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import REASONS, Candidates, Float32, Int32, Labels, Reason, Rle, State

_CODE = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class _Seen:
    """The n candidates of all images in a row, and why each was dropped (so far) and whom a duplicate lost to.

    `start` (images + 1,) is where those of each image begin, `sizes_wh` (images, 2) in pixels.
    """

    start: npt.NDArray[np.intp]
    sizes_wh: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.uint8]
    rival: Int32

    @staticmethod
    def of(seen: Sequence[tuple[Candidates, int, int]]) -> _Seen:
        start = np.cumsum([0, *(len(own) for own, _, _ in seen)])
        sizes_wh = np.array([(width, height) for _, width, height in seen], np.float64).reshape(-1, 2)
        return _Seen(start, sizes_wh, np.zeros(start[-1], np.uint8), np.full(start[-1], -1, np.int32))

    def drop(self, candidates: Places, reason: Reason) -> None:
        self.reasons[candidates] = _CODE[reason]


@dataclass(frozen=True)
class _Standing:
    """The k candidates that no step has dropped yet, image by image, best first; `candidate` (k,) are their places among all.

    `xyxy` is the label's box, `tight` the one that overlaps are measured with: of the mask, or of the detector without masks.
    `mask` is the place of the clean mask, -1 where there is none.
    """

    candidate: Places
    image: Places
    class_id: Int32
    score: Float32
    margin: Float32
    xyxy: Float32
    tight: Float32
    area: npt.NDArray[np.float64]
    mask: Places

    def keep(self, which: Flags) -> _Standing:
        return _Standing(*(getattr(self, field.name)[which] for field in fields(self)))


def decide(candidates: Candidates, ontology: Ontology, config: DecideConfig, width: int, height: int) -> Labels:
    """The labels of one upright image of `width` x `height` pixels, best first, and why each other candidate was dropped.

    Equal scores stand in the order of the candidates. A rival may itself have been dropped by a later step. Raises
    `RecordError` if the scores are not of the ontology's prompts, or a mask that is looked at is not of the image's size.
    """
    return decide_many([(candidates, width, height)], ontology, config)[0]


def decide_many(seen: Sequence[tuple[Candidates, int, int]], ontology: Ontology, config: DecideConfig) -> list[Labels]:
    """The labels of many images, each given as (candidates, width, height); the same as `decide` gives for each alone.

    Every step takes the candidates of all images together, which for some dozens of images is several times as quick as one by
    one.
    """
    if not seen:
        return []
    all_seen = _Seen.of(seen)
    standing = _by_score([own for own, _, _ in seen], ontology, config, all_seen)
    standing, masks = _clean(standing, [own.rle for own, _, _ in seen], config, all_seen)
    standing = _by_shape(standing, ontology, all_seen)
    return _labels(_by_overlap(standing, masks, ontology, config, all_seen), masks, [own.rle for own, _, _ in seen], all_seen)


def _by_score(candidates: Sequence[Candidates], ontology: Ontology, config: DecideConfig, seen: _Seen) -> _Standing:
    """Class score, negatives, threshold and margin; those that stand are put best first."""
    require_prompts(candidates, ontology)
    scored = score_classes(np.concatenate([own.scores for own in candidates]), ontology)
    low, negative = scored.below_threshold(ontology, config), scored.beaten_by_negative()
    seen.drop(np.flatnonzero(low), Reason.THRESHOLD)
    seen.drop(np.flatnonzero(negative), Reason.NEGATIVE)
    image = np.repeat(np.arange(len(candidates)), np.diff(seen.start))
    stand = np.flatnonzero(~low & ~negative)
    stand = stand[np.lexsort((-scored.score[stand], image[stand]))]
    xyxy, none = np.concatenate([own.xyxy for own in candidates])[stand], np.full(len(stand), -1)
    return _Standing(
        stand,
        image[stand],
        scored.class_id[stand],
        scored.score[stand],
        scored.margin[stand],
        xyxy,
        xyxy,
        np.zeros(len(stand)),  # until the masks are clean
        none,
    )


def _clean(
    standing: _Standing, rles: Sequence[tuple[Rle, ...] | None], config: DecideConfig, seen: _Seen
) -> tuple[_Standing, CleanMasks]:
    """Boxes cut to their image; masks cleaned, of all images at once, and boxes measured on them. `rles` are by image."""
    codes: list[Rle] = []
    mask = standing.mask.copy()
    own = (standing.candidate - seen.start[standing.image]).tolist()
    for place, (image, number) in enumerate(zip(standing.image.tolist(), own, strict=True)):
        if (some := rles[image]) is not None:
            mask[place] = len(codes)
            codes.append(some[number])
    with_mask = mask >= 0
    _require_sizes(codes, seen.sizes_wh[standing.image[with_mask]])
    masks = clean_masks(codes, config.island_fraction, config.hole_fraction)
    limits = np.tile(seen.sizes_wh, 2)[standing.image].astype(np.float32)
    boxes = np.minimum(np.maximum(standing.xyxy, np.float32(0)), limits)
    tight, area = boxes.copy(), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64)
    tight[with_mask], area[with_mask] = masks.xyxy, masks.area
    xyxy = tight if config.box_from == "mask" else boxes
    return replace(standing, xyxy=xyxy, tight=tight, area=area, mask=mask), masks


def _require_sizes(codes: Sequence[Rle], sizes_wh: npt.NDArray[np.float64]) -> None:
    for rle, (width, height) in zip(codes, sizes_wh.tolist(), strict=True):
        if rle["size"][0] != height or rle["size"][1] != width:
            size = f"[{height:.0f}, {width:.0f}]"
            raise RecordError(f"a mask of an image of {width:.0f}x{height:.0f} must have size {size}, got {list(rle['size'])}")


def _by_shape(standing: _Standing, ontology: Ontology, seen: _Seen) -> _Standing:
    """What is left of the mask, and the size limits of the class."""
    standing = _drop(standing, (standing.area == 0) & (standing.mask >= 0), Reason.MASK, seen)
    image_area_px = seen.sizes_wh.prod(axis=1)[standing.image]
    return _drop(standing, _wrong_size(standing.xyxy, standing.class_id, ontology.classes, image_area_px), Reason.SIZE, seen)


def _by_overlap(standing: _Standing, masks: CleanMasks, ontology: Ontology, config: DecideConfig, seen: _Seen) -> _Standing:
    """Duplicates and herds, in the order that `overlaps` explains."""
    first, second = pairs_of(standing.image)
    comparable = ontology.exclusive_matrix[standing.class_id[first], standing.class_id[second]]
    overlaps = measure_overlaps(
        (first[comparable], second[comparable]),
        standing.tight,
        standing.area,
        masks.runs,
        standing.mask,
        config.duplicate_iou,
        config.duplicate_containment,
    )
    alive, lost_to_same = suppress(overlaps, overlaps.same, np.ones(len(standing.candidate), np.bool_))
    herds = find_herds(overlaps, standing.class_id, standing.area, alive, config.herd_members)
    alive, lost_to_around = suppress(overlaps, one_object(overlaps, standing.area, standing.mask), alive & ~herds)
    seen.drop(standing.candidate[herds], Reason.HERD)
    for rival in (lost_to_same, lost_to_around):
        lost = np.flatnonzero(rival >= 0)
        seen.drop(standing.candidate[lost], Reason.DUPLICATE)
        winner = standing.candidate[rival[lost]]
        seen.rival[standing.candidate[lost]] = winner - seen.start[standing.image[lost]]
    return standing.keep(alive)


def _labels(standing: _Standing, masks: CleanMasks, rles: Sequence[tuple[Rle, ...] | None], seen: _Seen) -> list[Labels]:
    edges = np.searchsorted(standing.image, np.arange(len(rles) + 1)).tolist()
    own = (standing.candidate - seen.start[standing.image]).astype(np.int32)
    places = standing.mask.tolist()
    labels = []
    for image, (first, stop) in enumerate(pairwise(edges)):
        mine, all_of_image = slice(first, stop), slice(seen.start[image], seen.start[image + 1])
        labels.append(
            Labels(
                State.LABELLED if stop > first else State.EMPTY,
                standing.class_id[mine],
                standing.score[mine],
                standing.margin[mine],
                standing.xyxy[mine],
                own[mine],
                None if rles[image] is None else tuple(masks.rle[place] for place in places[mine]),
                seen.reasons[all_of_image],
                seen.rival[all_of_image],
            )
        )
    return labels


def _drop(standing: _Standing, which: Flags, reason: Reason, seen: _Seen) -> _Standing:
    if not which.any():
        return standing
    seen.drop(standing.candidate[which], reason)
    return standing.keep(~which)


def _wrong_size(xyxy: Float32, class_id: Int32, classes: Sequence[ClassSpec], image_area_px: npt.NDArray[np.float64]) -> Flags:
    """(k,) True where a box is outside the size limits of its class (shorter side in pixels, share of its image's area).

    A box of no width or height, such as one that lay beside the image, is below every limit.
    """
    sides = xyxy[:, 2:] - xyxy[:, :2]
    wrong: Flags = np.any(sides <= 0, axis=1)
    for own in np.unique(class_id):
        spec = classes[own]
        if not spec.limits:
            continue
        mine = class_id == own
        shorter, share = sides[mine].min(axis=1), sides[mine].prod(axis=1, dtype=np.float64) / image_area_px[mine]
        wrong[mine] |= _outside(shorter, spec.min_size_px, spec.max_size_px)
        wrong[mine] |= _outside(share, spec.min_area_fraction, spec.max_area_fraction)
    return wrong


def _outside(values: npt.NDArray[np.floating], low: float | None, high: float | None) -> Flags:
    return (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
