"""The pictures that are learnt from: each example again and again, cut, enlarged, mirrored, relit, and four in one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.types import Float32, Int32

MOSAIC_SHARE = 0.35  # of the pictures are four views in one, so that objects are met smaller than they are, and in other company
WHOLE_SHARE = 0.3  # of the views show all of the image, as detection will
SMALLEST_WINDOW = 0.5  # of the sides of an image: what is cut out is enlarged up to twice
LEAST_LEFT = 0.35  # of the area of an object that a cut must leave for its label to stay
MOST_STRETCH = 1.3  # between the proportions of a window and those of the picture it fills
CACHE_BYTES = 1 << 30

Random = np.random.Generator


class View(NamedTuple):
    """A picture `pixels` (3, height, width) uint8, its objects' classes (n,) and `boxes` (n, 4) xyxy as shares of its sides."""

    pixels: Tensor
    class_id: Int32
    boxes: Float32


class Pictures:
    """The examples' pixels, no larger than learning needs, kept in memory as far as `CACHE_BYTES` reaches."""

    def __init__(self, examples: Sequence[Example], shorter_side_px: int) -> None:
        self.examples = examples
        self._largest = round(shorter_side_px / SMALLEST_WINDOW)
        bytes_each = 3 * self._largest**2 * 2
        self.read = lru_cache(maxsize=max(8, CACHE_BYTES // bytes_each))(self._read)

    def _read(self, place: int) -> Tensor:
        """(3, height, width) uint8."""
        pixels = torch.from_numpy(read_image(self.examples[place].path).copy()).permute(2, 0, 1)
        short = min(pixels.shape[-2:])
        return pixels if short <= self._largest else _resized(pixels, tuple(
            round(side * self._largest / short) for side in pixels.shape[-2:]
        ))  # fmt: skip


def draw_view(rng: Random, pictures: Pictures, size: tuple[int, int], turns: bool) -> View:
    """A view of (width, height) pixels; `turns` also turns it by quarter turns, for what has no upright (cells, roofs)."""
    if rng.random() < MOSAIC_SHARE:
        view = _mosaic(rng, pictures, size, turns)
    else:
        view = _window(rng, pictures, int(rng.integers(len(pictures.examples))), size, turns)
    if rng.random() < 0.5:
        boxes = np.stack([1 - view.boxes[:, 2], view.boxes[:, 1], 1 - view.boxes[:, 0], view.boxes[:, 3]], axis=1)
        view = View(view.pixels.flip(-1), view.class_id, boxes)
    return view._replace(pixels=_relit(rng, view.pixels))


def _mosaic(rng: Random, pictures: Pictures, size: tuple[int, int], turns: bool) -> View:
    width, height = size
    across, down = (int(side * rng.uniform(0.35, 0.65)) for side in size)
    canvas = torch.empty(3, height, width, dtype=torch.uint8)
    classes, boxes = [], []
    for left, right in ((0, across), (across, width)):
        for top, bottom in ((0, down), (down, height)):
            place = int(rng.integers(len(pictures.examples)))
            part = _window(rng, pictures, place, (right - left, bottom - top), turns)
            canvas[:, top:bottom, left:right] = part.pixels
            scale = np.array([right - left, bottom - top] * 2) / np.array([width, height] * 2)
            boxes.append(part.boxes * scale + np.array([left, top] * 2) / np.array([width, height] * 2))
            classes.append(part.class_id)
    return View(canvas, np.concatenate(classes), np.concatenate(boxes).astype(np.float32))


def _window(rng: Random, pictures: Pictures, place: int, size: tuple[int, int], turns: bool) -> View:
    """A window of an example, resized to (width, height). It keeps the picture's proportions within `MOST_STRETCH`."""
    example, pixels, boxes = pictures.examples[place], pictures.read(place), pictures.examples[place].shares
    for _ in range(int(rng.integers(4)) if turns else 0):  # rot90 over (-2, -1): (x, y) -> (y, 1 - x)
        pixels = torch.rot90(pixels, 1, (-2, -1))
        boxes = np.stack([boxes[:, 1], 1 - boxes[:, 2], boxes[:, 3], 1 - boxes[:, 0]], axis=1)
    height, width = pixels.shape[-2:]
    share = 1.0 if rng.random() < WHOLE_SHARE else float(np.exp(rng.uniform(np.log(SMALLEST_WINDOW), 0)))
    wanted = size[0] / size[1] * float(np.exp(rng.uniform(-0.15, 0.15)))
    ratio = float(np.clip(width / height, wanted / MOST_STRETCH, wanted * MOST_STRETCH))
    across = max(1, round(share * min(width, height * ratio)))
    down = max(1, round(share * min(height, width / ratio)))
    left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
    cut = pixels[:, top : top + down, left : left + across]
    placed = (boxes * np.array([width, height] * 2) - np.array([left, top] * 2)) / np.array([across, down] * 2)
    inside = placed.clip(0, 1)
    kept = _area(inside) >= LEAST_LEFT * _area(placed)
    return View(_resized(cut, (size[1], size[0])), example.class_id[kept], inside[kept].astype(np.float32))


def _area(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    area: npt.NDArray[np.floating] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _resized(pixels: Tensor, size: tuple[int, ...]) -> Tensor:
    """(3, h, w) uint8 to (height, width), as detection resizes."""
    return interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _relit(rng: Random, pixels: Tensor) -> Tensor:
    """Other light: each colour a little stronger or weaker, more or less of colour, contrast and brightness."""
    values = pixels.float() / 255
    grey = values.mean(0, keepdim=True)
    values = grey + (values - grey) * float(rng.uniform(0.6, 1.4))
    values = values * torch.from_numpy(rng.uniform(0.85, 1.15, (3, 1, 1)).astype(np.float32))
    middle = values.mean()
    values = middle + (values - middle) * float(rng.uniform(0.75, 1.25)) + float(rng.uniform(-0.08, 0.08))
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
