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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.image_modes import read_header
from autodistill_grounded_sam.masks import boxes_xyxy, decode_mask, encode_mask, from_coco
from autodistill_grounded_sam.types import DatasetImage, Mask, OnBad, Rle, Split

Box = npt.NDArray[np.float64]  # (4,) xyxy in pixels
VOC_PICTURES, VOC_OBJECTS, VOC_LABELS = "JPEGImages", "SegmentationObject", "labelmap.txt"
LABELME_LABELS = "labels.txt"
CVAT_FILE = "annotations.xml"
_VALID = frozenset(("valid", "val", "validation"))  # names of a folder, list or subset that is the validation split
_LOOKED_AT = 50  # files that are opened to tell which tool wrote a folder


@dataclass(frozen=True)
class ToolImage:
    """An image of a tool's dataset with its shapes as the tool wrote them; `path` is None where its file is not there."""

    path: Path | None
    name: str
    split: Split
    width: int
    height: int
    shapes: Sequence[Any]


@dataclass(frozen=True)
class ToolShape:
    """One object: its class, and a box or a mask of the image (then the box is the mask's own)."""

    class_name: str
    xyxy: Box
    rle: Rle | None = None

    @staticmethod
    def of_mask(class_name: str, rle: Rle) -> ToolShape:
        return ToolShape(class_name, boxes_xyxy([rle])[0].astype(np.float64), rle)


@dataclass(frozen=True)
class ToolFormat:
    """How the files of one tool are told, listed and read. `class_names` is None where the dataset does not list its classes."""

    name: str
    is_it: Callable[[Path], bool]
    class_names: Callable[[Path], list[str] | None]
    images: Callable[[Path], Iterator[ToolImage]]
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
    return sorted({shape.class_name for image in tool.images(dataset) for shape in _shapes(image, tool, ignored)})


def read_tool_dataset(dataset: Path, tool: ToolFormat, on_bad: OnBad | None = None) -> Iterator[DatasetImage]:
    """Every image with its labels, `class_id` by `tool_class_names`. Where a label is only a box, the image's `rle` is None."""
    index = {name: place for place, name in enumerate(tool_class_names(dataset, tool))}
    for image in tool.images(dataset):
        read = _shapes(image, tool, on_bad)
        for name in {shape.class_name for shape in read} - index.keys():
            problem = f"has a label {name!r}, which is none of the classes {', '.join(index)}"
            if on_bad is None:
                raise DatasetError(f"{dataset}: {image.name} {problem}")
            on_bad(image.name, "unknown class", problem)
        shapes = [shape for shape in read if shape.class_name in index]
        masks = [shape.rle for shape in shapes if shape.rle is not None]
        yield DatasetImage(
            image.path,
            image.name,
            image.split,
            image.width,
            image.height,
            np.array([index[shape.class_name] for shape in shapes], np.int32),
            np.array([shape.xyxy for shape in shapes], np.float32).reshape(-1, 4),
            tuple(masks) if len(masks) == len(shapes) else None,
        )


def upright_size(image_path: Path) -> tuple[int, int]:
    """Width and height of a dataset's image, by its header; raises DatasetError where it cannot be opened."""
    # Not Image.open: ultralytics, once imported, replaces it by one that installs packages where a file is no image.
    try:
        with image_path.open("rb") as file:
            return read_header(file, image_path.name, max_megapixels=math.inf).size
    except OSError as error:
        raise DatasetError(f"{image_path} of the dataset cannot be opened: {error}") from error


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


def _split_of(place: Path) -> Split:
    return "valid" if not _VALID.isdisjoint(place.parts) else "train"


def _filled(points: Sequence[Sequence[float]], image: ToolImage) -> Rle:
    flat = [float(number) for point in points for number in point]
    if len(flat) < 6:
        raise ValueError(f"a polygon needs 3 points, got {len(flat) // 2}")
    return from_coco([flat], image.width, image.height)


def _placed(crop: Mask, left: int, top: int, image: ToolImage) -> Rle:
    """The mask of the image that holds `crop` (height, width) at a place."""
    height, width = crop.shape
    if left < 0 or top < 0 or left + width > image.width or top + height > image.height:
        raise ValueError(f"a mask of {width}x{height} at {left}, {top} reaches beyond the image of {image.width}x{image.height}")
    mask = np.zeros((image.height, image.width), np.bool_)
    mask[top : top + height, left : left + width] = crop
    return encode_mask(mask)


def _lines(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    return (path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))


# --- PASCAL VOC


