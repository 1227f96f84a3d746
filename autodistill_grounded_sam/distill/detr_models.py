"""The detection transformers that learn as students: by which names they go, how they load, what their input is.

RF-DETR (boxes or masks), D-FINE, RT-DETR and RT-DETRv2 of transformers. All of them see a square: the whole picture, stretched.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from autodistill_grounded_sam.errors import ConfigError, WeightsError
from autodistill_grounded_sam.loading import quiet_loading
from autodistill_grounded_sam.types import RgbImage
from autodistill_grounded_sam.weights import find_weights

# By which names people ask, and the hub's. Any other repository or folder of these kinds may be named as well.
PRETRAINED: Mapping[str, str] = {
    **{f"rf-detr-{size}": f"Roboflow/rf-detr-{size}" for size in ("nano", "small", "medium", "base", "large")},
    **{f"rf-detr-seg-{size}": f"Roboflow/rf-detr-seg-{size}" for size in ("nano", "small", "medium", "large")},
    **{f"d-fine-{size[0]}": f"ustc-community/dfine-{size}-coco" for size in ("nano", "small", "medium", "large", "xlarge")},
    **{f"rt-detr-r{depth}": f"PekingU/rtdetr_r{depth}vd" for depth in (18, 34, 50, 101)},
    **{f"rt-detr-v2-r{depth}": f"PekingU/rtdetr_v2_r{depth}vd" for depth in (18, 34, 50, 101)},
}
# Tiny ones of the same kinds, for trials: they start from random weights and so need no network.
MINI = ("rf-detr-mini", "rf-detr-seg-mini", "d-fine-mini", "rt-detr-mini")
# By the `model_type` of config.json: the classes of transformers for boxes and for masks.
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "rf_detr": ("RfDetrForObjectDetection", "RfDetrForInstanceSegmentation"),
    "d_fine": ("DFineForObjectDetection",),
    "rt_detr": ("RTDetrForObjectDetection",),
    "rt_detr_v2": ("RTDetrV2ForObjectDetection",),
}
DEFAULT_SIDE_PX = 640  # where neither the caller nor a folder says: what D-FINE and RT-DETR were made for
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Inputs(NamedTuple):
    """What a model sees: a square of `side_px`, its values 0..1 less `mean`, over `std`; `smooth` where shrinking averages, which
    RF-DETR's authors leave out."""

    side_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    smooth: bool

    def pixels(self, image_rgb: RgbImage) -> Tensor:
        """(height, width, 3) uint8 to (3, side, side) uint8, as transformers' image processors resize."""
        pixels = torch.from_numpy(np.ascontiguousarray(image_rgb)).permute(2, 0, 1)[None]
        return interpolate(pixels, (self.side_px,) * 2, mode="bilinear", align_corners=False, antialias=self.smooth)[0]

    def normalised(self, pixels: Tensor) -> Tensor:
        """(n, 3, side, side) uint8 to the model's float32."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


class Detr(NamedTuple):
    """A model in memory with its input; `started_from` says in words where its weights are from."""

    model: Any
    inputs: Inputs
    started_from: str

    @property
    def makes_masks(self) -> bool:
        return type(self.model).__name__.endswith("ForInstanceSegmentation")

    @property
    def classes(self) -> list[str]:
        return [str(name) for _, name in sorted((int(place), name) for place, name in self.model.config.id2label.items())]


def model_to_train(name: str, class_names: Sequence[str], side_px: int | None, *, offline: bool) -> Detr:
    """The model of a name with a head for these classes, and its own input size where `side_px` is None.

    A folder that holds a config.json and no weights gives that architecture with random weights. Raises ConfigError for an
    unknown name or a size that does not fit, WeightsError where weights are missing or of another kind.
    """
    labels = {"id2label": dict(enumerate(class_names)), "label2id": {label: place for place, label in enumerate(class_names)}}
    if name in MINI:
        from autodistill_grounded_sam.distill.detr_mini import MINI_SIDE_PX, mini_config

        side_px = side_px or MINI_SIDE_PX
        try:
            config, with_masks = mini_config(name, side_px, labels)
        except ImportError as error:
            raise WeightsError(_too_old(name)) from error
        return Detr(_built(config, with_masks), _inputs_of({}, config, side_px), f"random weights, architecture {name}")
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        folder = _found(name, offline)
    settings = _settings(folder)
    kind, with_masks = _class_of(settings, folder)
    if not any(folder.glob("*.safetensors")):
        config = kind.config_class.from_pretrained(folder, **labels)
        config.freeze_backbone_batch_norms = False  # frozen, they would pass on what random weights make of it as it is
        started_from = f"random weights, architecture {folder}"
        return Detr(_built(config, with_masks), _inputs_of(_processor(folder), config, side_px), started_from)
    with quiet_loading():
        model = kind.from_pretrained(folder, **labels, ignore_mismatched_sizes=True, dtype=torch.float32)
    return Detr(model, _inputs_of(_processor(folder), model.config, side_px), f"pretrained weights {folder}")


def trained_model(name: str, *, offline: bool) -> Detr:
    """The model of a name, a folder or a hub id with the classes that it was trained on. Raises as `model_to_train`."""
    if name in MINI:
        raise WeightsError(f"{name!r} has no trained weights to predict with; train it, or name the folder `best` of a student")
    folder = _found(name, offline)
    kind, _ = _class_of(_settings(folder), folder)
    with quiet_loading():
        model = kind.from_pretrained(folder, dtype=torch.float32)
    return Detr(model, _inputs_of(_processor(folder), model.config, None), f"pretrained weights {folder}")


def save(folder: Path, detr: Detr) -> None:
    """Write a folder that transformers' AutoModel and AutoImageProcessor read, and this tool."""
    import transformers

    with quiet_loading():
        detr.model.save_pretrained(folder)
    side, mean, std, _ = detr.inputs
    kind = "RfDetrImageProcessor" if detr.model.config.model_type == "rf_detr" else "RTDetrImageProcessor"
    processor = getattr(transformers, kind)(
        size={"height": side, "width": side}, do_normalize=True, image_mean=list(mean), image_std=list(std)
    )
    processor.save_pretrained(folder)


