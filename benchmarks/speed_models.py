"""What all rivals of speed.py share: sizes of models, random weights, a vocabulary, images, classes and boxes."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}  # rows of BERT
VOCABULARY_ROWS = 30522  # of bert-base-uncased
# The classes of COCO. Their words are whole tokens here; BERT's vocabulary cuts a few of them, and makes a few more.
COCO = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog,
horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,
baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,
orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,
cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush
"""
CLASSES = tuple(COCO.replace("\n", "").split(","))


@dataclass(frozen=True)
class Models:
    """Sizes of a detector and a segmenter of the true architectures, and of the images that they see."""

    released: bool  # whether the detector is the released Swin-T
    swin_width: int = 96
    swin_depths: tuple[int, ...] = (2, 2, 6, 2)
    swin_heads: tuple[int, ...] = (3, 6, 12, 24)
    text_width: int = 768
    text_layers: int = 12
    layers: int = 6  # of the encoder and of the decoder
    sam_width: int = 768
    sam_depth: int = 12
    sam_heads: int = 12
    sam_global: tuple[int, ...] = (2, 5, 8, 11)
    image_wh: tuple[int, int] = (640, 480)
    shorter_px: int = 800
    longer_px: int = 1333
    noise: float = 0.02
    soft: float = 0.1

    def plain(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def fitting_wh(self) -> tuple[int, int]:
        return self.shorter_px * 4 // 3, self.shorter_px

    @property
    def mark(self) -> str:
        """Eight digits that change with any size, so that weights of an earlier definition are not taken for these."""
        return f"{crc32(json.dumps(self.plain()).encode()):08x}"


FULL = Models(released=True)
FULL_H = replace(FULL, sam_width=1280, sam_depth=32, sam_heads=16, sam_global=(7, 15, 23, 31))
# Layers as wide as the released ones where the rivals differ (fusion, deformable attention, windows of 64 x 64 cells), but few.
SMALL = Models(
    released=False, swin_width=48, swin_depths=(1, 1, 2, 1), swin_heads=(2, 4, 8, 16), text_width=128, text_layers=2, layers=2,
    sam_width=192, sam_depth=3, sam_heads=3, sam_global=(2,), image_wh=(320, 240), shorter_px=400, longer_px=666,
)  # fmt: skip


def write_tokenizer(folder: Path, models: Models) -> Path:
    """A BERT tokenizer of its full size that knows the words of CLASSES, with the config of a text encoder beside it."""
    from transformers import BertConfig

    rows = [f"[unused{row}]" for row in range(VOCABULARY_ROWS)]
    for row, token in SPECIAL.items():
        rows[row] = token
    words = sorted({word for name in CLASSES for word in name.split()})
    letters = string.ascii_lowercase + string.digits
    for start, tokens in ((2000, words), (1100, letters), (1200, [f"##{letter}" for letter in letters])):
        rows[start : start + len(tokens)] = tokens
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    text = '{"tokenizer_class": "BertTokenizer", "do_lower_case": true, "model_max_length": 512}\n'
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    BertConfig(**_text_sizes(models)).save_pretrained(folder)
    return folder


def save_random(folder: Path, tokenizer: Path, models: Models) -> None:
    """Random weights from a fixed seed, built by transformers, as two folders: `detector` and `segmenter`."""
    import torch
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SamConfig, SamModel, SwinConfig

    swin = SwinConfig(
        image_size=224, patch_size=4, embed_dim=models.swin_width, depths=list(models.swin_depths),
        num_heads=list(models.swin_heads), window_size=7, out_indices=[2, 3, 4],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = GroundingDinoForObjectDetection(
            GroundingDinoConfig(
                backbone_config=swin, text_config=BertConfig(**_text_sizes(models)), encoder_layers=models.layers,
                decoder_layers=models.layers,
            )
        )  # fmt: skip
        vision = {
            "hidden_size": models.sam_width, "num_hidden_layers": models.sam_depth, "num_attention_heads": models.sam_heads,
            "mlp_dim": 4 * models.sam_width, "global_attn_indexes": list(models.sam_global),
        }  # fmt: skip
        segmenter = SamModel(
            SamConfig(vision_config=vision, prompt_encoder_config={}, mask_decoder_config={"layer_norm_eps": 1e-5})
        )
        for model in (detector, segmenter):
            stir(model, models.noise)
    soften(detector.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after, models.soft)
    save_folders(folder, tokenizer, models, detector, segmenter)


def save_official(folder: Path, tokenizer: Path, models: Models, detector_file: str, segmenter_file: str) -> None:
    """The same two folders from official `.pth` files, read by the loaders that users of the tool have."""
    from autodistill_grounded_sam.detect import official as detector
    from autodistill_grounded_sam.segment import official as segmenter

    loaded = detector.load_official(Path(detector_file)), segmenter.load_official(Path(segmenter_file))
    save_folders(folder, tokenizer, models, *loaded)


def save_folders(folder: Path, tokenizer: Path, models: Models, detector: Any, segmenter: Any) -> None:
    from transformers import AutoTokenizer, GroundingDinoImageProcessor, GroundingDinoProcessor, SamImageProcessor, SamProcessor

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    detector.save_pretrained(partial / "detector")
    sides = {"shortest_edge": models.shorter_px, "longest_edge": models.longer_px}
    words = AutoTokenizer.from_pretrained(tokenizer)
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=sides), words).save_pretrained(partial / "detector")
    segmenter.save_pretrained(partial / "segmenter")
    SamProcessor(SamImageProcessor()).save_pretrained(partial / "segmenter")
    partial.rename(folder)


def stir(model: Any, noise: float) -> None:
    """Away from initial zeros, so that every part of the model matters to its answer."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)


def soften(norm: Any, share: float) -> None:
    """Random text features give logits far from zero, of which rounding leaves scores of exactly 1; these are closer."""
    import torch

    with torch.no_grad():
        norm.weight.mul_(share)
        norm.bias.mul_(share)


def write_images(folder: Path, count: int, models: Models) -> list[Path]:
    """Coloured noise as JPEG files of one size."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        paths.append(folder / f"{number:03d}.jpg")
        coarse.resize(models.image_wh, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def write_fitting_image(path: Path, models: Models) -> Path:
    """Coloured noise as a PNG that already has the size of the detector's input."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    coarse.resize(models.fitting_wh, Image.Resampling.BICUBIC).save(path)
    return path


def given_boxes(count: int, image_wh: Sequence[int]) -> list[list[float]]:
    """`count` boxes xyxy of many sizes, from a twentieth to half of each side, spread over the image; the same at each call."""
    rng = np.random.default_rng(count)
    extent = rng.uniform(0.05, 0.5, (count, 2))
    corner = rng.uniform(0, 1 - extent)
    relative = np.concatenate([corner, corner + extent], axis=1)
    boxes: list[list[float]] = (relative * [*image_wh, *image_wh]).round(2).tolist()
    return boxes


def _text_sizes(models: Models) -> dict[str, int]:
    return {
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": models.text_width,
        "num_hidden_layers": models.text_layers,
        "num_attention_heads": models.text_width // 64,
        "intermediate_size": 4 * models.text_width,
    }
