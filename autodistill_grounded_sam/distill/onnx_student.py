"""A student as one ONNX file: written with its class names and input inside, and read back by onnxruntime alone."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.distill.detr_answers import USUAL_CONFIDENCE, Raw, predicted
from autodistill_grounded_sam.distill.detr_models import Detr, Inputs
from autodistill_grounded_sam.distill.prediction import StudentPrediction
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, WeightsError
from autodistill_grounded_sam.types import RgbImage

OPSET = 17  # the lowest with all that these models need (grid_sample is of 16, LayerNormalization of 17)
_INPUT, _OUTPUTS = "pixel_values", ("logits", "pred_boxes", "pred_masks")  # the last of models that make masks
_ABOUT = "grounded-sam"  # the key of the metadata


def write_onnx(detr: Detr, file: Path) -> Path:
    """Write the model for one picture of its input size. Raises MissingExtraError without onnx."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("the export to ONNX", extra="onnx") from error
    import torch

    names = _OUTPUTS if detr.makes_masks else _OUTPUTS[:2]
    side = detr.inputs.side_px
    unfinished = file.with_name(f".{file.name}.partial")
    with _fixed_positions(detr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: that sizes become constants, which is meant
        # Not dynamo=True: that (torch 2.14) cannot convert D-FINE, and needs onnxscript.
        torch.onnx.export(
            _plain(detr.model, names), (torch.zeros(1, 3, side, side, device=detr.model.device),), str(unfinished), dynamo=False,
            opset_version=OPSET, input_names=[_INPUT], output_names=list(names),
        )  # fmt: skip
    content = onnx.load(str(unfinished))
    about = {"classes": detr.classes, **detr.inputs._asdict()}
    content.metadata_props.add(key=_ABOUT, value=json.dumps(about))
    onnx.save(content, str(unfinished))
    unfinished.replace(file)
    return file


@contextlib.contextmanager
def _fixed_positions(detr: Detr) -> Iterator[None]:
    """RF-DETR's positions at the size of the input, as a constant: traced, it would resize them in a way that ONNX has not."""
    import torch

    places = [module for module in detr.model.modules() if type(module).__name__ == "RfDetrDinov2Embeddings"]
    for embeddings in places:
        side = detr.inputs.side_px
        cells = torch.zeros(1, (side // embeddings.patch_size) ** 2 + 1, embeddings.position_embeddings.shape[-1])
        with torch.no_grad():
            fixed = embeddings.interpolate_pos_encoding(cells, side, side)
        embeddings.interpolate_pos_encoding = partial(_constant, fixed)
    try:
        yield
    finally:
        for embeddings in places:
            del embeddings.interpolate_pos_encoding


def _constant(value: Any, *_: Any) -> Any:
    return value


def _plain(model: Any, names: tuple[str, ...]) -> Any:
    """The model as a function of pixels to a tuple of tensors."""
    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self.model(pixel_values=pixel_values)
            return tuple(outputs[name] for name in names)

    return Plain().eval()


class OnnxStudent:
    """A file that `DetrStudent.export` wrote."""

    usual_confidence = USUAL_CONFIDENCE

    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(f"student {file}", extra="onnx") from error
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=onnxruntime.get_available_providers())
            about = json.loads(self._session.get_modelmeta().custom_metadata_map[_ABOUT])
        except KeyError as error:
            raise WeightsError(f"{file} was not written by this tool: it does not say its classes and input") from error
        except Exception as error:  # onnxruntime's own kinds, of a damaged file
            raise WeightsError(f"{file} does not load as ONNX: {str(error).splitlines()[0]}") from error
        self.classes: list[str] = about["classes"]
        self._inputs = Inputs(about["side_px"], tuple(about["mean"]), tuple(about["std"]), about["smooth"])

    def predict(
        self, image_rgb: RgbImage, *, confidence: float = USUAL_CONFIDENCE, imgsz: int | None = None, name: str = ""
    ) -> StudentPrediction:
        """As `DetrStudent.predict`; the size of the input is in the file, so `imgsz` may only name that one."""
        if imgsz not in (None, self._inputs.side_px):
            raise ConfigError(f"this file was written for imgsz {self._inputs.side_px}, got {imgsz}; export the student anew")
        pixels = self._inputs.normalised(self._inputs.pixels(image_rgb)[None]).numpy()
        outputs = [np.asarray(output[0], np.float32) for output in self._session.run(None, {_INPUT: pixels})]
        return predicted(Raw(*outputs, *[None] * (3 - len(outputs))), image_rgb, self.classes, confidence, name)

    def export(self, form: str) -> Path:
        """It is exported already."""
        raise ConfigError(f"a student in ONNX cannot be exported again (to {form}); export the folder that it was made from")
