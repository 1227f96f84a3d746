"""What the tests of the writers share: labels from masks, records from a folder, painted scenes with their truth, an export."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.export.formats import export_dataset
from autodistill_grounded_sam.images import dataset_stems, scan
from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, State

Rows = list[tuple[ImageRecord, Labels]]
NAMES = ("cup", "plate", "spoon")


class Kit:
    """Helpers, handed over as the fixture `kit`, since test modules cannot import one another."""

    names = NAMES

    @staticmethod
    def labels(masks: Sequence[Any], class_id: Sequence[int] | None = None, score: Sequence[float] | None = None) -> Labels:
        """Labels of (height, width) masks; class 0 and score 0.5 unless told."""
        count = len(masks)
        if not count:
            return Labels.nothing()
        rle = tuple(encode_mask(mask) for mask in masks)
        return Labels(
            State.LABELLED,
            np.array(class_id or [0] * count, np.int32),
            np.array(score or [0.5] * count, np.float32),
            np.full(count, 0.25, np.float32),
            boxes_xyxy(rle),
            np.arange(count, dtype=np.int32),
            rle,
        )

    @staticmethod
    def box(left: int, top: int, right: int, bottom: int, width: int = 64, height: int = 48) -> Any:
        mask = np.zeros((height, width), np.bool_)
        mask[top:bottom, left:right] = True
        return mask

    @staticmethod
    def paint(path: Path, width: int = 64, height: int = 48, seed: int = 0) -> Path:
        """Write a noisy picture, so that no two of different seeds are one file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(path)
        return path

    @staticmethod
    def rows(folder: Path, labels: Mapping[str, Labels]) -> Rows:
        """Every image of a folder as the pipeline finds it; those without labels are empty."""
        return [(image, labels.get(image.id, Labels.nothing())) for image in scan(folder).images]

    @staticmethod
    def export(
        rows: Rows, writer: Any, out: Path, *, names: Sequence[str] = NAMES, valid: Sequence[str] = (), **more: Any
    ) -> DatasetSummary:
        """Export; the images whose ids are in `valid` fall to valid."""
        stems = dataset_stems([image.id for image, _ in rows])
        split: Any = lambda image: "valid" if image.id in valid else "train"  # noqa: E731
        return export_dataset(rows, names, writer, out, split=split, stems=stems, **more)

    @staticmethod
    def tree(folder: Path) -> dict[str, str]:
        """The sha256 of every file of a folder by its path."""
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def two(tmp_path: Path) -> Rows:
    """Two images, `a.png` with two labels and `b.png` with none."""
    Kit.paint(tmp_path / "in" / "a.png", seed=1)
    Kit.paint(tmp_path / "in" / "b.png", seed=2)
    masks = [Kit.box(4, 6, 30, 40), Kit.box(40, 10, 60, 20)]
    return Kit.rows(tmp_path / "in", {"a.png": Kit.labels(masks, [2, 0], [0.9, 0.4])})


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Twelve painted scenes of 640 px with their exact masks: rings have holes, covered objects fall into parts."""
    folder = tmp_path_factory.mktemp("scenes")
    settings = PainterSettings(width=640, height=480, objects=(1, 12), size=(0.05, 0.5))
    painted = paint_folder(folder, 12, seed=40, settings=settings)
    labels = {
        f"scene_{place:04d}.png": Kit.labels([item.mask for item in scene.objects], [k % 3 for k in range(len(scene.objects))])
        for place, scene in enumerate(painted)
    }
    return Kit.rows(folder, labels)
