"""The detector's loss, on the public outputs of `GroundingDinoForObjectDetection`.

transformers' own `labels=` path cannot train from nothing: its two-stage head gets no gradient, since the first-stage boxes
are detached and the first-stage logits come from learnt queries. So: one-to-one matching for each decoder layer (DETR),
one-to-many for the first stage, focal loss over tokens as Grounding DINO has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional
from torchvision.ops import box_convert, generalized_box_iou_loss

FOCAL_ALPHA = 0.5  # 0.25 leaves the scores of good boxes near 0.25; with 0.5 the classic threshold 0.35 fits
FOCAL_GAMMA = 2.0
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
PROPOSALS_PER_OBJECT = 4


def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = probability + targets - 2 * probability * targets  # 1 - p_t for hard targets
    weight = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return weight * miss**FOCAL_GAMMA * entropy


def match_cost(logits: torch.Tensor, boxes: torch.Tensor, tokens: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cost (queries, objects) of naming and placing; `logits` (q, T), `boxes` cxcywh (q, 4), `tokens` (o, T), `truth` (o, 4)."""
    probability = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-8).log()
    negative = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-8).log()
    share = tokens / tokens.sum(1, keepdim=True).clamp(min=1)
    naming = (positive - negative) @ share.T
    first, second = box_convert(boxes, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy")
    corner = torch.maximum(first[:, None, :2], second[None, :, :2])
    shared = (torch.minimum(first[:, None, 2:], second[None, :, 2:]) - corner).clamp(min=0).prod(-1)
    area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])  # noqa: E731
    union = area(first)[:, None] + area(second)[None] - shared
    low = torch.minimum(first[:, None, :2], second[None, :, :2])
    hull = (torch.maximum(first[:, None, 2:], second[None, :, 2:]) - low).prod(-1).clamp(min=1e-7)
    giou = shared / union.clamp(min=1e-7) - (hull - union) / hull
    return CLASS_WEIGHT * naming + L1_WEIGHT * torch.cdist(boxes, truth, p=1) - GIOU_WEIGHT * giou


def stage_loss(
    logits: torch.Tensor, boxes: torch.Tensor, targets: list[tuple[torch.Tensor, torch.Tensor]], many: bool
) -> torch.Tensor:
    """Loss of one prediction stage over a batch; `targets` a list of (tokens (o, T), truth boxes (o, 4))."""
    with torch.no_grad():
        rows, columns, images = [], [], []
        for k, (tokens, truth) in enumerate(targets):
            if not len(truth):
                continue
            cost = match_cost(logits[k], boxes[k], tokens, truth)
            if many:
                row, column = _proposals(cost, boxes[k], truth)
            else:
                row, column = (torch.from_numpy(part) for part in linear_sum_assignment(cost.numpy()))
            rows.append(row)
            columns.append(column)
            images.append(torch.full_like(row, k))
    wanted = torch.zeros_like(logits)
    objects = sum(len(row) for row in rows)
    if not objects:
        return focal(logits, wanted).sum()
    image, row = torch.cat(images), torch.cat(rows)
    wanted[image, row] = torch.cat([targets[int(k[0])][0][c] for k, c in zip(images, columns, strict=True)])
    truth = torch.cat([targets[int(k[0])][1][c] for k, c in zip(images, columns, strict=True)])
    found = boxes[image, row]
    giou = generalized_box_iou_loss(box_convert(found, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"), reduction="sum")
    placing = L1_WEIGHT * (found - truth).abs().sum() + GIOU_WEIGHT * giou
    return (CLASS_WEIGHT * focal(logits, wanted).sum() + placing) / objects


def _proposals(cost: torch.Tensor, boxes: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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


def detector_loss(model: Any, outputs: Any, tokens: int, targets: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """All decoder layers one-to-one, the first stage one-to-many."""
    text = outputs.encoder_last_hidden_state_text
    total = stage_loss(
        outputs.enc_outputs_class[..., :tokens], outputs.enc_outputs_coord_logits.clamp(-12, 12).sigmoid(), targets, many=True
    )
    reference = outputs.init_reference_points
    layers = outputs.intermediate_hidden_states.shape[1]
    for layer in range(layers):
        hidden = outputs.intermediate_hidden_states[:, layer]
        boxes = (model.bbox_embed[layer](hidden) + torch.special.logit(reference, eps=1e-5)).sigmoid()
        total = total + stage_loss(hidden @ text.transpose(1, 2), boxes, targets, many=False)
        reference = outputs.intermediate_reference_points[:, layer]
    return total


def targets_of(pairs: np.ndarray, boxes: np.ndarray, answers: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and cxcywh boxes of the objects that the caption asks for, by image."""
    result = []
    for row, box in zip(pairs, boxes, strict=True):
        present = row[:, 0] >= 0
        tokens = answers(row[present]).astype(np.float32)
        asked = tokens.any(1)
        truth = box_convert(torch.from_numpy(box[present][asked]), "xyxy", "cxcywh")
        result.append((torch.from_numpy(tokens[asked]), truth))
    return result
