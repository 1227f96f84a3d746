"""Example images instead of words: a box in a picture that shows what is looked for.

To a run an example is a prompt like any other, `example` and a digest of its pixels and box, so it has a column of scores,
competes with words, and a store belongs to what it shows. The detectors that can use it look up the picture by that prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import ImageReadError, OntologyError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.types import RgbImage

_KEYS = {"image", "box", "digest"}


@dataclass(frozen=True)
class Example:
    """A picture (its absolute path), the xyxy `box` in pixels of it upright, and the `digest` of both."""

    image: str
    box: tuple[float, float, float, float]
    digest: str

    @property
    def prompt(self) -> str:
        """What a model is asked for it."""
        return f"example {self.digest[:16]}"

    @staticmethod
    def of(image: str | Path, box: tuple[float, float, float, float]) -> Example:
        """Read the picture; raises OntologyError if that fails, or if the box does not lie in it."""
        path = Path(image).absolute()
        pixels = _read(path)
        height, width = pixels.shape[:2]
        x1, y1, x2, y2 = box = _as_floats(box)
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise OntologyError(f"the box {list(box)} must be [x1, y1, x2, y2] in pixels of {path}, which is {width}x{height}")
        return Example(str(path), box, _digest(pixels, box))

    def pixels(self) -> RgbImage:
        """The picture (h, w, 3), RGB and upright; raises OntologyError if it is no longer the one that was given."""
        pixels = _read(Path(self.image))
        if _digest(pixels, self.box) != self.digest:
            raise OntologyError(f"the example {self.image}, box {list(self.box)}, is not what it was when the run began")
        return pixels

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "box": list(self.box)}


def read_example(value: Any, folder: Path) -> Example:
    """An example of our schema, `{image: path, box: [x1, y1, x2, y2]}`; a relative path begins in `folder`.

    One that was read before holds its digest, and its picture is not read again until a detector needs it. Raises OntologyError.
    """
    if not isinstance(value, Mapping) or not {"image", "box"} <= set(value) <= _KEYS or not isinstance(value["image"], str):
        raise OntologyError(f"an example must be {{image: path, box: [x1, y1, x2, y2]}}, got {value!r}")
    box = value["box"]
    if not isinstance(box, list) or len(box) != 4 or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in box):
        raise OntologyError(f"the box of an example must be [x1, y1, x2, y2] in pixels, got {box!r}")
    path, xyxy = folder / value["image"], _as_floats(box)
    return Example(str(path), xyxy, str(value["digest"])) if "digest" in value else Example.of(path, xyxy)


def _as_floats(box: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(number) for number in box)
    return x1, y1, x2, y2


def _read(path: Path) -> RgbImage:
    try:
        return read_image(path)
    except ImageReadError as error:
        raise OntologyError(f"the example {path} cannot be read: {error.detail}") from error


def _digest(pixels: RgbImage, box: tuple[float, ...]) -> str:
    return hashlib.sha256(f"{pixels.shape} {list(box)} ".encode() + pixels.tobytes()).hexdigest()
