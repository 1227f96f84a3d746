"""Painted scenes as a COCO dataset with a split, for students on transformers."""

from __future__ import annotations

from pathlib import Path

from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

PAIRS = (("red", "circle"), ("blue", "square"), ("green", "triangle"))
NAMES = [f"{colour} {shape}" for colour, shape in PAIRS]
SMALL = PainterSettings(width=96, height=72, objects=(1, 3), size=(0.3, 0.5), pairs=PAIRS, clutter=(0, 0))


def painted_coco(folder: Path, train: int, valid: int, settings: PainterSettings = SMALL) -> Path:
    """`train/` and `valid/` with the json beside the images, as `export --format coco` writes them."""
    for split, count, seed in (("train", train, 0), ("valid", valid, 50_000)):
        truth = paint_dataset(folder / split, count, settings, seed, NAMES)
        truth.rename(truth.with_name("_annotations.coco.json"))
        for image in (folder / split / "images").iterdir():
            image.rename(folder / split / image.name)
        (folder / split / "images").rmdir()
    return folder
