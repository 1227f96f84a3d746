"""Pictures of labels for people: one image with its masks, boxes and names, and a sheet of many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.types import Float32, Int32, RgbImage, Rle

# Far apart in hue and lightness, so that neighbours in an ontology differ on any background (after Green-Armytage's alphabet).
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 117, 220), (255, 80, 5), (43, 206, 72), (255, 0, 168), (255, 225, 0), (116, 10, 255), (0, 153, 143), (153, 63, 0),
    (94, 241, 242), (255, 164, 5), (157, 204, 0), (194, 0, 136), (0, 51, 128), (255, 168, 187), (66, 102, 0), (224, 255, 102),
)  # fmt: skip
_MASK_STRENGTH = 0.25  # of the colour over the picture: more would hide what colour the object is
_SMALLEST_DRAWN_PX = 480  # smaller pictures are enlarged first, or their names would cover them


def draw_labels(
    image_rgb: RgbImage,
    xyxy: Float32,
    class_id: Int32,
    class_names: Sequence[str],
    rle: Sequence[Rle] | None = None,
    score: Float32 | None = None,
) -> RgbImage:
    """The image with each label's mask tinted, its box and its name; small images come back enlarged by a whole factor."""
    from PIL import Image, ImageDraw

    height, width = image_rgb.shape[:2]
    factor = max(1, -(-_SMALLEST_DRAWN_PX // max(height, width)))
    canvas = image_rgb.astype(np.float32).repeat(factor, 0).repeat(factor, 1)
    for k, code in enumerate(rle or ()):
        inside = decode_mask(code).repeat(factor, 0).repeat(factor, 1)
        canvas[inside] += _MASK_STRENGTH * (np.array(_colour(class_id[k]), np.float32) - canvas[inside])
        canvas[_edge(inside)] = _colour(class_id[k])
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 400))
    font = _font(max(12, round(max(picture.size) / 45)))
    for k in range(len(class_id)):
        x1, y1, x2, y2 = (float(value) * factor for value in xyxy[k])
        pen.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=_colour(class_id[k]), width=line)
    for k in range(len(class_id)):  # names after all boxes, so that none is crossed out
        name = class_names[int(class_id[k])] + ("" if score is None else f" {score[k]:.2f}")
        _write_name(pen, name, font, float(xyxy[k][0]) * factor, float(xyxy[k][1]) * factor, _colour(class_id[k]), picture.size)
    return np.asarray(picture)


def contact_sheet(pictures: Sequence[RgbImage], columns: int = 4, cell_width_px: int = 480, gap_px: int = 8) -> RgbImage:
    """The pictures in rows on white, each fitted into a cell of 4:3."""
    from PIL import Image

    cell = (cell_width_px, cell_width_px * 3 // 4)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (cell[0] + gap_px) + gap_px, rows * (cell[1] + gap_px) + gap_px), "white")
    for k, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels)
        scale = min(cell[0] / picture.width, cell[1] / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        left = gap_px + (k % columns) * (cell[0] + gap_px) + (cell[0] - size[0]) // 2
        top = gap_px + (k // columns) * (cell[1] + gap_px) + (cell[1] - size[1]) // 2
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, top))
    return np.asarray(sheet)


def dataset_sheet(
    dataset: Path, count: int = 12, columns: int = 4, cell_width_px: int = 480, images: Path | None = None
) -> RgbImage:
    """A sheet of the first `count` images of a dataset (its folder, yaml or json) with their labels.

    `images` is the folder of the images where they are not beside the labels; those that are not there are passed over.
    """
    names = dataset_class_names(dataset)
    places = ((row, row.path if images is None else images / row.name) for row in read_dataset(dataset))
    there = ((row, path) for row, path in places if path is not None and path.is_file())
    pictures = [
        draw_labels(read_image(path), row.xyxy, row.class_id, names, row.rle, row.score) for row, path in islice(there, count)
    ]
    return contact_sheet(pictures, columns, cell_width_px)


def _colour(class_id: Any) -> tuple[int, int, int]:
    return PALETTE[int(class_id) % len(PALETTE)]


def _edge(mask: Any) -> Any:
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write_name(pen: Any, name: str, font: Any, x: float, y: float, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    """The name on a plate of its class's colour above the box, or inside it where the picture ends."""
    left, top, right, bottom = pen.textbbox((0, 0), name, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0.0, x), max(0.0, size[0] - width))
    y = y - height if y >= height else y
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
    pen.text((x + 3 - left, y + 3 - top), name, fill="white" if dark else "black", font=font)
