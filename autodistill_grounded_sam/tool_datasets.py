"""Readers of what annotation tools write: PASCAL VOC, LabelMe and CVAT for images 1.1, one image at a time.

Polygons are filled as COCO fills them (by area); the tools' own masks are taken as they are. What is neither box, polygon nor
mask (points, lines, tracks of a video) raises DatasetError, or is left out and told with `on_bad`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import decode_mask, encode_mask
from autodistill_grounded_sam.tool_images import (
    LOOKED_AT,
    ToolImage,
    ToolShape,
    files_of,
    filled,
    lines_of_text,
    masks_of,
    placed,
    root_tag,
    side_of,
    upright_size,
    xml_elements,
)
from autodistill_grounded_sam.types import DatasetImage, OnBad, Rle
from autodistill_grounded_sam.voc_datasets import is_voc, voc_class_names, voc_images, voc_shape

LABELME_LABELS = "labels.txt"
CVAT_FILE = "annotations.xml"


@dataclass(frozen=True)
class ToolFormat:
    """How the files of one tool are told, listed and read. `class_names` is None where the dataset does not list its classes."""

    name: str
    is_it: Callable[[Path], bool]
    class_names: Callable[[Path], list[str] | None]
    images: Callable[[Path, OnBad | None], Iterator[ToolImage]]
    shape: Callable[[Any, ToolImage], ToolShape]


def tool_format(dataset: Path) -> ToolFormat | None:
    """The tool that wrote this dataset, or None if it is none of these."""
    return next((known for known in TOOL_FORMATS if known.is_it(dataset)), None)


def tool_class_names(dataset: Path, tool: ToolFormat) -> list[str]:
    """The class names as the dataset lists them; where it does not, those that it uses, sorted."""
    listed = tool.class_names(dataset)
    if listed is not None:
        return listed
    ignored: OnBad = lambda *_: None  # noqa: E731 - who reads the labels is told
    return sorted({shape.class_name for image in tool.images(dataset, ignored) for shape in _shapes(image, tool, ignored)})


def read_tool_dataset(dataset: Path, tool: ToolFormat, on_bad: OnBad | None = None) -> Iterator[DatasetImage]:
    """Every image with its labels, `class_id` by `tool_class_names`. Where a label is only a box, the image's `rle` is None."""
    index = {name: place for place, name in enumerate(tool_class_names(dataset, tool))}
    for image in tool.images(dataset, on_bad):
        read = _shapes(image, tool, on_bad)
        for name in {shape.class_name for shape in read} - index.keys():
            problem = f"has a label {name!r}, which is none of the classes {', '.join(index)}"
            if on_bad is None:
                raise DatasetError(f"{dataset}: {image.name} {problem}")
            on_bad(image.name, "unknown class", problem)
        shapes = [shape for shape in read if shape.class_name in index]
        rle, some_rle = masks_of([shape.rle for shape in shapes])
        scored = any(shape.score is not None for shape in shapes)
        yield DatasetImage(
            image.path,
            image.name,
            image.split,
            image.width,
            image.height,
            np.array([index[shape.class_name] for shape in shapes], np.int32),
            np.array([shape.xyxy for shape in shapes], np.float32).reshape(-1, 4),
            rle,
            np.array([1 if one.score is None else one.score for one in shapes], np.float32) if scored else None,
            some_rle=some_rle,
            test=image.test,
        )


def _shapes(image: ToolImage, tool: ToolFormat, on_bad: OnBad | None) -> list[ToolShape]:
    read = []
    for number, shape in enumerate(image.shapes, 1):
        try:
            read.append(tool.shape(shape, image))
        except Exception as error:  # pycocotools raises Exception itself for a polygon that is none
            problem = f"shape {number}: {f'no {error}' if isinstance(error, KeyError) else error}"
            if on_bad is None:
                raise DatasetError(f"{image.name} is not after {tool.name}: {problem}") from error
            on_bad(image.name, "cannot be read", problem)
    return read


# --- LabelMe


def is_labelme(dataset: Path) -> bool:
    """Whether this is a folder with JSON files of LabelMe."""
    return dataset.is_dir() and any(_is_labelme_file(path) for path in islice(files_of(dataset, ".json"), LOOKED_AT))


def labelme_class_names(dataset: Path) -> list[str] | None:
    """The lines of `labels.txt`, but the two that LabelMe's own converters take for no class."""
    lines = lines_of_text(dataset / LABELME_LABELS)
    return None if lines is None else [name for name in lines if name not in ("__ignore__", "_background_")]


def labelme_images(dataset: Path, on_bad: OnBad | None = None) -> Iterator[ToolImage]:
    """Sorted by file; the split is that of the folder's name. JSON files of others are passed over."""
    for file in sorted(files_of(dataset, ".json")):
        try:
            content = _json(file)
            if not _is_labelme(content):
                continue
            image = _labelme_image(file, content)
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(file.name, "cannot be read", str(error))
            continue
        split, test = side_of(file.relative_to(dataset).parent.parts)
        yield replace(image, split=split, test=test)


def labelme_image(file: Path) -> ToolImage:
    """One JSON file, as of `train`. Its shapes are lists: those of one label and `group_id` are parts of one object."""
    return _labelme_image(file, _json(file))


