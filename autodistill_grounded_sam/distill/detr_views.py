"""The pictures that are learnt from: a window of an image or all of it, stretched to the model's square, mirrored and relit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.distill.detr_dataset import not_crowd, read_pixels
from autodistill_grounded_sam.distill.detr_models import Inputs
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.types import DatasetImage, Float32, Int32, RgbImage

WHOLE_SHARE = 0.5  # of the views show all of the image, as prediction will
SMALLEST_WINDOW = 0.5  # of the sides of an image: what is cut out is enlarged up to twice
MOST_STRETCH = 0.15  # logarithm of how much more a window is stretched than the whole image
LEAST_LEFT = 0.35  # of the area of an object's box that a cut must leave for its label to stay

Random = np.random.Generator


class View(NamedTuple):
    """A picture (side, side, 3) with its objects: classes (n,), boxes (n, 4) xyxy as shares of its sides, masks (n, side, side)
    or None."""

    pixels: RgbImage
    class_id: Int32
    boxes: Float32
    masks: npt.NDArray[np.uint8] | None


def draw_view(rng: Random, image: DatasetImage, inputs: Inputs, *, masks: bool, mirror: bool) -> View:
    """A view of an image of its dataset, resized as prediction resizes."""
    kept = not_crowd(image)
    left, top, right, bottom = window = _window(rng, image.width, image.height)
    boxes = image.xyxy[kept].astype(np.float64)
    inside = boxes.clip([left, top, left, top], [right, bottom, right, bottom])
    stays = _area(inside) >= LEAST_LEFT * np.maximum(_area(boxes), 1e-9)
    shares = (inside - [left, top, left, top]) / [right - left, bottom - top, right - left, bottom - top]
    pixels = _relit(rng, inputs.pixels(read_pixels(image)[top:bottom, left:right]).permute(1, 2, 0).numpy())
    places = [place for place, stay in zip(kept, stays, strict=True) if stay]
    cut = _masks(image, places, window, inputs.side_px) if masks else None
    class_id, shares = image.class_id[kept][stays], shares[stays]
    if mirror and rng.random() < 0.5:
        pixels, shares = pixels[:, ::-1], shares[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
        cut = None if cut is None else cut[:, :, ::-1]
    return View(np.ascontiguousarray(pixels), class_id, shares.astype(np.float32), cut)


def _window(rng: Random, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is shown, of about the proportions of the whole."""
    if rng.random() < WHOLE_SHARE:
        return 0, 0, width, height
    share = np.exp(rng.uniform(np.log(SMALLEST_WINDOW), 0))
    stretch = np.exp(rng.uniform(-MOST_STRETCH, MOST_STRETCH) / 2)
    across = int(np.clip(round(width * share * stretch), 1, width))
    down = int(np.clip(round(height * share / stretch), 1, height))
    left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
    return left, top, left + across, top + down


def _masks(image: DatasetImage, places: list[int], window: tuple[int, int, int, int], side: int) -> npt.NDArray[np.uint8]:
    import cv2

    left, top, right, bottom = window
    codes = image.rle or ()
    masks = np.zeros((len(places), side, side), np.uint8)
    for row, place in zip(masks, places, strict=True):
        cut = decode_mask(codes[place])[top:bottom, left:right].astype(np.uint8)
        row[:] = cv2.resize(cut, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return masks


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _relit(rng: Random, pixels: RgbImage) -> RgbImage:
    """Other light: each colour a little stronger or weaker, more or less of colour, contrast and brightness."""
    values = pixels.astype(np.float32) / 255
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * np.float32(rng.uniform(0.6, 1.4))
    values = values * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    middle = values.mean()
    values = middle + (values - middle) * np.float32(rng.uniform(0.75, 1.25)) + np.float32(rng.uniform(-0.08, 0.08))
    return np.asarray((values.clip(0, 1) * 255).round(), np.uint8)
