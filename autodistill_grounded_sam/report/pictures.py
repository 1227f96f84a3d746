"""Examples as small pictures: a piece of the image as WebP, and the outlines above it as vectors, crisp at any zoom."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.errors import ImageReadError
from autodistill_grounded_sam.images import read_labelled
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.report.samples import Box, Example, Shape
from autodistill_grounded_sam.types import ImageRecord, RgbImage, Rle

logger = logging.getLogger(__name__)

CONTEXT = 2.6  # the piece of the image, as a multiple of the object's longer side
CLOSE = 1.3  # what is shown before one zooms in, likewise
SMALLEST_CLOSE_PX, SMALLEST_PIECE_PX = 24, 160  # of the image: of a speck alone nobody can tell what it is
SIDE_PX = 320  # the longest of an embedded picture
WEBP_QUALITY = 72
FINE = 2  # outlines lie on a grid of half pixels of the embedded picture
TOLERANCE = 1.0  # of an outline, in steps of that grid
LOOSE = 1.5  # of the outlines of neighbours
SMALL = 32  # steps; smaller ones are looked at closely: a disc would be an octagon, a pixel its diagonal


@dataclass(frozen=True)
class Picture:
    """An embedded piece of an image, `width` x `height` pixels; `close` is the part that is shown first (x, y, width, height).

    `where` is the piece within its image, as shares (x, y, width, height). `own`, `rival` and `neighbours` are outlines: the
    data of SVG paths, in steps of which `FINE` are a pixel of the picture.
    """

    data: str
    width: int
    height: int
    close: tuple[float, float, float, float]
    where: tuple[float, float, float, float]
    own: str
    rival: str
    neighbours: str

    @property
    def bytes(self) -> int:
        return len(self.data) + sum(map(len, (self.own, self.rival, self.neighbours)))


def draw_pictures(examples: Sequence[Example], budget_bytes: int) -> list[Picture | None]:
    """A picture for each example, as long as they fit in `budget_bytes` (the first ones first); None where it does not, or
    where the image cannot be read any more. Every image is read once."""
    by_image = sorted(range(len(examples)), key=lambda place: examples[place].image.id)
    pictures: list[Picture | None] = [None] * len(examples)
    for _, places in groupby(by_image, key=lambda place: examples[place].image.id):
        mine = list(places)
        image_rgb = _readable(examples[mine[0]].image)
        if image_rgb is not None:
            for place in mine:
                pictures[place] = draw(image_rgb, examples[place])
    left = budget_bytes
    for place, picture in enumerate(pictures):
        left -= 0 if picture is None else picture.bytes
        if left < 0:
            pictures[place] = None
    return pictures


def draw(image_rgb: RgbImage, example: Example) -> Picture:
    """The example as it is shown: the object with what lies around it, or the whole image for an example without a shape."""
    height, width = image_rgb.shape[:2]
    whole = (0, 0, width, height)
    piece, close = (whole, whole) if example.shape is None else _pieces(_extent(example.shape, example.rival), width, height)
    x1, y1, x2, y2 = piece
    shrink = min(1.0, SIDE_PX / max(x2 - x1, y2 - y1))
    size = max(1, round((x2 - x1) * shrink)), max(1, round((y2 - y1) * shrink))
    small = Image.fromarray(image_rgb[y1:y2, x1:x2])
    if size != small.size:
        small = small.resize(size, Image.Resampling.LANCZOS)
    frame = _Frame(piece, size)
    return Picture(
        _data_url(small),
        *size,
        frame.placed(close),
        (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height),
        frame.outline([] if example.shape is None else [example.shape], TOLERANCE),
        frame.outline([] if example.rival is None else [example.rival], TOLERANCE),
        frame.outline(example.neighbours, TOLERANCE if example.shape is None else LOOSE),
    )


@dataclass(frozen=True)
class _Frame:
    """A piece of an image (x1, y1, x2, y2 in its pixels) that became a picture of `size` (width, height)."""

    piece: tuple[int, int, int, int]
    size: tuple[int, int]

    def placed(self, part: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
        """A part of the piece (corners in pixels of the image) as x, y, width and height in the picture."""
        x1, y1, x2, y2 = self.piece
        across, down = self.size[0] / (x2 - x1), self.size[1] / (y2 - y1)
        return (part[0] - x1) * across, (part[1] - y1) * down, (part[2] - part[0]) * across, (part[3] - part[1]) * down

    def outline(self, shapes: Iterable[Shape], tolerance: float) -> str:
        return "".join(self._path(shape, tolerance) for shape in shapes)

    def _path(self, shape: Shape, tolerance: float) -> str:
        """The outline of the mask, or of the box where there is no mask; "" for what lies outside the piece."""
        x1, y1, x2, y2 = self.piece
        if shape.xyxy[0] >= x2 or shape.xyxy[1] >= y2 or shape.xyxy[2] <= x1 or shape.xyxy[3] <= y1:
            return ""
        from_mask = "" if shape.rle is None else self._mask_path(shape.rle, tolerance)
        return from_mask or self._box_path(shape.xyxy)

    def _mask_path(self, rle: Rle, tolerance: float) -> str:
        import cv2

        x1, y1, x2, y2 = self.piece
        inside = decode_mask(rle)[y1:y2, x1:x2].astype(np.uint8) * 255
        fine = (self.size[0] * FINE, self.size[1] * FINE)
        way = cv2.INTER_AREA if fine[0] < x2 - x1 else cv2.INTER_LINEAR
        sampled = cv2.resize(inside, fine, interpolation=way) > 127
        outlines, _ = cv2.findContours(sampled.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        return "".join(_closed(_simpler(outline, tolerance)) for outline in outlines)

    def _box_path(self, xyxy: Box) -> str:
        x1, y1, x2, y2 = self.piece
        scale = np.array([self.size[0] / (x2 - x1), self.size[1] / (y2 - y1)]) * FINE
        corners = np.array([[xyxy[0], xyxy[1]], [xyxy[2], xyxy[1]], [xyxy[2], xyxy[3]], [xyxy[0], xyxy[3]]])
        limits = np.array(self.size) * FINE
        placed = np.clip((corners - (x1, y1)) * scale, 0, limits).round().astype(np.int64)
        return _closed(placed) if (np.ptp(placed, axis=0) > 0).all() else ""


def _simpler(ring: npt.NDArray[np.int32], tolerance: float) -> npt.NDArray[np.int32]:
    """The corners (k, 2) of a ring (n, 1, 2) that strays so much, small ones less."""
    import cv2

    own = tolerance * min(1.0, np.ptp(ring, axis=(0, 1)).min() / SMALL)
    corners: npt.NDArray[np.int32] = cv2.approxPolyDP(ring, own, True)[:, 0]
    return corners


def _closed(corners: npt.NDArray[np.integer]) -> str:
    """A closed path; steps from corner to corner are shorter to write than places."""
    (x, y), *_ = corners.tolist()
    steps = "".join(f"{dx:d} {dy:d} " for dx, dy in np.diff(corners, axis=0).tolist())
    return f"M{x} {y}l{steps}z" if steps else f"M{x} {y}h1v1h-1z"


def _extent(shape: Shape, rival: Shape | None) -> Box:
    """What has to be seen: the object, and what it lost to."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = shape.xyxy, (rival or shape).xyxy
    return min(x1, u1), min(y1, v1), max(x2, u2), max(y2, v2)


def _pieces(xyxy: Box, width: int, height: int) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """What is embedded, and the part of it that is shown first, both in pixels of the image."""
    longer = max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])
    return _around(xyxy, max(longer * CONTEXT, SMALLEST_PIECE_PX), width, height), _around(
        xyxy, max(longer * CLOSE, SMALLEST_CLOSE_PX), width, height
    )


def _around(xyxy: Box, side: float, width: int, height: int) -> tuple[int, int, int, int]:
    """A square of this side around the middle of a box, moved and cut so that it lies in the image."""
    spans = []
    for low, high, limit in ((xyxy[0], xyxy[2], width), (xyxy[1], xyxy[3], height)):
        span = min(round(side), limit)
        first = min(max(0, round((low + high - span) / 2)), limit - span)
        spans.append((first, first + max(1, span)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _readable(image: ImageRecord) -> RgbImage | None:
    try:
        return read_labelled(image)
    except ImageReadError as error:
        logger.info("%s is not shown in the report: %s", image.id, error)
        return None


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
