"""Reader of PASCAL VOC: an XML file an image, in `Annotations` or beside the images, and pictures of masks if there are some."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import areas, boxes_xyxy, encode_mask
from autodistill_grounded_sam.tool_images import (
    LOOKED_AT,
    ToolImage,
    ToolShape,
    files_of,
    lines_of_text,
    root_tag,
    side_of,
    upright_size,
    xml_root,
)
from autodistill_grounded_sam.types import OnBad, Rle

VOC_PICTURES, VOC_OBJECTS, VOC_LABELS = "JPEGImages", "SegmentationObject", "labelmap.txt"
ROUNDING_PX = 2.0  # that a mask may reach beyond the box of its object
_COLOURED = re.compile(r"(.*):\d+,\d+,\d+:[^:]*:[^:]*")  # a line of `labelmap.txt`, whose head is a comment
_LISTED = re.compile(r"(.*?)(?:\s+-?[01])?")  # an image of a list, with or without a class's flag


def is_voc(dataset: Path) -> bool:
    """Whether this is a folder with XML files of VOC, in `Annotations` or beside the images."""
    return dataset.is_dir() and any(root_tag(path) == "annotation" for path in islice(files_of(dataset, ".xml"), LOOKED_AT))


def voc_class_names(dataset: Path) -> list[str] | None:
    """The classes of a `labelmap.txt` (`name:r,g,b:parts:actions`), as CVAT and Datumaro write it beside VOC's own files. The
    first `background` is what no object covers; a second one is a class."""
    lines = lines_of_text(dataset / VOC_LABELS)
    if lines is None:
        return None
    names = [found[1].strip() for line in lines if (found := _COLOURED.fullmatch(line))]
    if "background" in names:
        names.remove("background")
    return names


def voc_images(dataset: Path, on_bad: OnBad | None = None) -> Iterator[ToolImage]:
    """Sorted by file; the split is that of `ImageSets/Main` where there is one, else of the folder's name."""
    side_of_stem = {}
    for file in sorted((dataset / "ImageSets" / "Main").glob("*.txt")):
        if side_of([file.stem])[0] == "valid":
            for line in lines_of_text(file) or ():
                if found := _LISTED.fullmatch(line):
                    side_of_stem[found[1]] = side_of([file.stem])
    for file in sorted(files_of(dataset, ".xml")):
        try:
            image = voc_image(file, on_bad)
        except DatasetError as error:
            if on_bad is None:
                raise
            on_bad(file.name, "cannot be read", str(error))
            continue
        split, test = side_of_stem.get(file.stem) or side_of(file.relative_to(dataset).parent.parts)
        yield ToolImage(image.path, image.name, split, image.width, image.height, image.shapes, test)


def voc_image(file: Path, on_bad: OnBad | None = None) -> ToolImage:
    """One XML file. Its shapes are (object element, its mask or None), see `_masks_of`."""
    root = xml_root(file)
    if root.tag != "annotation":
        raise DatasetError(f"{file} is not of PASCAL VOC: its root is <{root.tag}>, not <annotation>")
    name = Path((root.findtext("filename") or "").replace("\\", "/")).name
    suffix = Path(name).suffix or ".jpg"
    near = [file.parent.parent / VOC_PICTURES, file.parent, file.parent.parent / "images"]
    candidates = [folder / stem for folder in near for stem in dict.fromkeys((f"{file.stem}{suffix}", name)) if stem]
    path = next((path for path in candidates if path.is_file()), None)
    try:
        size = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height")]
    except ValueError as error:
        raise DatasetError(f"{file} has a <size> that is no number: {error}") from error
    width, height = size if all(size) or path is None else upright_size(path)
    if not (width and height):
        raise DatasetError(f"{file} has no <size>, and its image {name!r} is not there")
    objects = root.findall("object")
    masks: list[Rle | None] = [None] * len(objects)
    picture = file.parent.parent / VOC_OBJECTS / f"{file.stem}.png"
    if picture.is_file() and objects:
        numbers = _numbers(picture)
        if numbers.shape == (height, width):
            masks = _masks_of(numbers, np.array([_corners(element) for element in objects]))
        else:
            problem = f"{picture} is {numbers.shape[1]}x{numbers.shape[0]}, the image {width}x{height}: it has boxes only"
            if on_bad is None:
                raise DatasetError(problem)
            on_bad(path.name if path else name, "masks of another size", problem)
    shapes = list(zip(objects, masks, strict=True))
    return ToolImage(path, path.name if path else name or file.stem, "train", width, height, shapes)


