"""Datasets for the students of `benchmarks.real`: rows that people or the detector labelled, as YOLO boxes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from autodistill_grounded_sam.coco_datasets import coco_class_names, read_coco
from autodistill_grounded_sam.evaluate.matching import class_key
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.types import DatasetImage

VALIDATED = 4  # ultralytics wants a validation split; nothing is chosen by it, since the last weights are taken


def human_rows(truth: Path, names: Sequence[str]) -> list[DatasetImage]:
    """What people labelled, numbered by `names`."""
    place = {class_key(name): number for number, name in enumerate(names)}
    number = np.array([place[class_key(name)] for name in coco_class_names(truth)], np.int32)
    return [replace(row, class_id=number[row.class_id], rle=None, crowd=None) for row in read_coco(truth)]


def write_yolo(folder: Path, images: Path, rows: Sequence[DatasetImage], names: Sequence[str]) -> Path:
    """A YOLO dataset of boxes: every row to learn from, and the first few once more as the validation split."""
    if folder.exists():
        shutil.rmtree(folder)
    for split, own in (("train", rows), ("valid", rows[:VALIDATED])):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for row in own:
            stem = Path(row.name).stem
            Image.fromarray(read_image(images / row.name)).save(folder / split / "images" / f"{stem}.png", compress_level=1)
            (folder / split / "labels" / f"{stem}.txt").write_text(_lines(row), encoding="utf-8")
    content = {"path": str(folder.resolve()), "train": "train/images", "val": "valid/images", "names": list(names)}
    (folder / "data.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return folder


def _lines(row: DatasetImage) -> str:
    low, high = row.xyxy[:, :2], row.xyxy[:, 2:]
    shares = np.concatenate([(low + high) / 2, high - low], axis=1) / np.array([row.width, row.height] * 2)
    rows = zip(row.class_id.tolist(), shares.clip(0, 1).tolist(), strict=True)
    return "".join(f"{class_id} " + " ".join(f"{value:.6f}" for value in box) + "\n" for class_id, box in rows)
