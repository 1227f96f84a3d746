"""What a person said of an image, applied to its labels: the last step, after the chain and trust.

What was said to be there stays under any threshold, what was said not to be there does not come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.mask_runs import read_runs
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.reviews import OF_IMAGES, Review
from autodistill_grounded_sam.types import REASONS, Float32, Int32, Labels, Reason, Rle, State

Flags = npt.NDArray[np.bool_]

SAME_OBJECT_IOU = 0.7  # of boxes; as of `duplicate_iou`: other settings move the box of a label a little
_REPLACE = ("corrected", "added")  # the label that they are about by the object that a person drew
_REJECTED, _DUPLICATE = REASONS.index(Reason.REJECTED), REASONS.index(Reason.DUPLICATE)


def match_reviews(labels: Labels, reviews: Sequence[Review], ontology: Ontology) -> Int32:
    """(m,) which review is about each label, -1 for none: of its class, the nearest boxes first, each review of one label."""
    return _owners(labels.class_id, labels.xyxy, reviews, ontology)


def without_a_word(class_id: Int32, xyxy: Float32, reviews: Sequence[Review], ontology: Ontology) -> Flags:
    """(m,) the labels of an image that still need a person: nobody decided on them, put an object in their place, or closed the
    image for their class."""
    owner = _owners(class_id, xyxy, reviews, ontology)
    owned = set(owner.tolist())
    drawn = [review.stands for place, review in enumerate(reviews) if _is_drawn(review, place in owned, ontology)]
    stands = [one for one in drawn if one is not None]
    boxes = np.array([box for box, _ in stands], np.float32).reshape(-1, 4)
    drawn_id = np.array([ontology.class_names.index(name) for _, name in stands], np.int32)
    doubled = _same_object(class_id, xyxy, drawn_id, boxes, ontology).any(axis=1)
    return (owner < 0) & ~doubled & ~closed_classes(reviews, ontology)[class_id]


def _owners(class_id: Int32, xyxy: Float32, reviews: Sequence[Review], ontology: Ontology) -> Int32:
    owner = np.full(len(class_id), -1, np.int32)
    boxes = np.array([review.xyxy or (0, 0, 0, 0) for review in reviews], np.float32).reshape(-1, 4)
    known = {name: place for place, name in enumerate(ontology.class_names)}
    meant = np.array([known.get(review.class_name, -1) for review in reviews], np.int32)
    iou = np.where(class_id[:, None] == meant, box_iou(xyxy, boxes), 0)
    for pair in np.argsort(-iou, axis=None, kind="stable"):
        label, review = np.unravel_index(pair, iou.shape)
        if iou[label, review] < SAME_OBJECT_IOU:
            break
        if owner[label] < 0 and review not in owner:
            owner[label] = review
    return owner


def apply_reviews(
    labels: Labels, reviews: Sequence[Review], ontology: Ontology, width: int, height: int, trust: float = 0.0
) -> Labels:
    """The labels of an image of `width` x `height` after the reviews of its bytes; those of unknown classes say nothing.

    Rejected labels go; corrected, added and accepted objects are there whatever was decided, and a label of the same object goes
    for them. In a complete or empty image nothing else is. An image waits for review no longer when none of its other labels is
    below `trust`. Raises RecordError for a mask that is not of this image.
    """
    owner = match_reviews(labels, reviews, ontology)
    drawn = _drawn(labels, reviews, owner, ontology, (width, height))
    verdicts = np.array([reviews[place].verdict if place >= 0 else "" for place in owner])
    closed = closed_classes(reviews, ontology)
    doubled = _same_object(labels.class_id, labels.xyxy, drawn.class_id, drawn.xyxy, ontology).any(axis=1) & (owner < 0)
    rejected = (verdicts == "rejected") | (closed[labels.class_id] & (owner < 0) & ~doubled)
    kept = ~rejected & ~doubled & ~np.isin(verdicts, _REPLACE)
    reasons = labels.reasons.copy()
    reasons[labels.candidate[rejected]] = _REJECTED
    reasons[labels.candidate[doubled]] = _DUPLICATE
    doubtful = False
    if labels.trust is not None:
        doubtful = bool((labels.trust < trust)[kept & (owner < 0)].any())
        drawn = replace(drawn, trust=np.ones(len(drawn), np.float32))
        labels = replace(labels, trust=np.where(owner >= 0, np.float32(1), labels.trust))
    waits = labels.state is State.REVIEW and doubtful
    both = _joined(labels, np.flatnonzero(kept), drawn, State.REVIEW if waits else State.LABELLED)
    return replace(both, reasons=reasons, confirmed=bool(closed.all()))


def box_iou(first_xyxy: Float32, second_xyxy: Float32) -> Float32:
    """IoU (n, m) of boxes (n, 4) and (m, 4)."""
    first, second = first_xyxy[:, None].astype(np.float64), second_xyxy[None].astype(np.float64)
    sides = np.clip(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    both = (first[..., 2:] - first[..., :2]).prod(axis=-1) + (second[..., 2:] - second[..., :2]).prod(axis=-1) - shared
    iou: Float32 = (shared / np.maximum(both, np.finfo(np.float64).tiny)).astype(np.float32)
    return iou


def closed_classes(reviews: Sequence[Review], ontology: Ontology) -> Flags:
    """(C,) the classes of which the image holds nothing but what was reviewed."""
    names = ontology.class_names
    word = next((review for review in reviews if review.verdict in OF_IMAGES), None)
    return np.array([word is not None and (not word.classes or name in word.classes) for name in names], np.bool_)


def _same_object(class_id: Int32, xyxy: Float32, other_id: Int32, other_xyxy: Float32, ontology: Ontology) -> Flags:
    """(m, k) True where a label and another box are of one object."""
    same = ontology.exclusive_matrix[np.ix_(class_id, other_id)]
    return (box_iou(xyxy, other_xyxy) >= SAME_OBJECT_IOU) & same


def _is_drawn(review: Review, is_label: bool, ontology: Ontology) -> bool:
    """Whether a person put this object there: corrected, added, or accepted when it was a label, which it `is_label` no more."""
    known = review.stands is not None and review.stands[1] in ontology.class_names
    return known and (review.verdict in _REPLACE or not is_label)


def _drawn(labels: Labels, reviews: Sequence[Review], owner: Int32, ontology: Ontology, size_wh: tuple[int, int]) -> Labels:
    """The objects that a person put there: corrected and added ones, and accepted ones that are no label now."""
    names, of_review = ontology.class_names, {review: label for label, review in enumerate(owner.tolist()) if review >= 0}
    class_id, boxes, rles, candidate = [], [], [], []
    for place, review in enumerate(reviews):
        label = of_review.get(place)
        if review.stands is None or not _is_drawn(review, label is not None, ontology):
            continue
        box, name = review.stands
        limits = np.array([*size_wh, *size_wh], np.float32)
        boxes.append(np.clip(np.array(box, np.float32), 0, limits))
        class_id.append(names.index(name))
        candidate.append(-1 if label is None else labels.candidate[label])
        if labels.rle is not None:
            own = labels.rle[label] if label is not None and review.to_xyxy is None else None
            rles.append(_mask_of(review, own, boxes[-1], size_wh))
    ones = np.ones(len(class_id), np.float32)
    return Labels(
        State.REVIEW,
        np.array(class_id, np.int32),
        ones,
        ones,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(candidate, np.int32),
        None if labels.rle is None else tuple(rles),
    )


def _mask_of(review: Review, own: Rle | None, box: Float32, size_wh: tuple[int, int]) -> Rle:
    """The mask that was reviewed, else that of the label, else the box filled."""
    width, height = size_wh
    if review.mask is not None:
        if review.mask["size"] != [height, width]:
            raise RecordError(
                f"a reviewed mask of {review.image!r} is of {review.mask['size']} (height, width), its image {[height, width]}: "
                "take its line out of reviews.jsonl"
            )
        if len(read_runs([review.mask]).mask):  # which also tells of a damaged code, and an empty mask is no object's
            return review.mask
    if own is not None:
        return own
    mask = np.zeros((height, width), np.bool_)
    x1, y1, x2, y2 = box.round().astype(int).tolist()
    mask[min(y1, height - 1) : max(y2, y1 + 1), min(x1, width - 1) : max(x2, x1 + 1)] = True  # a pixel at least
    return encode_mask(mask)


def _joined(labels: Labels, kept: npt.NDArray[np.intp], drawn: Labels, state: State) -> Labels:
    """The kept labels and the drawn objects, best first."""
    score = np.concatenate([labels.score[kept], drawn.score])
    order = np.argsort(-score, kind="stable")
    rle = None if labels.rle is None else (*(labels.rle[place] for place in kept), *(drawn.rle or ()))
    trust = None if labels.trust is None or drawn.trust is None else np.concatenate([labels.trust[kept], drawn.trust])[order]
    return replace(
        labels,
        state=State.EMPTY if state is State.LABELLED and not len(order) else state,
        class_id=np.concatenate([labels.class_id[kept], drawn.class_id])[order],
        score=score[order],
        margin=np.concatenate([labels.margin[kept], drawn.margin])[order],
        xyxy=np.concatenate([labels.xyxy[kept], drawn.xyxy])[order],
        candidate=np.concatenate([labels.candidate[kept], drawn.candidate])[order],
        rle=None if rle is None else tuple(rle[place] for place in order),
        trust=trust,
    )
