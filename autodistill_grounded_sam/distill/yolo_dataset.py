"""Look at a YOLO dataset before a student does: what ultralytics would drop in silence is an error that names the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.datasets import IMAGE_SUFFIXES, read_yolo_rows, yolo_class_names, yolo_label_file
from autodistill_grounded_sam.errors import DatasetError


@dataclass(frozen=True)
class YoloDataset:
    """Class names by id, the image folders of each split, the objects of `train`, and the first label file with boxes, if any."""

    classes: tuple[str, ...]
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    objects: int
    file_with_boxes: Path | None


def check_yolo_dataset(dataset: Path) -> YoloDataset:
    """What a dataset, given by its folder or its data.yaml, holds; opens no image.

    Raises DatasetError where a key, a folder or all objects are missing, and for a label file that ultralytics would refuse
    (it drops the whole image then): an unknown class, box rows with scores, polygons and boxes in one file.
    """
    import yaml

    classes = tuple(yolo_class_names(dataset))
    file = dataset / "data.yaml" if dataset.is_dir() else dataset
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    root = file.parent / str(content.get("path") or "")
    train = _folders(file, root, "train", content.get("train"))
    valid = _folders(file, root, "val", content.get("val", content.get("valid", content.get("validation"))))
    objects, file_with_boxes = 0, None
    learned = dict.fromkeys(file for folder in train for file in _label_files(folder))
    others = (file for folder in valid for file in _label_files(folder))
    for label_file in dict.fromkeys((*learned, *others)):  # once each: a small dataset may name one folder as train and val
        rows, are_boxes = _look_at(label_file, len(classes))
        objects += rows if label_file in learned else 0
        file_with_boxes = file_with_boxes or (label_file if are_boxes else None)
    if not objects:
        raise DatasetError(f"{file} has no object to learn from: the label files of 'train' ({train[0]}) are empty or missing")
    return YoloDataset(classes, train, valid, objects, file_with_boxes)


def _folders(file: Path, root: Path, key: str, value: Any) -> tuple[Path, ...]:
    """The image folders of a split; `../train/images`, as Roboflow writes it, means the folder beside the yaml."""
    if not value:
        raise DatasetError(f"{file} has no '{key}' images; a student needs both 'train' and 'val' (export with --valid 0.2)")
    folders = []
    for entry in [value] if isinstance(value, str) else value:
        folder = (root / entry).resolve()
        if not folder.is_dir() and str(entry).startswith("../"):
            folder = (root / str(entry)[3:]).resolve()
        if not folder.is_dir():
            raise DatasetError(f"{file}: the folder of '{key}' does not exist: {folder}")
        if not any(path.is_file() for path in folder.rglob("*")):
            raise DatasetError(f"{file}: the folder of '{key}' holds no image: {folder}; export with --valid above 0")
        folders.append(folder)
    return tuple(folders)


def _label_files(images: Path) -> list[Path]:
    """The label files that ultralytics reads: those of images. Others (`confidence-<name>.txt`) are none of its business."""
    files = {yolo_label_file(path) for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    return sorted(file for file in files if file.is_file())


def _look_at(label_file: Path, classes: int) -> tuple[int, bool]:
    """The number of rows, and whether they are boxes."""
    class_ids, rows = read_yolo_rows(label_file)
    if len(rows) and not 0 <= class_ids.min() <= class_ids.max() < classes:
        raise DatasetError(f"{label_file}: classes must be 0..{classes - 1}, got {class_ids.min()}..{class_ids.max()}")
    if any(len(row) == 5 for row in rows):
        raise DatasetError(f"{label_file}: rows hold a score after the box; ultralytics would drop the whole image")
    kinds = {len(row) == 4 for row in rows}
    if len(kinds) > 1:
        raise DatasetError(f"{label_file}: boxes and polygons in one file; ultralytics would drop the whole image")
    return len(rows), kinds == {True}