def _found(name: str, offline: bool) -> Path:
    """The folder of a name's weights, brought from the hub if need be."""
    if name not in PRETRAINED and "/" not in name and not Path(name).exists():
        known = [*PRETRAINED, *MINI]
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(known)}."
        raise ConfigError(f"no student is named {name!r}; {hint} A hub id (owner/name) or a folder also works")
    return find_weights(PRETRAINED.get(name, name), "student", offline=offline).path


def _settings(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be read: {error}") from error
    return dict(content)


def _class_of(settings: Mapping[str, Any], folder: Path) -> tuple[Any, bool]:
    """The class of transformers for a config.json, and whether it makes masks."""
    import transformers

    names = _CLASSES.get(str(settings.get("model_type")))
    if names is None:
        raise WeightsError(f"{folder} holds a {settings.get('model_type')!r} model; the students here are {', '.join(_CLASSES)}")
    with_masks = any(str(name).endswith("ForInstanceSegmentation") for name in settings.get("architectures") or ())
    try:
        return getattr(transformers, names[int(with_masks)]), with_masks
    except AttributeError as error:
        raise WeightsError(_too_old(names[0])) from error


def _too_old(what: str) -> str:
    import transformers

    return f"transformers {transformers.__version__} does not know {what}; install a newer one: pip install 'transformers>=5.9'"


def _built(config: Any, with_masks: bool) -> Any:
    import transformers

    return getattr(transformers, _CLASSES[config.model_type][int(with_masks)])(config)


def _processor(folder: Path) -> dict[str, Any]:
    """The settings of the image processor; {} where the folder holds none."""
    file = folder / "preprocessor_config.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _inputs_of(processor: Mapping[str, Any], config: Any, side_px: int | None) -> Inputs:
    size = processor.get("size") or {}
    side = side_px or int(size.get("height") or DEFAULT_SIDE_PX)
    _check_side(side, config)
    mean, std, smooth = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), config.model_type != "rf_detr"
    if processor.get("do_normalize", config.model_type == "rf_detr"):
        mean, std = tuple(processor.get("image_mean", IMAGENET_MEAN)), tuple(processor.get("image_std", IMAGENET_STD))
    return Inputs(side, mean, std, smooth)


def _check_side(side: int, config: Any) -> None:
    """A side must hold whole windows, and as many cells as the model has queries, which it fills with the best of them."""
    if config.model_type == "rf_detr":
        backbone = config.backbone_config
        strides = [int(backbone.patch_size)]
        step = math.lcm(strides[0] * int(backbone.num_windows), int(config.mask_downsample_ratio))
    else:
        strides = [int(stride) for stride in config.feat_strides]
        step = max(strides)
    least = next(side for side in range(step, 100 * step, step) if _cells(side, strides) >= config.num_queries)
    if side % step or side < least:
        near = max(least, round(side / step) * step)
        raise ConfigError(f"imgsz must be a multiple of {step} for this model, {least} or more, got {side}; take {near}")


def _cells(side: int, strides: Sequence[int]) -> int:
    return sum((side // stride) ** 2 for stride in strides)
