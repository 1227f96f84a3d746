"""Painted sets to adapt to, in COCO form, and tiny detectors of the real architectures to adapt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset
from tests.detect.conftest import save_grounding_dino

NAMES = ("red circle", "blue square")
PAIRS = (("red", "circle"), ("blue", "square"))
ONTOLOGY = Ontology.from_dict({"red cat": "red circle", "dog": "blue square"})  # words of the tiny tokenizer


def painted(folder: Path, count: int = 8, seed: int = 100, names: tuple[str, ...] = NAMES) -> Path:
    """A folder with images/ and truth.json, small and quick; returns it."""
    settings = PainterSettings(width=128, height=96, objects=(2, 3), pairs=PAIRS, clutter=(0, 1))
    paint_dataset(folder, count, settings, seed, names)
    return folder


def coco(folder: Path, annotations: list[dict[str, Any]], sizes: dict[str, tuple[int, int]], names: tuple[str, ...]) -> Path:
    """A COCO json with grey pictures of these (width, height) beside it, ids from 1 in their order; returns the json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = []
    for number, (name, (width, height)) in enumerate(sizes.items(), 1):
        pixels = np.full((height, width, 3), 40 * number % 256, np.uint8)
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    rows = [{"id": number, **row} for number, row in enumerate(annotations, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    file = folder / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}), encoding="utf-8")
    return file


def tiny(folder: Path, mm: bool = False) -> Path:
    return save_grounding_dino(folder, size={"shortest_edge": 64, "longest_edge": 128}, mm=mm)
