"""A trained detection transformer, ready to predict, and its export to ONNX."""

from __future__ import annotations

from pathlib import Path

from autodistill_grounded_sam.distill.detr_answers import USUAL_CONFIDENCE, answer, predicted
from autodistill_grounded_sam.distill.detr_models import trained_model
from autodistill_grounded_sam.distill.onnx_student import write_onnx
from autodistill_grounded_sam.distill.prediction import StudentPrediction
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.types import RgbImage


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
        if form != "onnx":
            raise ConfigError(f"this student can be exported to onnx, got {form!r}")
        return write_onnx(self._detr, self._home.with_name(f"{self._home.name}.onnx"))