def is_voc(dataset: Path) -> bool:
    """Whether this is a folder with XML files of VOC, in `Annotations` or beside the images."""
    return dataset.is_dir() and any(_root_tag(path) == "annotation" for path in islice(_files(dataset, ".xml"), _LOOKED_AT))


def voc_class_names(dataset: Path) -> list[str] | None:
    """The classes of a `labelmap.txt` (`name:r,g,b:parts:actions`), as CVAT and Datumaro write it beside VOC's own files."""
    lines = _lines(dataset / VOC_LABELS)
    if lines is None:
        return None
    names = [line.rsplit(":", 3)[0] for line in lines if not line.startswith("#")]
    return [name for name in names if name != "background"]


def voc_images(dataset: Path) -> Iterator[ToolImage]:
    """Sorted by file; the split is that of `ImageSets/Main` where there is one, else of the folder's name."""
    lists = sorted((dataset / "ImageSets" / "Main").glob("*.txt"))
    valid = {line.split()[0] for file in lists if file.stem in _VALID for line in _lines(file) or ()}
    for file in sorted(_files(dataset, ".xml")):
        image = voc_image(file)
        split: Split = "valid" if file.stem in valid else _split_of(file.relative_to(dataset).parent)
        yield ToolImage(image.path, image.name, split, image.width, image.height, image.shapes)


def voc_image(file: Path) -> ToolImage:
    """One XML file. Its shapes are (object element, its mask or None): number k of `SegmentationObject/*.png` is the k-th's."""
    root = _xml(file)
    if root.tag != "annotation":
        raise DatasetError(f"{file} is not of PASCAL VOC: its root is <{root.tag}>, not <annotation>")
    name = Path((root.findtext("filename") or "").replace("\\", "/")).name
    suffix = Path(name).suffix or ".jpg"
    near = [file.parent.parent / VOC_PICTURES, file.parent, file.parent.parent / "images"]
    candidates = [folder / stem for folder in near for stem in dict.fromkeys((f"{file.stem}{suffix}", name)) if stem]
    path = next((path for path in candidates if path.is_file()), None)
    size = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height")]
    width, height = size if all(size) or path is None else upright_size(path)
    if not (width and height):
        raise DatasetError(f"{file} has no <size>, and its image {name!r} is not there")
    objects = root.findall("object")
    picture = file.parent.parent / VOC_OBJECTS / f"{file.stem}.png"
    masks: list[Rle | None] = [None] * len(objects)
    if picture.is_file() and objects:
        with Image.open(picture) as opened:
            numbers = np.asarray(opened)
        masks = [encode_mask(numbers == place) for place in range(1, len(objects) + 1)]
    shapes = list(zip(objects, masks, strict=True))
    return ToolImage(path, path.name if path else name or file.stem, "train", width, height, shapes)


def voc_shape(shape: Any, image: ToolImage) -> ToolShape:
    """Corners of VOC count pixels from 1 and the last is inside: the box from 1 to 10 is ten pixels wide."""
    element, rle = shape
    x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax"))
    xyxy = np.array([x1 - 1, y1 - 1, x2, y2])
    if not np.isfinite(xyxy).all() or x2 < x1 or y2 < y1:
        raise ValueError(f"a bndbox needs xmin <= xmax and ymin <= ymax, got {x1, y1, x2, y2}")
    return ToolShape(element.findtext("name") or "", xyxy.clip(0, [image.width, image.height] * 2), rle)


# --- LabelMe


def is_labelme(dataset: Path) -> bool:
    """Whether this is a folder with JSON files of LabelMe."""
    return dataset.is_dir() and any(_is_labelme_file(path) for path in islice(_files(dataset, ".json"), _LOOKED_AT))


def labelme_images(dataset: Path) -> Iterator[ToolImage]:
    """Sorted by file; the split is that of the folder's name."""
    for file in sorted(_files(dataset, ".json")):
        if _is_labelme_file(file):
            yield labelme_image(file, _split_of(file.relative_to(dataset).parent))


def labelme_image(file: Path, split: Split = "train") -> ToolImage:
    """One JSON file. Its shapes are lists: those of one label and `group_id` are parts of one object."""
    content = _json(file)
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
    return ToolImage(path if path.is_file() else None, path.name, split, width, height, list(groups.values()))


def labelme_shape(parts: Any, image: ToolImage) -> ToolShape:
    name = str(parts[0]["label"])
    if all(part["shape_type"] == "rectangle" for part in parts):
        corners = np.concatenate([np.array(part["points"], np.float64).reshape(2, 2) for part in parts])
        low, high = corners.min(axis=0).clip(0), corners.max(axis=0).clip(max=(image.width, image.height))
        return ToolShape(name, np.concatenate([low, high]))
    masks = [_labelme_mask(part, image) for part in parts]
    if len(masks) == 1:
        return ToolShape.of_mask(name, masks[0])
    return ToolShape.of_mask(name, encode_mask(np.any([decode_mask(mask) for mask in masks], axis=0)))


