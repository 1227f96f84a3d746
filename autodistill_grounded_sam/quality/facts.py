"""What is known of a label without a person: what the models said of it, how they agree, and how it lies in its image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.masks import boxes_xyxy
from autodistill_grounded_sam.types import Candidates, Float32, Labels

Floats = npt.NDArray[np.float64]

FACTS = (
    "logit of the score",
    "margin",
    "mask score",
    "IoU of box and mask",
    "logarithm of the area",  # as a share of the image; a calibration turns it into the distance from the middle one of its class
    "touches the border",
    "scores of other candidates there",
    "logarithm of the labels in the image",
    "agreement of several looks",  # new facts go to the end: an older calibration reads those it knows
)
AREA = FACTS.index("logarithm of the area")
BORDER = 0.01  # of the image's width or height
AGREES = 0.5  # IoU of another candidate's box


def facts_of(candidates: Candidates, labels: Labels, width: int, height: int) -> Floats:
    """The `FACTS` (m, 9) of the labels of one image of this size; 0 for what the run does not hold."""
    facts = np.zeros((len(labels), len(FACTS)))
    if not len(labels):
        return facts
    score = labels.score.astype(np.float64).clip(1e-4, 1 - 1e-4)
    facts[:, 0], facts[:, 1] = np.log(score / (1 - score)), labels.margin
    if candidates.mask_score is not None and labels.rle is not None:
        facts[:, 2] = candidates.mask_score[labels.candidate]
        facts[:, 3] = _iou(candidates.xyxy[labels.candidate], boxes_xyxy(labels.rle))
    box = labels.xyxy / np.array([width, height] * 2)
    facts[:, AREA] = np.log(np.prod(box[:, 2:] - box[:, :2], axis=1).clip(1e-8))
    facts[:, 5] = np.minimum(box[:, :2], 1 - box[:, 2:]).min(axis=1) < BORDER
    best = candidates.scores.max(axis=1, initial=0.0)
    agrees = _iou(candidates.xyxy[labels.candidate][:, None], candidates.xyxy[None]) > AGREES
    facts[:, 6] = agrees @ best - best[labels.candidate]
    facts[:, 7] = np.log(len(labels))
    if candidates.agreement is not None:
        facts[:, 8] = candidates.agreement[labels.candidate]
    return facts


def _iou(first_xyxy: Float32, second_xyxy: Float32) -> Floats:
    """IoU of boxes (..., 4), broadcast over all but the last axis."""
    a, b = first_xyxy.astype(np.float64), second_xyxy.astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    both = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    iou: npt.NDArray[Any] = shared / np.maximum(both, np.finfo(np.float64).tiny)
    return iou
