"""What the readers of tools' datasets share: an image with its shapes, one object, sides, masks, and the files of a folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.image_modes import read_header
from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask, from_coco
from autodistill_grounded_sam.types import Mask, Rle, Split

Box = npt.NDArray[np.float64]  # (4,) xyxy in pixels
# Names of a folder, list or subset that is the validation split
_VALID = frozenset(("valid", "val", "validation"))
_TEST = frozenset(("test", "testing"))
LOOKED_AT = 50  # files that are opened to tell which tool wrote a folder


@dataclass(frozen=True)
class ToolImage:
    """An image of a tool's dataset with its shapes as the tool wrote them; `path` is None where its file is not there."""

    path: Path | None
    name: str
    split: Split
    width: int
    height: int
    shapes: Sequence[Any]
    test: bool = False  # of a test split


@dataclass(frozen=True)
class ToolShape:
    """One object: its class, a box or a mask of the image (then the box is the mask's own), and a score if the tool has one."""

    class_name: str
    xyxy: Box
    rle: Rle | None = None
    score: float | None = None

    @staticmethod
    def of_mask(
        class_name: str, rle: Rle, around: npt.NDArray[np.float64] | None = None, score: float | None = None
    ) -> ToolShape:
        """`around` (n, 2) are points of it: its box, where it is so small that the mask has no pixel."""
        box = boxes_xyxy([rle])[0].astype(np.float64)
        if around is not None and not box.any():
            box = np.concatenate([around.min(axis=0), around.max(axis=0)])
        return ToolShape(class_name, box, rle, score)


def masks_of(rles: Sequence[Rle | None]) -> tuple[tuple[Rle, ...] | None, tuple[Rle | None, ...] | None]:
    """`rle` and `some_rle` of a DatasetImage with these masks, None for a label that has none."""
    whole = [rle for rle in rles if rle is not None]
    if len(whole) == len(rles):
        return tuple(whole), None
    return None, tuple(rles) if whole else None


def upright_size(image_path: Path) -> tuple[int, int]:
    """Width and height of a dataset's image, by its header; raises DatasetError where it cannot be opened."""
    # Not Image.open: ultralytics, once imported, replaces it by one that installs packages where a file is no image.
    try:
        with image_path.open("rb") as file:
            return read_header(file, image_path.name, max_megapixels=math.inf).size
    except OSError as error:
        raise DatasetError(f"{image_path} of the dataset cannot be opened: {error}") from error


def side_of(names: Iterable[str]) -> tuple[Split, bool]:
    """The side that names of folders, lists or subsets stand for, and whether it is a test split, which counts as valid: what was
    held out is never trained on."""
    lower = {name.lower() for name in names}
    is_test = not _TEST.isdisjoint(lower)
    return "valid" if is_test or not _VALID.isdisjoint(lower) else "train", is_test


def filled(points: Sequence[Sequence[float]], image: ToolImage) -> Rle:
    flat = [float(number) for point in points for number in point]
    if len(flat) < 6:
        raise ValueError(f"a polygon needs 3 points, got {len(flat) // 2}")
    return from_coco([flat], image.width, image.height)


def placed(crop: Mask, left: int, top: int, image: ToolImage) -> Rle:
    """The mask of the image that holds `crop` (height, width) at a place."""
    height, width = crop.shape
    if left < 0 or top < 0 or left + width > image.width or top + height > image.height:
        raise ValueError(f"a mask of {width}x{height} at {left}, {top} reaches beyond the image of {image.width}x{image.height}")
    mask = np.zeros((image.height, image.width), np.bool_)
    mask[top : top + height, left : left + width] = crop
    return encode_mask(mask)


def lines_of_text(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def files_of(folder: Path, suffix: str) -> Iterator[Path]:
    return (path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))


def xml_root(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file} is not XML: {error}") from error


def xml_elements(file: Path, event: Literal["start", "end"] = "end") -> Iterator[ElementTree.Element]:
    try:
        yield from (element for _, element in ElementTree.iterparse(file, (event,)))
    except (OSError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file} is not XML: {error}") from error


def root_tag(file: Path) -> str:
    try:
        return next((element.tag for element in xml_elements(file, "start")), "")
    except DatasetError:
        return ""
