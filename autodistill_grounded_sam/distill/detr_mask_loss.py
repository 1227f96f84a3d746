"""RF-DETR's loss for masks: transformers' own parts, matched an image at a time.

transformers' (5.24) matches masks at `batch * queries * 4 / 16` points, where the authors mean a sixteenth of the cells of a mask
(it reads the shape of the boxes for that of the masks), for all images against each other: with RF-DETR-Seg-Medium and 16 images
that is a table of 41,600 x 10,400 numbers, several times. Matched an image at a time the same code takes 650 points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.loss.loss_rf_detr import RfDetrHungarianMatcher, RfDetrImageLoss

Target = dict[str, Tensor]  # class_labels (n,), boxes (n, 4) cxcywh as shares, masks (n, side, side) where they are learnt


class _Matcher(RfDetrHungarianMatcher):  # type: ignore[misc]
    """transformers' matcher, an image at a time."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Sequence[Target], group_detr: int) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        for place, target in enumerate(targets):
            if len(target["class_labels"]):
                one = {name: outputs[name][place : place + 1] for name in ("logits", "pred_boxes", "pred_masks")}
                found += super().forward(one, [target], group_detr)
            else:
                found.append((torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)))
        return found


def mask_loss(
    logits: Tensor,
    labels: Sequence[Target],
    device: Any,
    pred_boxes: Tensor,
    pred_masks: Tensor,
    config: Any,
    outputs_class: Tensor,
    outputs_coord: Tensor,
    outputs_masks: Sequence[Tensor],
    enc_outputs_class: Tensor,
    enc_outputs_coord: Tensor,
    enc_outputs_masks: Tensor,
    **_: Any,
) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Tensor]]]:
    """In the place of transformers' RfDetrForSegmentationLoss: every decoder layer and the encoder's proposals count."""
    ratio = config.mask_point_sample_ratio
    matcher = _Matcher(
        class_cost=config.class_cost,
        bbox_cost=config.bbox_cost,
        giou_cost=config.giou_cost,
        mask_point_sample_ratio=ratio,
        cost_mask_class_cost=config.mask_class_loss_coefficient,
        cost_mask_dice_cost=config.mask_dice_loss_coefficient,
    )
    parts = ["labels", "boxes", "masks"]
    criterion = RfDetrImageLoss(matcher, config.num_labels, config.focal_alpha, parts, config.group_detr, ratio)
    layers = [_layer(*layer) for layer in zip(outputs_class, outputs_coord, outputs_masks, strict=True)]
    encoder = _layer(enc_outputs_class, enc_outputs_coord, enc_outputs_masks)
    losses = criterion({**layers[-1], "auxiliary_outputs": layers[:-1], "enc_outputs": encoder}, labels)
    weights = {
        "loss_ce": config.class_loss_coefficient,
        "loss_bbox": config.bbox_loss_coefficient,
        "loss_giou": config.giou_loss_coefficient,
        "loss_mask_ce": config.mask_class_loss_coefficient,
        "loss_mask_dice": config.mask_dice_loss_coefficient,
    }
    total = logits.new_zeros(())
    for name, value in losses.items():  # loss_mask_ce, of an earlier layer loss_mask_ce_0, of the encoder loss_mask_ce_enc
        of = name if name in weights else name.rpartition("_")[0]
        total = total + weights[of] * value.sum()  # of no object a mask's loss is an empty tensor
    return total, losses, layers[:-1]


def _layer(logits: Tensor, boxes: Tensor, masks: Tensor) -> dict[str, Tensor]:
    return {"logits": logits, "pred_boxes": boxes, "pred_masks": masks}