def _labelme_image(file: Path, content: dict[str, Any]) -> ToolImage:
    try:
        path = file.parent / str(content["imagePath"]).replace("\\", "/")
        size = (int(content.get("imageWidth") or 0), int(content.get("imageHeight") or 0))
        width, height = size if all(size) else upright_size(path)
        groups: dict[Any, list[Any]] = {}
        for number, shape in enumerate(content["shapes"]):
            group = shape.get("group_id")
            groups.setdefault((shape["label"], group) if group is not None else number, []).append(shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{file} is not of LabelMe: {error!r}") from error
    return ToolImage(path if path.is_file() else None, path.name, "train", width, height, list(groups.values()))


def labelme_shape(parts: Any, image: ToolImage) -> ToolShape:
    name, score = str(parts[0]["label"]).strip(), parts[0].get("score")
    if all(part["shape_type"] == "rectangle" for part in parts):
        corners = np.concatenate([np.array(part["points"], np.float64).reshape(2, 2) for part in parts])
        low, high = corners.min(axis=0).clip(0), corners.max(axis=0).clip(max=(image.width, image.height))
        return ToolShape(name, np.concatenate([low, high]), score=score)
    masks = [_labelme_mask(part, image) for part in parts]
    whole = masks[0] if len(masks) == 1 else encode_mask(np.any([decode_mask(mask) for mask in masks], axis=0))
    around = np.concatenate([np.array(part["points"], np.float64).reshape(-1, 2) for part in parts])
    return ToolShape.of_mask(name, whole, around, score)


def _labelme_mask(shape: Any, image: ToolImage) -> Rle:
    kind, points = shape["shape_type"], shape["points"]
    if kind == "mask":
        try:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
                crop = np.asarray(picture).astype(np.bool_)
        except (binascii.Error, OSError) as error:
            raise ValueError(f"its mask is no PNG: {error}") from error
        return placed(crop, round(points[0][0]), round(points[0][1]), image)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind not in ("polygon", "oriented_rectangle"):
        raise ValueError(f"shape_type {kind!r} is neither polygon, rectangle nor mask")
    return filled(points, image)


# --- CVAT for images 1.1


def is_cvat(dataset: Path) -> bool:
    """Whether this is an `annotations.xml` of CVAT, or a folder with one."""
    file = _cvat_file(dataset)
    return file.suffix.lower() == ".xml" and file.is_file() and root_tag(file) == "annotations"


def cvat_class_names(dataset: Path) -> list[str] | None:
    """The labels of the `meta` element, where it is written before the images as CVAT does."""
    for element in xml_elements(_cvat_file(dataset)):
        if element.tag == "meta":
            return [(label.findtext("name") or "").strip() for label in element.iter("label")] or None
        if element.tag == "image":
            break
    return None


def cvat_images(dataset: Path, on_bad: OnBad | None = None) -> Iterator[ToolImage]:
    """In the order of the file, of which only one image is in memory at a time. Shapes are elements."""
    file = _cvat_file(dataset)
    folders = (file.parent / "images", file.parent)
    for element in xml_elements(file):
        if element.tag == "track":
            raise DatasetError(f"{file} holds tracks of a video: export it from CVAT as 'CVAT for images 1.1'")
        if element.tag != "image":
            continue
        name, subset = element.get("name", ""), element.get("subset", "")
        places = [folder / place for folder in folders for place in (name, f"{subset}/{name}")]
        path = next((place for place in places if place.is_file()), None)
        split, test = side_of([subset] if subset else Path(name).parent.parts)
        try:
            width, height = int(element.attrib["width"]), int(element.attrib["height"])
        except (KeyError, ValueError) as error:
            if on_bad is None:
                raise DatasetError(f"{file}: image {name!r} has no width and height") from error
            on_bad(name, "cannot be read", "it has no width and height")
            continue
        yield ToolImage(path, name, split, width, height, [shape for shape in element if shape.tag != "tag"], test)
        element.clear()


def cvat_shape(shape: Any, image: ToolImage) -> ToolShape:
    name = shape.attrib["label"].strip()
    told = next((one.text for one in shape.iter("attribute") if one.get("name") == "score"), None)
    score = float(told) if told else None
    if shape.tag == "mask":
        left, top, width, height = (int(float(shape.attrib[key])) for key in ("left", "top", "width", "height"))
        runs = np.array(shape.attrib["rle"].split(","), np.int64)
        crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        corners = np.array([(left, top), (left + width, top + height)], np.float64)
        return ToolShape.of_mask(name, placed(crop, left, top, image), corners, score)
    if shape.tag == "polygon":
        points = [[float(side) for side in point.split(",")] for point in shape.attrib["points"].split(";")]
        return ToolShape.of_mask(name, filled(points, image), np.array(points), score)
    if shape.tag != "box":
        raise ValueError(f"a <{shape.tag}> is neither box, polygon nor mask")
    corners = np.array([float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]).reshape(2, 2)
    turn = math.radians(float(shape.get("rotation", 0)))
    if not turn:
        return ToolShape(name, corners.reshape(4), score=score)
    middle, half = corners.mean(axis=0), (corners[1] - corners[0]) / 2
    square = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    turned = square @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + middle
    return ToolShape.of_mask(name, filled(turned.tolist(), image), turned, score)


def _cvat_file(dataset: Path) -> Path:
    return dataset / CVAT_FILE if dataset.is_dir() else dataset


TOOL_FORMATS = (
    ToolFormat("CVAT for images 1.1", is_cvat, cvat_class_names, cvat_images, cvat_shape),
    ToolFormat("PASCAL VOC", is_voc, voc_class_names, voc_images, voc_shape),
    ToolFormat("LabelMe", is_labelme, labelme_class_names, labelme_images, labelme_shape),
)


def _is_labelme_file(file: Path) -> bool:
    try:
        return _is_labelme(_json(file))
    except DatasetError:
        return False


def _is_labelme(content: dict[str, Any]) -> bool:
    return "shapes" in content and "imagePath" in content


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; {} for one that holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}
