"""A trained detection transformer, ready to predict, and its export to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from autodistill_grounded_sam.distill.detr_models import Detr, trained_model
from autodistill_grounded_sam.distill.students import MOST_OBJECTS, StudentPrediction
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Float32, RgbImage, Rle

USUAL_CONFIDENCE = 0.5  # what RF-DETR, D-FINE and RT-DETR predict with


class Raw(NamedTuple):
    """What a model answers to one picture: `logits` (queries, classes), `boxes` (queries, 4) cxcywh as shares of its sides,
    `masks` (queries, h, w) logits or None."""

    logits: Float32
    boxes: Float32
    masks: Float32 | None


class DetrStudent:
    """Trained weights of transformers: a folder that `distill` wrote, or a hub id."""

    usual_confidence = USUAL_CONFIDENCE

    def __init__(self, weights: str | Path, *, device: str = "auto", offline: bool | None = None) -> None:
        self._detr = trained_model(str(weights), offline=bool(offline))
        self._device = usable_device(device)
        self._detr.model.to(self._device).eval()
        self.classes = self._detr.classes
        self._home = Path(weights)

    def predict(
        self, image_rgb: RgbImage, *, confidence: float = USUAL_CONFIDENCE, imgsz: int | None = None, name: str = ""
    ) -> StudentPrediction:
        """Predict on one upright RGB image; at most 100 objects, as COCO counts them. `imgsz` None: as it was trained."""
        detr = self._detr if imgsz is None else self._detr._replace(inputs=self._detr.inputs._replace(side_px=imgsz))
        return predicted(answer(detr, image_rgb), image_rgb, self.classes, confidence, name)

    def export(self, form: str) -> Path:
        """Write `<folder>.onnx` beside the folder. Raises ConfigError for another form, MissingExtraError without onnx."""
        from autodistill_grounded_sam.distill.onnx_student import write_onnx

        if form != "onnx":
            raise ConfigError(f"this student can be exported to onnx, got {form!r}")
        return write_onnx(self._detr, self._home.with_name(f"{self._home.name}.onnx"))


def answer(detr: Detr, image_rgb: RgbImage) -> Raw:
    """What a model in memory, which must be in eval mode, answers to one picture."""
    pixels = detr.inputs.pixels(image_rgb).to(detr.model.device)
    with torch.inference_mode():
        outputs = detr.model(pixel_values=detr.inputs.normalised(pixels[None]))
    masks = outputs.pred_masks[0].float().cpu().numpy() if detr.makes_masks else None
    return Raw(outputs.logits[0].float().cpu().numpy(), outputs.pred_boxes[0].float().cpu().numpy(), masks)


def predicted(raw: Raw, image_rgb: RgbImage, classes: list[str], confidence: float, name: str) -> StudentPrediction:
    """The best pairs of query and class that score above `confidence`, in pixels of the image."""
    height, width = image_rgb.shape[:2]
    scores = 1 / (1 + np.exp(-raw.logits.astype(np.float64)))
    best = np.argsort(-scores, axis=None, kind="stable")[:MOST_OBJECTS]
    best = best[scores.flat[best] > confidence]
    query, class_id = np.divmod(best, scores.shape[1])
    centre, half = raw.boxes[query, :2], raw.boxes[query, 2:] / 2
    xyxy = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1) * np.array([width, height] * 2)
    rles = None if raw.masks is None else [_rle(mask, width, height) for mask in raw.masks[query]]
    return StudentPrediction(
        name,
        width,
        height,
        [classes[place] for place in class_id],
        xyxy.astype(np.float32).reshape(-1, 4),
        rles,
        scores.flat[best].astype(np.float32),
    )


def _rle(logits: npt.NDArray[Any], width: int, height: int) -> Rle:
    """One mask at a time at the size of the picture, so that a hundred of a large one never fill the memory."""
    import cv2

    return encode_mask(cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0)
