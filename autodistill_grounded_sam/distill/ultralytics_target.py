"""Students of ultralytics (YOLOv8, 11, 26, RT-DETR, ...; boxes or `-seg`): train one on a dataset, predict with it."""

from __future__ import annotations

import contextlib
import difflib
import logging
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.distill.prediction import MOST_OBJECTS, StudentPrediction
from autodistill_grounded_sam.distill.ultralytics_setup import (
    build_model,
    first_line,
    quiet_ultralytics,
    stays_offline,
)
from autodistill_grounded_sam.distill.yolo_dataset import YoloDataset, check_yolo_dataset
from autodistill_grounded_sam.errors import ConfigError, DatasetError, MissingExtraError, WeightsError
from autodistill_grounded_sam.loading import pick_device
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.protocols import OnEpoch
from autodistill_grounded_sam.types import RgbImage, TrainResult

logger = logging.getLogger(__name__)

DEFAULT_SIDE_PX = 640  # that of their pretrained weights
_LEAST = {"epochs": 1, "imgsz": 32, "batch": 1}  # 32: the stride of these models, so of less nothing would be left
_OWN_SETTINGS = ("data", "project", "name", "save_dir", "mode", "task", "model", "exist_ok", "resume", "cfg")
_FIGURES = {"precision": "precision", "recall": "recall", "mAP50": "mAP50", "mAP50-95": "mAP50_95"}
_FLAGS = {"batch": "batch-size"}  # where the command line has another word
_MAX_MASK_PIXELS = 4_000_000  # 100 masks of a larger picture would fill the memory; a student sees 640 px of it anyway


class UltralyticsTarget:
    """Any detection or segmentation model that ultralytics names: `yolov8n-seg.pt`, `yolo11n`, `rtdetr-l.yaml`, a local `.pt`.

    A name with `.yaml` starts from random weights. Any other starts from pretrained weights: the file if there is one, else
    ultralytics' own release; where that cannot be had (offline, download failed) from random weights, with a warning.
    """

    about = (
        About(
            "yolov8n-seg.pt",
            "trained at a tiny size, weights loaded back (`tests/distill/test_ultralytics_target.py`, `make demo`)",
            "any model of ultralytics",
            licence="AGPL-3.0, or one of Ultralytics'",
            needs="extra [yolo]",
        ),
    )

    def __init__(self, model: str = "yolov8n-seg.pt", *, offline: bool | None = None) -> None:
        self.model = str(model)
        self._offline = offline

    def train(
        self,
        dataset: Path,
        *,
        out: Path,
        epochs: int = 50,
        imgsz: int | None = None,
        batch: int = 16,
        seed: int = 0,
        device: str = "auto",
        on_epoch: OnEpoch | None = None,
        **settings: Any,
    ) -> TrainResult:
        """Train on a YOLO dataset (its folder or data.yaml); weights go to `out/best.pt`, all the rest below `out/ultralytics`.

        `settings` are ultralytics' own (`patience`, `lr0`, `mosaic`, ...). Figures are those of the best epoch on the dataset's
        validation split. Raises DatasetError for a dataset that this student cannot learn from, ConfigError for an unknown
        model or a wrong setting, WeightsError for weights that do not load, MissingExtraError without ultralytics.
        """
        imgsz = DEFAULT_SIDE_PX if imgsz is None else imgsz
        _check_sizes(epochs=epochs, imgsz=imgsz, batch=batch)
        data = check_yolo_dataset(Path(dataset))
        out = Path(out).resolve()
        offline = stays_offline(self._offline)
        command = _command(
            self.model, Path(dataset), out, epochs=epochs, imgsz=imgsz, batch=batch, seed=seed, device=device, settings=settings
        )
        with quiet_ultralytics(f"target {self.model!r}"):
            _check_settings(settings)
            model, started_from = build_model(self.model, offline)
            _check_labels_fit(data, model.task, self.model)
            _follow(model, epochs, on_epoch)
            device = pick_device(device)
            defaults = {"workers": 0 if device in ("cpu", "mps") else 4, "plots": False, "verbose": False}
            with _label_caches_removed(data), _bad_start_told(model):
                model.train(
                    **{**defaults, **settings},
                    data=str(_write_data_yaml(data, out)),
                    epochs=epochs,
                    imgsz=imgsz,
                    batch=batch,
                    seed=seed,
                    device=device,
                    project=str(out),
                    name="ultralytics",
                    exist_ok=True,
                )
            best = Path(model.trainer.best if model.trainer.best.exists() else model.trainer.last)
            figures = _figures(model.metrics.results_dict)
        weights = out / "best.pt"
        best.replace(weights)
        logger.info("trained %s from %s: %s", weights, started_from, figures)
        return TrainResult(weights, started_from, figures, command)