def _labelme_mask(shape: Any, image: ToolImage) -> Rle:
    kind, points = shape["shape_type"], shape["points"]
    if kind == "mask":
        try:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
                crop = np.asarray(picture).astype(np.bool_)
        except (binascii.Error, OSError) as error:
            raise ValueError(f"its mask is no PNG: {error}") from error
        return _placed(crop, round(points[0][0]), round(points[0][1]), image)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind not in ("polygon", "oriented_rectangle"):
        raise ValueError(f"shape_type {kind!r} is neither polygon, rectangle nor mask")
    return _filled(points, image)


# --- CVAT for images 1.1


def is_cvat(dataset: Path) -> bool:
    """Whether this is an `annotations.xml` of CVAT, or a folder with one."""
    file = _cvat_file(dataset)
    return file.suffix.lower() == ".xml" and file.is_file() and _root_tag(file) == "annotations"


def cvat_class_names(dataset: Path) -> list[str] | None:
    """The labels of the `meta` element, where it is written before the images as CVAT does."""
    for element in _xml_elements(_cvat_file(dataset)):
        if element.tag == "meta":
            return [label.findtext("name") or "" for label in element.iter("label")] or None
        if element.tag == "image":
            break
    return None


def cvat_images(dataset: Path) -> Iterator[ToolImage]:
    """In the order of the file, of which only one image is in memory at a time. Shapes are elements."""
    file = _cvat_file(dataset)
    folders = (file.parent / "images", file.parent)
    for element in _xml_elements(file):
        if element.tag == "track":
            raise DatasetError(f"{file} holds tracks of a video: export it from CVAT as 'CVAT for images 1.1'")
        if element.tag != "image":
            continue
        name, subset = element.get("name", ""), element.get("subset", "")
        places = [folder / place for folder in folders for place in (name, f"{subset}/{name}")]
        path = next((place for place in places if place.is_file()), None)
        split = _split_of(Path(subset.lower())) if subset else _split_of(Path(name).parent)
        try:
            width, height = int(element.attrib["width"]), int(element.attrib["height"])
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{file}: image {name!r} has no width and height") from error
        yield ToolImage(path, name, split, width, height, [shape for shape in element if shape.tag != "tag"])
        element.clear()


def cvat_shape(shape: Any, image: ToolImage) -> ToolShape:
    name = shape.attrib["label"]
    if shape.tag == "mask":
        left, top, width, height = (int(float(shape.attrib[key])) for key in ("left", "top", "width", "height"))
        runs = np.array(shape.attrib["rle"].split(","), np.int64)
        crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        return ToolShape.of_mask(name, _placed(crop, left, top, image))
    if shape.tag == "polygon":
        points = [[float(side) for side in point.split(",")] for point in shape.attrib["points"].split(";")]
        return ToolShape.of_mask(name, _filled(points, image))
    if shape.tag != "box":
        raise ValueError(f"a <{shape.tag}> is neither box, polygon nor mask")
    corners = np.array([float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]).reshape(2, 2)
    turn = math.radians(float(shape.get("rotation", 0)))
    if not turn:
        return ToolShape(name, corners.reshape(4))
    middle, half = corners.mean(axis=0), (corners[1] - corners[0]) / 2
    square = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    turned = square @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + middle
    return ToolShape.of_mask(name, _filled(turned.tolist(), image))


def _cvat_file(dataset: Path) -> Path:
    return dataset / CVAT_FILE if dataset.is_dir() else dataset


TOOL_FORMATS = (
    ToolFormat("CVAT for images 1.1", is_cvat, cvat_class_names, cvat_images, cvat_shape),
    ToolFormat("PASCAL VOC", is_voc, voc_class_names, voc_images, voc_shape),
    ToolFormat("LabelMe", is_labelme, lambda dataset: _lines(dataset / LABELME_LABELS), labelme_images, labelme_shape),
)


# --- files


def _is_labelme_file(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{file} is not a JSON object: {error}") from error


def _xml(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file} is not XML: {error}") from error


def _xml_elements(file: Path, event: Literal["start", "end"] = "end") -> Iterator[ElementTree.Element]:
    try:
        yield from (element for _, element in ElementTree.iterparse(file, (event,)))
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file} is not XML: {error}") from error


def _root_tag(file: Path) -> str:
    try:
        return next((element.tag for element in _xml_elements(file, "start")), "")
    except DatasetError:
        return ""
