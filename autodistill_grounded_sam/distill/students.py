"""Trained students of every kind, to predict with: what each can do, and which one some weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from autodistill_grounded_sam.distill.choosing import is_ultralytics
from autodistill_grounded_sam.distill.prediction import StudentPrediction
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.types import RgbImage, TrainResult


class Student(Protocol):
    """Trained weights, ready to predict: `classes` by class id; `usual_confidence` is the one its kind commonly predicts with."""

    classes: list[str]
    usual_confidence: float

    def predict(
        self, image_rgb: RgbImage, *, confidence: float = 0.25, imgsz: int | None = None, name: str = ""
    ) -> StudentPrediction:
        """What is seen in one upright RGB image; at most 100 objects. `imgsz` None: as it was trained."""

    def export(self, form: str) -> Path:
        """Write the student beside its weights in another form (`onnx`) and return the file."""


def is_student(path: Path) -> bool:
    """Whether a path holds weights of a student: a `.pt` or `.onnx` file, or a folder of transformers."""
    if path.is_dir():
        return (path / "config.json").is_file() and any(path.glob("*.safetensors"))
    return path.suffix in (".pt", ".onnx") and path.is_file()


def load_student(weights: str | Path, *, device: str = "auto", offline: bool | None = None) -> Student:
    """The student of some weights: a `.pt` file (or a name of ultralytics), a folder or hub id of transformers, a `.onnx` file.

    Raises WeightsError where there are none, or none that were trained; MissingExtraError for a kind that is not installed.
    """
    if is_ultralytics(str(weights)):
        from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsStudent

        return UltralyticsStudent(weights, device=device, offline=offline)
    if Path(weights).suffix == ".onnx":
        if not Path(weights).is_file():
            raise WeightsError(f"there is no file {weights}; a student writes it with `grounded-sam distill ... --onnx`")
        from autodistill_grounded_sam.distill.onnx_student import OnnxStudent

        return OnnxStudent(Path(weights))
    from autodistill_grounded_sam.distill.detr_student import DetrStudent

    return DetrStudent(weights, device=device, offline=offline)


def exported(result: TrainResult, form: str) -> TrainResult:
    """The result with the student written in another form (`onnx`) beside its weights."""
    return replace(result, exported=load_student(result.weights, device="cpu", offline=True).export(form))


def predict_folder(
    weights: str | Path,
    images: Sequence[Path],
    *,
    read: Callable[[Path], RgbImage] = read_image,
    root: Path | None = None,
    confidence: float = 0.001,
    imgsz: int | None = None,
    device: str = "auto",
) -> Iterator[StudentPrediction]:
    """Predict on files one by one, in order; named relative to `root`, or by file name. `read` gives upright RGB.

    The low default confidence is that of COCO evaluation, which ranks every detection.
    """
    student = load_student(weights, device=device)
    for path in images:
        name = path.relative_to(root).as_posix() if root else path.name
        yield student.predict(read(path), confidence=confidence, imgsz=imgsz, name=name)