class UltralyticsStudent:
    """Trained weights, ready to predict. `weights` is a `.pt` file or the name of a model that can be had pretrained."""

    usual_confidence = 0.25  # ultralytics' default

    def __init__(self, weights: str | Path, *, device: str = "auto", offline: bool | None = None) -> None:
        forbidden = stays_offline(offline)
        with quiet_ultralytics(f"student {str(weights)!r}"):
            self._model, started_from = build_model(str(weights), forbidden)
        if not started_from.startswith("pretrained"):
            raise WeightsError(
                f"{str(weights)!r} has no trained weights to predict with: {started_from}; train it, or name a .pt file"
            )
        self._device = pick_device(device)
        self.classes: list[str] = [str(name) for _, name in sorted(self._model.names.items())]

    def predict(
        self, image_rgb: RgbImage, *, confidence: float = 0.25, imgsz: int | None = None, name: str = ""
    ) -> StudentPrediction:
        """Predict on one upright RGB image; at most 100 objects, as COCO counts them. `imgsz` None: as it was trained."""
        height, width = image_rgb.shape[:2]
        shrink = min(1.0, (_MAX_MASK_PIXELS / (height * width)) ** 0.5)
        seen = _resized(image_rgb, max(1, round(width * shrink)), max(1, round(height * shrink))) if shrink < 1 else image_rgb
        size = {} if imgsz is None else {"imgsz": imgsz}
        with quiet_ultralytics("prediction"):
            result = self._model.predict(
                np.ascontiguousarray(seen[:, :, ::-1]),
                conf=confidence,
                max_det=MOST_OBJECTS,
                retina_masks=True,
                device=self._device,
                verbose=False,
                save=False,
                **size,
            )[0]
        boxes = result.boxes.cpu().numpy()
        scale = np.array([width / seen.shape[1], height / seen.shape[0]] * 2, np.float32)
        rles = None
        if self._model.task == "segment":
            dense = [] if result.masks is None else result.masks.data.cpu().numpy().astype(np.uint8)
            rles = [encode_mask(mask if shrink == 1 else _resized(mask, width, height)) for mask in dense]
        return StudentPrediction(
            name,
            width,
            height,
            [self.classes[int(i)] for i in boxes.cls],
            (boxes.xyxy * scale).astype(np.float32).reshape(-1, 4),
            rles,
            boxes.conf.astype(np.float32),
        )

    def export(self, form: str) -> Path:
        """Write the weights beside themselves in a form of ultralytics (onnx, openvino, ...), by ultralytics."""
        with quiet_ultralytics("export"):
            try:
                return Path(self._model.export(format=form, verbose=False))
            except ImportError as error:
                raise MissingExtraError("the export to ONNX", extra="onnx") from error


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < _LEAST[name]:
            raise ConfigError(f"{name} must be {_LEAST[name]} or more, got {value}; set it with --{_FLAGS.get(name, name)}")


