"""What the command line asks beside labelling: labels or a student against a reference, one picture, this machine."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autodistill_grounded_sam import pipeline, weights
from autodistill_grounded_sam.coco_datasets import COCO_FILE, coco_class_names, read_coco
from autodistill_grounded_sam.config import LabelConfig
from autodistill_grounded_sam.datasets import read_dataset, read_yolo, yolo_class_names
from autodistill_grounded_sam.distill.students import Student, is_student, load_student
from autodistill_grounded_sam.drawing import draw_labels
from autodistill_grounded_sam.errors import ConfigError, DatasetError, ExportError, WeightsError
from autodistill_grounded_sam.evaluate.report import evaluate_labels
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.loading import pick_device
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.places import place
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.types import DatasetImage, Evaluation, ImageRecord, Labels

STUDENT_AP_CONFIDENCE = 0.001  # AP ranks every detection: the value at which ultralytics and YOLO papers validate

_PACKAGES = (
    "autodistill-grounded-sam", "autodistill", "torch", "torchvision", "transformers", "huggingface_hub", "supervision", "numpy",
    "scipy", "pillow", "opencv-python-headless", "pycocotools", "pyarrow",
)  # fmt: skip
_OF_EXTRAS = {
    "ultralytics": "yolo",
    "matplotlib": "yolo",
    "segment-anything": "original",
    "segment-anything-hq": "original",
    "rf-groundingdino": "original",
    "timm": "omdet",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "ray": "ray",
    "universal_pathlib": "cloud",
    "gradio": "app",
    "fastapi": "app",
    "uvicorn": "app",
}


def evaluate(source: Path, truth: Path, *, images: Path | str | None = None) -> Evaluation:
    """Measure `source` against `truth`, a COCO json or a YOLO dataset.

    `source` is a run or output folder (its labels as they were decided last), a YOLO dataset (its folder, or its data.yaml), a
    COCO json or a folder of such, or a student's weights (`.pt`, `.onnx`, a folder). A student looks at the images of the
    reference: below `images`, by default in a folder `images` beside the json, or else beside it. Raises DatasetError for
    a source that is none of these.
    """
    source, truth = Path(source), Path(truth)
    command = _command(source, truth, images)
    if not source.exists():
        raise DatasetError(f"there is nothing at {source}; {_SOURCES}")
    if is_student(source):
        return _evaluate_student(source, truth, images, command)
    if _is_run(source):
        failed = [line.id for line in Store(source).failed()]
        ontology, labelled = pipeline.decided_labels(source, images)
        note = "AP is that of the labels that were kept: whatever the thresholds dropped counts as missed"
        return evaluate_labels(_rows(labelled), ontology.class_names, truth, failed=failed, notes=[note], command=command)
    if (source / "data.yaml").is_file() or source.suffix in (".yaml", ".yml"):
        return evaluate_labels(read_yolo(source), yolo_class_names(source), truth, command=command)
    if source.suffix == ".json" or any((source / split / COCO_FILE).is_file() for split in ("train", "valid")):
        return evaluate_labels(read_coco(source), coco_class_names(source), truth, command=command)
    raise DatasetError(f"{source} holds no labels; {_SOURCES}")


def predict_picture(image: Path, ontology: Any, config: LabelConfig, picture: Path) -> list[dict[str, Any]]:
    """Look at one image and write a PNG of what was found; each label as class, score, margin and `xyxy` in upright pixels.

    Raises ConfigError for a picture that is no .png or is the image itself, ExportError if it cannot be written, and what
    `read_image` raises.
    """
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"the picture must be a .png, got {picture}")
    if picture.resolve() == image.resolve():
        raise ConfigError(f"the picture {picture} would overwrite the image itself; give another --out")
    image_rgb = read_image(image, max_megapixels=config.see.max_megapixels)
    words = Ontology.load(ontology)
    labels = pipeline.look_at_one(image_rgb, pipeline.build_worker(config, words), words, config.decide)
    drawn = draw_labels(image_rgb, labels.xyxy, labels.class_id, words.class_names, labels.rle, labels.score)
    _save_png(drawn, picture)
    return [
        {
            "class": words.class_names[labels.class_id[place]],
            "score": float(labels.score[place]),
            "margin": float(labels.margin[place]),
            "xyxy": [float(value) for value in labels.xyxy[place]],
        }
        for place in range(len(labels))
    ]


def examine() -> dict[str, dict[str, Any]]:
    """What will run where, by section: machine, devices, packages, weights. Quick, and never asks the network."""
    return {"machine": _machine(), "devices": _devices(), "packages": _packages(), "weights": _weights()}


_SOURCES = (
    "expected a folder that `label` made, a YOLO dataset (a folder with data.yaml), a COCO json, "
    "or a student's weights (.pt, .onnx or a folder)"
)


def _command(source: Path, truth: Path, images: Path | str | None) -> str:
    where = [] if images is None else ["--images", str(images)]
    return shlex.join(["grounded-sam", "evaluate", str(source), "--truth", str(truth), *where])


def _is_run(source: Path) -> bool:
    return any((folder / "run.json").is_file() for folder in (source, source / "run"))


def _rows(labelled: Iterator[tuple[ImageRecord, Labels]]) -> Iterator[DatasetImage]:
    for image, labels in labelled:
        yield DatasetImage(
            path=image.path,
            name=image.id,
            split="train",  # a run has no splits; nothing here asks
            width=image.width,
            height=image.height,
            class_id=labels.class_id,
            xyxy=labels.xyxy,
            rle=labels.rle,
            score=labels.score,
        )


def _evaluate_student(source: Path, truth: Path, images: Path | str | None, command: str) -> Evaluation:
    files = _reference_images(truth, images)
    student = load_student(source)
    note = (
        f"AP ranks every prediction above confidence {STUDENT_AP_CONFIDENCE}; precision, recall, F1, mask IoU and the "
        f"confusion are those at confidence {student.usual_confidence}, its kind's default"
    )
    return evaluate_labels(
        _predicted(student, files),
        student.classes,
        truth,
        operating_score=student.usual_confidence,
        notes=[note],
        command=command,
    )


def _reference_images(truth: Path, images: Path | str | None) -> dict[str, Path]:
    """The file of each image of the reference, by its name there; all are looked for before a model is loaded."""
    home = truth if truth.is_dir() else truth.parent
    given = None if images is None else place(images)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for row in read_dataset(truth):
        below = (given or home / "images") / row.name
        path = below if given is not None or below.is_file() else row.path
        if path is None or not path.is_file():
            missing.append(row.name)
        else:
            found[row.name] = path
    if missing:
        where = str(images) if images is not None else f"{home / 'images'} and beside {truth}"
        raise DatasetError(
            f"{len(missing)} image(s) of {truth} are not in {where}, {missing[0]!r} for one; say where they are with --images"
        )
    return found


def _predicted(student: Student, files: dict[str, Path]) -> Iterator[DatasetImage]:
    import numpy as np

    for name, path in files.items():
        seen = student.predict(read_image(path), confidence=STUDENT_AP_CONFIDENCE, name=name)
        yield DatasetImage(
            path=path,
            name=name,
            split="valid",
            width=seen.width,
            height=seen.height,
            class_id=np.array([student.classes.index(of) for of in seen.class_names], np.int32),
            xyxy=seen.xyxy,
            rle=None if seen.rles is None else tuple(seen.rles),
            score=seen.scores,
        )


def _save_png(image_rgb: Any, picture: Path) -> None:
    """Write the picture under another name and rename it, so that it is there whole or not at all."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image_rgb).save(content, format="PNG")
    partial = picture.with_name(f".{picture.name}.tmp")
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.getvalue())
        partial.replace(picture)
    except OSError as error:
        raise ExportError(f"cannot write the picture {picture}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone by the rename, or never made
            partial.unlink()


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": _cores(),
        "memory": _memory(),
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB in {Path.cwd()}",
    }


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, others may not know these names
        return "unknown"


def _devices() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken build fails with anything, and that is what a doctor is asked about
        return {"auto": f"none: torch does not load ({type(error).__name__}: {error})"}
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "cpu": f"{torch.get_num_threads()} threads",
        "cuda": ", ".join(cards) or "none",
        "mps": "available" if torch.backends.mps.is_available() else "none",
        "auto": pick_device("auto"),
    }


def _packages() -> dict[str, Any]:
    needed = {name: _version(name) or "missing: pip install autodistill-grounded-sam" for name in _PACKAGES}
    extras = {
        name: _version(name) or f"missing: pip install 'autodistill-grounded-sam[{extra}]'" for name, extra in _OF_EXTRAS.items()
    }
    return {**needed, **extras}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _weights() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in weights.known_models():
        key = f"{model.name} ({model.role})"
        try:
            found[key] = f"here: {weights.find_weights(model.name, model.role, offline=True).path}"
        except WeightsError as error:
            bring = f"not here: `grounded-sam prefetch {model.name}` brings it ({model.size})"
            found[key] = f"not here: {error}" if model.name == "mini" else bring
    return found
