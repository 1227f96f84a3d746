"""The losses: a detector's, on the public outputs of transformers' Grounding DINO and MM Grounding DINO; a mask decoder's.

transformers' own `labels=` path gives the two-stage head no gradient (the first-stage boxes are detached, the first-stage logits
come from learnt queries) and mixes up tokens where the prompts of a batch differ. So: one-to-one matching for each decoder layer
(DETR), one-to-many for the first stage, focal loss over tokens as Grounding DINO has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

FOCAL_ALPHA = 0.5  # 0.25 leaves the scores of good boxes near 0.25; with 0.5 the classic threshold 0.35 fits
FOCAL_GAMMA = 2.0
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
# The three weights are for names of a few tokens. A name that a small vocabulary spells letter by letter ("red blood cell" is ten
# tokens to `mini`) counts no more, or its naming would drown its placing.
TOKENS_OF_A_NAME = 2
PROPOSALS_PER_OBJECT = 4
_LARGEST_LOGIT = 12.0  # of a first-stage box: cells at the edge of the image propose infinite ones


class Target(NamedTuple):
    """What one image holds of what its caption asks: `tokens` (o, T) float, 1 at every token that an object answers to; `boxes`
    (o, 4) cxcywh as shares of the image."""

    tokens: Tensor
    boxes: Tensor


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """The focal loss of every logit, in the shape of `logits`; `targets` are 0 or 1."""
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = probability + targets - 2 * probability * targets  # 1 - p_t for hard targets
    weight = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return weight * miss**FOCAL_GAMMA * entropy


def match_cost(logits: Tensor, boxes: Tensor, target: Target) -> Tensor:
    """Cost (queries, objects) of naming and placing; `logits` (q, T), `boxes` (q, 4) cxcywh."""
    probability = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-8).log()
    negative = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-8).log()
    share = target.tokens / target.tokens.sum(1, keepdim=True).clamp(min=1)
    naming = (positive - negative) @ share.T
    giou = generalized_box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(target.boxes, "cxcywh", "xyxy"))
    cost: Tensor = CLASS_WEIGHT * naming + L1_WEIGHT * torch.cdist(boxes, target.boxes, p=1) - GIOU_WEIGHT * giou
    return cost


def stage_loss(logits: Tensor, boxes: Tensor, targets: Sequence[Target], many: bool) -> Tensor:
    """Loss of one prediction stage over a batch: `logits` (b, q, T), `boxes` (b, q, 4) cxcywh, a target an image.

    Each object is learnt by one query, or by a few where `many`; every other query learns to be silent. Per object matched.
    """
    with torch.no_grad():
        pairs = [_matched(logits[k], boxes[k], target, many) for k, target in enumerate(targets)]
    wanted = torch.zeros_like(logits)
    for k, (row, column) in enumerate(pairs):
        wanted[k, row] = targets[k].tokens[column]
    matched = max(1, sum(len(row) for row, _ in pairs))
    naming = focal(logits, wanted).sum() * min(1, TOKENS_OF_A_NAME * matched / max(1, float(wanted.sum())))
    found = torch.cat([boxes[k, row] for k, (row, _) in enumerate(pairs)])
    truth = torch.cat([target.boxes[column] for target, (_, column) in zip(targets, pairs, strict=True)])
    giou = generalized_box_iou_loss(box_convert(found, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"), reduction="sum")
    placing = L1_WEIGHT * (found - truth).abs().sum() + GIOU_WEIGHT * giou
    loss: Tensor = (CLASS_WEIGHT * naming + placing) / matched
    return loss


def _matched(logits: Tensor, boxes: Tensor, target: Target, many: bool) -> tuple[Tensor, Tensor]:
    """Queries and the objects that they are to learn, of one image."""
    if not len(target.boxes):
        nothing = torch.zeros(0, dtype=torch.long, device=logits.device)
        return nothing, nothing
    cost = match_cost(logits, boxes, target)
    if many:
        return _proposals(cost, boxes, target.boxes)
    row, column = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(row).to(logits.device), torch.from_numpy(column).to(logits.device)


def _proposals(cost: Tensor, boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The few cheapest cells of each object whose predicted centre lies inside it; a cell serves its cheapest object."""
    inside = ((boxes[:, None, :2] - truth[None, :, :2]).abs() < truth[None, :, 2:] / 2).all(-1)
    cost = cost.masked_fill(~inside, 1e4)
    best = cost.topk(min(PROPOSALS_PER_OBJECT, len(cost)), dim=0, largest=False).indices
    chosen = torch.zeros_like(inside)
    chosen.scatter_(0, best, True)
    chosen &= inside
    chosen.scatter_(0, best[:1], True)  # an object with no such cell gets the cheapest of all
    chosen &= cost == cost.masked_fill(~chosen, 2e4).amin(1, keepdim=True)
    row, column = chosen.nonzero(as_tuple=True)
    return row, column


def detector_loss(model: Any, outputs: Any, tokens: int, targets: Sequence[Target]) -> Tensor:
    """All decoder layers one-to-one, the first stage (where the model has one) one-to-many.

    `outputs` are those of the `...ForObjectDetection` model for a batch that shares one caption of `tokens` tokens, unpadded.
    """
    text: Tensor = outputs.encoder_last_hidden_state_text
    total = text.new_zeros(())
    if outputs.enc_outputs_class is not None:
        proposed = outputs.enc_outputs_coord_logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).sigmoid()
        total = total + stage_loss(outputs.enc_outputs_class[..., :tokens], proposed, targets, many=True)
    reference = outputs.init_reference_points
    every = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    for layer in range(outputs.intermediate_hidden_states.shape[1]):
        hidden = outputs.intermediate_hidden_states[:, layer]
        boxes = (model.bbox_embed[layer](hidden) + torch.special.logit(reference, eps=1e-5)).sigmoid()
        logits = model.class_embed[layer](hidden, text, every)[..., :tokens]
        total = total + stage_loss(logits, boxes, targets, many=False)
        reference = outputs.intermediate_reference_points[:, layer]
    return total


def mask_loss(logits: Tensor, iou_guess: Tensor, truth: Tensor) -> Tensor:
    """Of n masks at the mask grid: cross-entropy by the object's extent, dice, and the error of the guessed IoU (n,).

    `logits` (n, h, w); `truth` (n, h, w) is the share of each cell that the object covers.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum((-2, -1))
    area = truth.sum((-2, -1)).clamp(min=4)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * truth).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + area + 1)
    with torch.no_grad():
        hard, true = logits > 0, truth > 0.5
        iou = (hard & true).sum((-2, -1)) / (hard | true).sum((-2, -1)).clamp(min=1)
    loss: Tensor = (0.25 * entropy / area.sqrt() + dice + 0.5 * (iou_guess - iou) ** 2).mean()
    return loss
