"""Which segmenters there are: one line each by the `model_type` of a folder's config.json, and how weights become one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.loading import quiet_loading
from autodistill_grounded_sam.segment.decoder import MaskDecoder
from autodistill_grounded_sam.segment.decoder_hq import HqMaskDecoder
from autodistill_grounded_sam.segment.decoder_sam2 import Sam2MaskDecoder
from autodistill_grounded_sam.segment.official import DECODER_LAYER_NORM_EPS, load_official

logger = logging.getLogger(__name__)

RELEASED = {(768, 12), (1024, 24), (1280, 32)}  # (width, depth) of the authors' ViT-B, L and H


@dataclass(frozen=True)
class Family:
    """`config` and `model` are the classes of transformers that hold the weights, `decoder` is what answers from them. An image
    is `stretched` to the model's square, or keeps its shape and is padded; `mean` and `std` are those of its RGB in 0..255.
    `within` names the part of config.json that is the image half's, where that is not the whole."""

    title: str
    config: str
    model: str
    decoder: type[MaskDecoder]
    stretched: bool = False
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of ImageNet
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    within: str = ""


_SAM2 = Family("SAM 2", "Sam2Config", "Sam2Model", Sam2MaskDecoder, stretched=True)
_MIDDLE = (127.5, 127.5, 127.5)
_SAM3 = Family("SAM 3's tracker", "Sam3TrackerConfig", "Sam3TrackerModel", Sam2MaskDecoder, True, _MIDDLE, _MIDDLE)
_EDGETAM = Family("EdgeTAM", "EdgeTamConfig", "EdgeTamModel", Sam2MaskDecoder, stretched=True)
FAMILIES: Mapping[str, Family] = {
    "sam": Family("SAM", "SamConfig", "SamModel", MaskDecoder),
    "sam_hq": Family("SAM-HQ", "SamHQConfig", "SamHQModel", HqMaskDecoder),
    "sam2": _SAM2,
    "sam2_video": _SAM2,  # the tracker, whose folder holds the image model as well, under the same names
    "sam3_tracker": _SAM3,
    "sam3_video": replace(_SAM3, within="tracker_config"),  # as SAM 3 is on the hub: detector and tracker in one folder
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
}


ABOUT = (
    About("mini", "mask IoU 0.92 from true boxes on painted scenes (`benchmarks/mini_quality.py`)", "mini"),
    About(
        "SAM",
        "masks of the authors' code, IoU 0.9999997 on the same random weights (`tests/segment/test_official.py`)",
        "facebook/sam-vit-*",
    ),
    About(
        "SAM-HQ",
        "masks of the authors' code, IoU 0.9999996, where transformers' are not (`tests/segment/test_decoder_hq.py`)",
        "syscv-community/sam-hq-*",
    ),
    About(
        "SAM 2.1",
        "masks of the authors' code, IoU 0.9999996 on the same random weights (`tests/segment/test_official_sam2.py`)",
        "facebook/sam2*",
    ),
    About(
        "SAM 3's tracker",
        "logits of transformers within 5e-4, its authors' code was not here (`tests/segment/test_decoder_sam2.py`)",
        "facebook/sam3",
        licence="SAM License",
    ),
    About(
        "EdgeTAM",
        "logits of transformers within 2e-4, its authors' code was not here (`tests/segment/test_decoder_sam2.py`)",
        "yonigozlan/EdgeTAM-*",
        needs="timm",
    ),
)


def family_of(model: Any) -> Family:
    """The family of a transformers model that is in memory."""
    return FAMILIES[model.config.model_type]


def load(name: str, *, offline: bool = False) -> Any:
    """The transformers model (float32, CPU) that `name` stands for; raises WeightsError where that is missing, damaged or none
    of these families."""
    from autodistill_grounded_sam.weights import find_weights

    found = find_weights(name, "segmenter", offline=offline)
    logger.info("loading segmenter %s from %s", name, found.path)
    return load_official(found.path) if found.kind == "official" else _load_folder(found.path)


def _load_folder(path: Path) -> Any:
    """The model (float32, CPU) of a transformers folder; no parameter may be left at random."""
    import torch
    import transformers

    family: Family | None = None
    try:
        settings, _ = transformers.PreTrainedConfig.get_config_dict(path, local_files_only=True)
        family = FAMILIES.get(settings.get("model_type", ""))
        if family is None:
            known = ", ".join(map(repr, FAMILIES))
            raise WeightsError(f"{path} holds a model of type {settings.get('model_type')!r}; a segmenter is one of {known}")
        own = settings[family.within] if family.within else settings
        own = {key: value for key, value in own.items() if key != "model_type"}  # as it may be that of a tracker
        config = getattr(transformers, family.config).from_dict(own)
        _take_the_authors_epsilon(config)
        with quiet_loading():
            model, report = getattr(transformers, family.model).from_pretrained(
                path, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except WeightsError:
        raise
    except ImportError as error:
        raise WeightsError(f"{path} holds {family.title if family else 'a model'}, which needs more: {error}") from error
    except Exception as error:  # OSError, RuntimeError, SafetensorError, JSON errors ...: all mean the same to the user
        raise WeightsError(f"{path} cannot be loaded as a transformers folder of a segmenter: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{path} lacks {len(missing)} of {family.title}'s weights: {', '.join(missing[:6])}")
    return model


def _take_the_authors_epsilon(config: Any) -> None:
    """In conversions of SAM and SAM-HQ as they were released, and what was tuned from them; see DECODER_LAYER_NORM_EPS."""
    vision = config.vision_config
    if config.model_type in ("sam", "sam_hq") and (vision.hidden_size, vision.num_hidden_layers) in RELEASED:
        config.mask_decoder_config.layer_norm_eps = DECODER_LAYER_NORM_EPS
