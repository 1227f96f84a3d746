"""Readers of labelled datasets on disk, one image at a time: YOLO (segments or boxes) here, COCO in `coco_datasets`, and what
annotation tools write in `tool_datasets`.

Used on our own exports (read back, `evaluate`, the door's lazy dataset) and on what people bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.coco_datasets import coco_class_names, is_coco, read_coco
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask, from_coco
from autodistill_grounded_sam.tool_datasets import read_tool_dataset, tool_class_names, tool_format
from autodistill_grounded_sam.tool_images import upright_size
from autodistill_grounded_sam.types import DatasetImage, Int32, Mask, OnBad, Split

IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
)

TURNED = "obb"  # `task` in the data.yaml of turned boxes, which nothing else tells from rings of four points
SIX_DIGITS = b" 0.000000"  # how our label files write a number (here a zero): after a blank, with six digits, all of one length
_LARGEST_DIGITS = np.array([0, 9, 0, 9, 9, 9, 9, 9, 9], np.uint8)
_DIGIT_VALUES = np.array([0, 1e6, 0, 1e5, 1e4, 1e3, 100, 10, 1])


def fill_polygon(ring_px: npt.NDArray[Any], width: int, height: int) -> Mask:
    """The mask (height, width) of a closed ring (n, 2) of pixel coordinates, as a YOLO trainer paints it.

    That is ultralytics' `polygon2mask`: coordinates are cut to whole pixels and `cv2.fillPoly` fills with the outline included,
    even-odd. The thousandth of a pixel keeps coordinates that were whole before they were normalised from falling one lower.
    """
    import cv2

    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.floor(ring_px + 1e-3).astype(np.int32)], 1)
    return mask.view(np.bool_)


def dataset_class_names(dataset: Path) -> list[str]:
    """The class names by class id, of a YOLO dataset (its folder, or its `data.yaml`), a COCO json (or a folder of such), or a
    folder of PASCAL VOC, LabelMe or CVAT (see `tool_datasets`)."""
    if is_yolo(dataset):
        return yolo_class_names(dataset)
    tool = None if is_coco(dataset) else tool_format(dataset)
    return coco_class_names(dataset) if tool is None else tool_class_names(dataset, tool)


def read_dataset(dataset: Path, on_bad: OnBad | None = None, *, test: bool = False) -> Iterator[DatasetImage]:
    """Every image of a dataset, told apart as in `dataset_class_names`. Images of a test split count as valid: `test` takes those
    of YOLO and COCO as well, the other formats have no way without."""
    if is_yolo(dataset):
        return read_yolo(dataset, on_bad=on_bad, test=test)
    tool = None if is_coco(dataset) else tool_format(dataset)
    return read_coco(dataset, on_bad, test=test) if tool is None else read_tool_dataset(dataset, tool, on_bad)


def is_yolo(dataset: Path) -> bool:
    """Whether this is a `data.yaml`, or a folder with one."""
    return dataset.suffix.lower() in (".yaml", ".yml") or (dataset / "data.yaml").is_file()


def yolo_class_names(dataset: Path) -> list[str]:
    """The class names of a YOLO dataset (its folder, or its `data.yaml`), in the order of their ids."""
    yaml_file, settings = _yolo_settings(dataset)
    names = settings.get("names")
    if isinstance(names, Mapping):
        keys = [int(key) if str(key).isdecimal() else key for key in names]
        if set(keys) != set(range(len(keys))):
            raise DatasetError(f"{yaml_file} must number its {len(keys)} `names` from 0 without a gap, got {keys}")
        names = [name for _, name in sorted(zip(keys, names.values(), strict=True))]
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise DatasetError(f"{yaml_file} must hold a list or mapping `names`, got {names!r}")
    return [str(name) for name in names]


def read_yolo(
    dataset: Path, splits: Sequence[Split] = ("train", "valid"), on_bad: OnBad | None = None, *, test: bool = False
) -> Iterator[DatasetImage]:
    """Every image of a YOLO dataset (its folder, or its `data.yaml`), sorted by name within each split.

    An image without a label file has no labels, as ultralytics reads it. A `val` that names the folder of `train` is read once.
    An image that cannot be read, or its label file, raises; with `on_bad` the image is left out. `test` adds the test split.
    """
    classes = len(yolo_class_names(dataset))
    turned = _yolo_settings(dataset)[1].get("task") == TURNED
    paths = [(path, split, False) for path, split in yolo_image_paths(dataset, splits)]
    paths += [(path, "valid", True) for path in _yolo_test_paths(dataset)] if test else []
    for image_path, split, is_test in paths:
        try:
            image = read_yolo_image(image_path, split, classes, turned=turned)
        except (ValueError, OverflowError, OSError) as error:  # beside DatasetError: a label file that is no text, a huge class
            if on_bad is None:
                raise
            on_bad(image_path.name, "cannot be read", str(error))
        else:
            yield replace(image, test=is_test)


def yolo_image_paths(dataset: Path, splits: Sequence[Split] = ("train", "valid")) -> list[tuple[Path, Split]]:
    """The images of a YOLO dataset (its folder, or its `data.yaml`) with splits, in the order of `read_yolo`; opens none."""
    yaml_file, settings = _yolo_settings(dataset)
    root = _yolo_root(yaml_file, settings)
    done: set[Path] = set()
    found: list[tuple[Path, Split]] = []
    for split in splits:
        entries = settings.get("train" if split == "train" else "val") or []
        for entry in [entries] if isinstance(entries, str) else entries:
            place = _yolo_place(root, str(entry))
            if place not in done:
                done.add(place)
                found += [(image_path, split) for image_path in _yolo_images(place, yaml_file)]
    return found


def read_yolo_image(image_path: Path, split: Split, classes: int, *, turned: bool = False) -> DatasetImage:
    """One image of a YOLO dataset of so many classes, with the labels beside it; only the image's header is read.

    Rings are painted as trainers paint them. `turned` boxes are filled by their area: their corners are at the outer edges of
    pixels, so with the outline painted they would be a pixel wider each time that they are read and written.
    """
    width, height = upright_size(image_path)
    label_file = yolo_label_file(image_path)
    class_id, rows = read_yolo_rows(label_file) if label_file.is_file() else (np.zeros(0, np.int32), [])
    if len(class_id) and not 0 <= class_id.min() <= class_id.max() < classes:
        raise DatasetError(
            f"{label_file} holds classes {class_id.min()} to {class_id.max()}, but data.yaml names 0 to {classes - 1}"
        )
    rings = [row.reshape(-1, 2) * (width, height) for row in rows if len(row) > 5]
    if rings and len(rings) != len(rows):
        raise DatasetError(f"{label_file} mixes boxes and rings; ultralytics would drop the whole image. Write one or the other")
    if rings:
        by_area = [from_coco([ring.reshape(-1).tolist()], width, height) for ring in rings] if turned else []
        rle = tuple(by_area) or tuple(encode_mask(fill_polygon(ring, width, height)) for ring in rings)
        return DatasetImage(image_path, image_path.name, split, width, height, class_id, boxes_xyxy(rle), rle)
    boxes = np.array([row[:4] for row in rows], np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1) * (width, height, width, height)
    scored = bool(rows) and all(len(row) == 5 for row in rows)
    score = np.array([row[4] for row in rows], np.float32) if scored else None
    return DatasetImage(
        image_path, image_path.name, split, width, height, class_id, xyxy.astype(np.float32), None if rows else (), score
    )


def yolo_label_file(image_path: Path) -> Path:
    """Where ultralytics looks for the labels of an image: the last `images` of its path turned into `labels`, suffix `.txt`."""
    head, marker, tail = image_path.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if marker else image_path).with_suffix(".txt")


def read_yolo_rows(label_file: Path) -> tuple[Int32, list[npt.NDArray[np.float64]]]:
    """The rows of a label file: class ids (n,), and the numbers after each: 4 of a box, 5 with its score, or a ring."""
    lines = label_file.read_text(encoding="utf-8-sig").splitlines()
    cut = [line.partition(" ") for line in lines]
    numbers = _six_digit_numbers("".join([f" {rest}" for _, _, rest in cut]))
    lengths = [(1 + len(rest)) // len(SIX_DIGITS) for _, _, rest in cut]
    if numbers is None or sum(lengths) != len(numbers) or not all(name.isdecimal() for name, _, _ in cut):
        return _any_yolo_rows(label_file, lines)
    stops = np.cumsum(lengths).tolist()
    rows = [numbers[start:stop] for start, stop in pairwise([0, *stops])]
    for number, row in enumerate(rows, 1):
        _require_box_or_ring(len(row), label_file, number)
    return np.array([int(name) for name, _, _ in cut], np.int32), rows


def _six_digit_numbers(text: str) -> npt.NDArray[np.float64] | None:
    """The numbers of a text in which each is written as SIX_DIGITS, as our writers do; None for any other text.

    All at once, as an array of characters: an eighth of the time that `float` takes for each.
    """
    if len(text) % len(SIX_DIGITS) or not text.isascii():
        return None
    digits = np.frombuffer(text.encode(), np.uint8).reshape(-1, len(SIX_DIGITS)) - np.frombuffer(SIX_DIGITS, np.uint8)
    if (digits > _LARGEST_DIGITS).any():  # unsigned: what is below a 0 comes out large
        return None
    numbers: npt.NDArray[np.float64] = (digits @ _DIGIT_VALUES) / 1_000_000
    return numbers


def _any_yolo_rows(label_file: Path, lines: list[str]) -> tuple[Int32, list[npt.NDArray[np.float64]]]:
    class_ids, rows = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), np.float64)
        except ValueError as error:
            raise DatasetError(f"{label_file}:{number} must hold numbers only, got {line[:60]!r}") from error
        if not np.isfinite(values).all() or values[0] % 1:
            raise DatasetError(f"{label_file}:{number} must hold a whole class number and finite numbers, got {line[:60]!r}")
        _require_box_or_ring(len(values) - 1, label_file, number)
        class_ids.append(int(values[0]))
        rows.append(values[1:])
    return np.array(class_ids, np.int32), rows


def _require_box_or_ring(numbers: int, label_file: Path, line: int) -> None:
    if numbers not in (4, 5) and (numbers < 6 or numbers % 2):
        raise DatasetError(
            f"{label_file}:{line} must hold a class and a box (4 numbers) or a ring of x y pairs, got {numbers} numbers"
        )


def _yolo_settings(dataset: Path) -> tuple[Path, dict[str, Any]]:
    import yaml

    yaml_file = dataset / "data.yaml" if dataset.is_dir() else dataset
    if not yaml_file.is_file():
        raise DatasetError(f"no YOLO dataset at {dataset}: expected a folder with a data.yaml, or the path of one")
    try:
        settings = yaml.safe_load(yaml_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{yaml_file} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{yaml_file} must hold a mapping with train, val and names, got {type(settings).__name__}")
    return yaml_file, settings


def _yolo_root(yaml_file: Path, settings: Mapping[str, Any]) -> Path:
    """Where the folders of the splits lie: at `path`, or beside the yaml where that is a place of another machine."""
    root = yaml_file.parent / str(settings.get("path") or "")
    return root if root.is_dir() else yaml_file.parent


def _yolo_test_paths(dataset: Path) -> list[Path]:
    """The images of the test split, less those of the others; none where its folder is not there: `data.yaml` often names one all
    the same."""
    yaml_file, settings = _yolo_settings(dataset)
    entries = settings.get("test") or []
    root = _yolo_root(yaml_file, settings)
    places = [_yolo_place(root, str(entry)) for entry in ([entries] if isinstance(entries, str) else entries)]
    known = {path for path, _ in yolo_image_paths(dataset)}
    return [path for place in places if place.exists() for path in _yolo_images(place, yaml_file) if path not in known]


def _yolo_place(root: Path, entry: str) -> Path:
    """The folder or list of a split; `../train/images`, as Roboflow writes it, means the folder beside the yaml."""
    place = (root / entry).resolve()
    if not place.exists() and entry.startswith("../"):
        place = (root / entry[3:]).resolve()
    return place


def _yolo_images(place: Path, yaml_file: Path) -> list[Path]:
    if place.is_dir():
        files = (path for path in place.rglob("*") if not path.name.startswith("."))  # as macOS leaves beside each file
        return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if place.is_file():  # a list of images, one a line
        paths = [place.parent / line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return [path if path.is_file() else Path(str(path).replace("\\", "/")) for path in paths]  # Windows' separators
    raise DatasetError(f"{yaml_file} names {place}, which is not there; keep data.yaml beside its train and valid folders")
