"""The training set of the mini weights: painted once, kept as arrays, dealt out in turned and relit batches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from autodistill_grounded_sam.painting import COLOURS, SEEN_PAIRS, SHAPES, PainterSettings, paint_scene

SETTINGS = PainterSettings(pairs=SEEN_PAIRS, objects=(2, 8))
MOST_OBJECTS = 8
COLOUR_NAMES = tuple(COLOURS)
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)  # ImageNet's, as both real processors use
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Scenes:
    """`images` uint8 (n, h, w, 3); `index` uint8 (n, h, w), 0 ground, k the k-th object; `pairs` int8 (n, 8, 2), -1 none;
    `boxes` float32 (n, 8, 4), xyxy as shares of width and height."""

    images: np.ndarray
    index: np.ndarray
    pairs: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Batch:
    """`pixels` float (b, 3, h, w) in 0..1; `index` (b, h, w); `pairs` (b, 8, 2); `boxes` (b, 8, 4) xyxy shares."""

    pixels: torch.Tensor
    index: torch.Tensor
    pairs: np.ndarray
    boxes: np.ndarray

    def normalised(self) -> torch.Tensor:
        return (self.pixels - MEAN) / STD


def _paint_arrays(job: tuple[PainterSettings, int]) -> tuple[np.ndarray, ...]:
    torch.set_num_threads(1)
    settings, seed = job
    scene = paint_scene(settings, seed)
    index = np.zeros(scene.image_rgb.shape[:2], np.uint8)
    pairs = np.full((MOST_OBJECTS, 2), -1, np.int8)
    boxes = np.zeros((MOST_OBJECTS, 4), np.float32)
    for k, item in enumerate(scene.objects):
        index[item.mask] = k + 1
        pairs[k] = COLOUR_NAMES.index(item.colour), SHAPES.index(item.shape)
        boxes[k] = np.array(item.xyxy) / (settings.width, settings.height, settings.width, settings.height)
    return scene.image_rgb, index, pairs, boxes


def shrunk(pixels: torch.Tensor, short_side_px: int) -> torch.Tensor:
    """(b, 3, h, w) as GroundingDinoImageProcessor resizes it: the shorter side to `short_side_px`."""
    scale = short_side_px / min(pixels.shape[-2:])
    size = tuple(int(side * scale) for side in pixels.shape[-2:])
    return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)


def painted(cache: Path, count: int, seed: int, settings: PainterSettings = SETTINGS) -> Scenes:
    """Paint `count` scenes from `seed` on, or read them from `cache` if they are there."""
    parts = ("images", "index", "pairs", "boxes")
    paths = [cache / f"scenes-{seed}-{count}-{part}.npy" for part in parts]
    if not all(path.exists() for path in paths):
        cache.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            rows = list(pool.map(_paint_arrays, [(settings, seed + i) for i in range(count)], chunksize=64))
        for path, column in zip(paths, zip(*rows, strict=True), strict=True):
            np.save(path, np.stack(column))
    return Scenes(*(np.load(path, mmap_mode="r") for path in paths))


def batches(scenes: Scenes, size: int, seed: int, short_side_px: int | None = None) -> Iterator[Batch]:
    """Endless batches of the pictures, shrunk if so asked, each batch turned and mirrored as one and each picture relit.

    A quarter of the batches are cut to squares, so that the models meet more than one proportion; objects of which less than
    a third is left lose their label there.
    """
    if len(scenes) < size:
        raise ValueError(f"batches of {size} need as many scenes, got {len(scenes)}: paint more (--scenes)")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(scenes))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            pixels = torch.from_numpy(scenes.images[rows]).permute(0, 3, 1, 2).float().div_(255)
            pixels = shrunk(pixels, short_side_px) if short_side_px else pixels
            index = torch.from_numpy(scenes.index[rows])
            pairs, boxes = scenes.pairs[rows].astype(np.int64), scenes.boxes[rows].copy()
            if rng.random() < 0.25:
                pixels, index, pairs, boxes = _cut_square(pixels, index, pairs, boxes, rng.random())
            pixels, index, boxes = _turn(pixels, index, boxes, int(rng.integers(4)), bool(rng.random() < 0.5))
            gain = torch.from_numpy(rng.uniform(0.92, 1.08, (size, 3, 1, 1)).astype(np.float32))
            lift = torch.from_numpy(rng.uniform(-0.04, 0.04, (size, 1, 1, 1)).astype(np.float32))
            yield Batch(pixels.mul_(gain).add_(lift).clamp_(0, 1), index, pairs, boxes)


def _cut_square(
    pixels: torch.Tensor, index: torch.Tensor, pairs: np.ndarray, boxes: np.ndarray, where: float
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    def cut(array: torch.Tensor) -> torch.Tensor:
        side, left = array.shape[-2], int(where * (array.shape[-1] - array.shape[-2]))
        return array[..., left : left + side]

    share = pixels.shape[-2] / pixels.shape[-1]
    left = int(where * (pixels.shape[-1] - pixels.shape[-2])) / pixels.shape[-1]
    cut_boxes = boxes.copy()
    cut_boxes[..., 0::2] = np.clip((boxes[..., 0::2] - left) / share, 0, 1)
    kept = (cut_boxes[..., 2] - cut_boxes[..., 0]) * share > 0.33 * (boxes[..., 2] - boxes[..., 0])
    return cut(pixels), cut(index), np.where(kept[..., None], pairs, -1), cut_boxes


def _turn(
    pixels: torch.Tensor, index: torch.Tensor, boxes: np.ndarray, quarter_turns: int, mirror: bool
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    for _ in range(quarter_turns):  # rot90 over (-2, -1): (x, y) -> (y, 1 - x)
        boxes = np.stack([boxes[..., 1], 1 - boxes[..., 2], boxes[..., 3], 1 - boxes[..., 0]], axis=-1)
    pixels, index = torch.rot90(pixels, quarter_turns, (-2, -1)), torch.rot90(index, quarter_turns, (-2, -1))
    if mirror:
        pixels, index = pixels.flip(-1), index.flip(-1)
        boxes = np.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], axis=-1)
    return pixels.contiguous(), index.contiguous(), boxes