def _check_settings(settings: Mapping[str, Any]) -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import DEFAULT_CFG_DICT

    for name in settings:
        if name in _OWN_SETTINGS:
            raise ConfigError(f"setting {name!r} is filled in by train() itself; leave it out")
        if name not in DEFAULT_CFG_DICT:
            near = difflib.get_close_matches(name, DEFAULT_CFG_DICT, n=3)
            raise ConfigError(
                f"ultralytics has no training setting {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
            )
    try:
        get_cfg(overrides=dict(settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"wrong training setting: {first_line(error)}") from error


def _check_labels_fit(data: YoloDataset, task: str, target: str) -> None:
    if task not in ("detect", "segment"):
        raise ConfigError(f"target {target!r} is a model for {task!r}; expected one for boxes (yolov8n) or masks (yolov8n-seg)")
    if task == "segment" and data.file_with_boxes:
        raise DatasetError(
            f"target {target!r} learns masks, but the dataset holds boxes ({data.file_with_boxes}); "
            f"take {target.replace('-seg', '')!r}, or export polygons with --format yolo-seg"
        )


def _follow(model: Any, epochs: int, on_epoch: OnEpoch | None) -> None:
    """Report every epoch, and give the threads back that ultralytics takes from torch (it leaves one of two cores)."""
    import torch

    threads = torch.get_num_threads()

    def report(trainer: Any) -> None:
        measured = trainer.args.val or trainer.epoch + 1 >= trainer.epochs  # else its metrics are placeholders of zero
        figures = _figures(trainer.metrics or {}) if measured else {}
        logger.info("epoch %d/%d %s", trainer.epoch + 1, epochs, figures)
        if on_epoch is not None:
            on_epoch(trainer.epoch + 1, epochs, figures)

    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(threads))
    model.add_callback("on_fit_epoch_end", report)


@contextlib.contextmanager
def _bad_start_told(model: Any) -> Iterator[None]:
    """What ultralytics refuses before its first epoch (a device that is not there, an unknown optimizer) is a wrong setting."""
    started = False

    def start(trainer: Any) -> None:
        nonlocal started
        started = True

    model.add_callback("on_train_start", start)
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        if started:
            raise
        raise ConfigError(f"ultralytics does not start with these settings: {first_line(error)}") from error


@contextlib.contextmanager
def _label_caches_removed(data: YoloDataset) -> Iterator[None]:
    """Take away the `labels.cache` files that ultralytics leaves in a dataset, unless they were there before."""
    labels = {folder.parent for folder in (*data.train, *data.valid)}
    before = {cache for folder in labels for cache in folder.glob("*.cache")}
    try:
        yield
    finally:
        for cache in {cache for folder in labels for cache in folder.glob("*.cache")} - before:
            cache.unlink(missing_ok=True)


def _write_data_yaml(data: YoloDataset, out: Path) -> Path:
    """A yaml of our own: folders absolute, nothing to download (ultralytics would execute it), no `masks` folder beside it."""
    import yaml

    out.mkdir(parents=True, exist_ok=True)
    content = {
        "train": [str(folder) for folder in data.train],
        "val": [str(folder) for folder in data.valid],
        "names": dict(enumerate(data.classes)),
    }
    file = out / "data.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def _figures(results: Mapping[str, float]) -> dict[str, float]:
    """`metrics/mAP50-95(M)` becomes `mask_mAP50_95`; losses and fitness are left out."""
    kinds = {"B": "box", "M": "mask"}
    return {
        f"{kind}_{name}": round(float(results[f"metrics/{theirs}({letter})"]), 5)
        for letter, kind in kinds.items()
        for theirs, name in _FIGURES.items()
        if f"metrics/{theirs}({letter})" in results
    }


def _command(model: str, dataset: Path, out: Path, **options: Any) -> str:
    words = ["grounded-sam", "distill", str(dataset), "--target", model, "--out", str(out)]
    settings = options.pop("settings")
    for name, value in options.items():
        words += [f"--{_FLAGS.get(name, name)}", str(value)]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def _resized(image: np.ndarray[Any, np.dtype[np.uint8]], width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    import cv2

    way = cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, (width, height), interpolation=way))