def voc_shape(shape: Any, image: ToolImage) -> ToolShape:
    """Corners of VOC count pixels from 1 and the last is inside: the box from 1 to 10 is ten pixels wide."""
    element, rle = shape
    x1, y1, x2, y2 = _corners(element)
    xyxy = np.array([x1 - 1, y1 - 1, x2, y2])
    if not np.isfinite(xyxy).all() or x2 < x1 or y2 < y1:
        raise ValueError(f"a bndbox needs xmin <= xmax and ymin <= ymax, got {x1, y1, x2, y2}")
    score = element.findtext("score")
    inside = xyxy.clip(0, [image.width, image.height] * 2)
    return ToolShape((element.findtext("name") or "").strip(), inside, rle, float(score) if score else None)


def _corners(element: Any) -> tuple[float, ...]:
    """xmin, ymin, xmax, ymax of an object, nan for what is missing or no number."""
    return tuple(_number(element.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax"))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _masks_of(numbers: npt.NDArray[np.int64], corners: npt.NDArray[np.float64]) -> list[Rle | None]:
    """The mask of each object by its corners (n, 4); of none where the picture shows none of them.

    After the devkit number k is the k-th object. Datumaro, and so CVAT, numbers them as they lie on one another: where a mask is
    not inside the box of its object, each goes to the box that it fits best.
    """
    from scipy.optimize import linear_sum_assignment

    rles = [encode_mask(numbers == place) for place in range(1, len(corners) + 1)]
    shown = areas(rles) > 0
    if not shown.any():
        return [None] * len(corners)
    boxes, tight = np.nan_to_num(corners - [1, 1, 0, 0]), boxes_xyxy(rles).astype(np.float64)
    away = np.maximum(boxes[:, :2] - tight[:, :2], tight[:, 2:] - boxes[:, 2:]).max(axis=1)
    if (away[shown] <= ROUNDING_PX).all():
        return list(rles)
    low, high = np.maximum(boxes[:, None, :2], tight[None, :, :2]), np.minimum(boxes[:, None, 2:], tight[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    sizes = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (boxes, tight)]
    iou = shared / np.maximum(sizes[0][:, None] + sizes[1][None] - shared, 1)
    return [rles[place] for place in linear_sum_assignment(-iou)[1].tolist()]


def voc_palette() -> list[int]:
    """The 256 colours of PASCAL VOC, as one list of r g b: an index shows the same colour in every tool."""
    colours = np.zeros((256, 3), np.int64)
    index = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return [int(value) for value in colours.reshape(-1)]


def _numbers(picture: Path) -> npt.NDArray[np.int64]:
    """The numbers (height, width) of a picture of objects: its own, or those of VOC's colours, as CVAT and Datumaro paint."""
    try:
        with Image.open(picture) as opened:
            if opened.mode in ("P", "L", "1") or opened.mode.startswith("I"):
                return np.asarray(opened).astype(np.int64)
            codes = np.asarray(opened.convert("RGB")).astype(np.int64) @ [1 << 16, 1 << 8, 1]
    except OSError as error:
        raise DatasetError(f"{picture} cannot be read: {error}") from error
    known = np.array(voc_palette()).reshape(-1, 3) @ [1 << 16, 1 << 8, 1]
    order = np.argsort(known)
    place = order[np.searchsorted(known, codes, sorter=order).clip(max=255)]
    return np.where(known[place] == codes, place, 0)
