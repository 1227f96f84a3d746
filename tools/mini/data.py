"""The training set of the mini weights: painted once, kept as arrays, dealt out in turned and recoloured batches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autodistill_grounded_sam.painting import COLOURS, SEEN_PAIRS, SHAPES, PainterSettings, paint_scene

SETTINGS = PainterSettings(pairs=SEEN_PAIRS, objects=(2, 8))
MOST_OBJECTS = 8
COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Scenes:
    """`images` uint8 (n, h, w, 3); `index` uint8 (n, h, w), 0 ground, k the k-th object; `pairs` int8 (n, 8, 2), -1 none."""

    images: np.ndarray
    index: np.ndarray
    pairs: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def _paint_arrays(job: tuple[PainterSettings, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    settings, seed = job
    scene = paint_scene(settings, seed)
    index = np.zeros(scene.image_rgb.shape[:2], np.uint8)
    pairs = np.full((MOST_OBJECTS, 2), -1, np.int8)
    for k, item in enumerate(scene.objects):
        index[item.mask] = k + 1
        pairs[k] = COLOUR_NAMES.index(item.colour), SHAPES.index(item.shape)
    return scene.image_rgb, index, pairs


def painted(cache: Path, count: int, seed: int, settings: PainterSettings = SETTINGS) -> Scenes:
    """Paint `count` scenes from `seed` on, or read them from `cache` if they are there."""
    paths = [cache / f"scenes-{seed}-{count}-{part}.npy" for part in ("images", "index", "pairs")]
    if not all(path.exists() for path in paths):
        cache.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            rows = list(pool.map(_paint_arrays, [(settings, seed + i) for i in range(count)], chunksize=64))
        for path, column in zip(paths, zip(*rows, strict=True), strict=True):
            np.save(path, np.stack(column))
    images, index, pairs = (np.load(path, mmap_mode="r") for path in paths)
    return Scenes(images, index, pairs)


def batches(scenes: Scenes, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
    """Endless batches: images float (b, 3, h, w) in 0..1, index (b, h, w), pairs (b, 8, 2).

    Each batch is turned and mirrored as one (so its pictures keep one size), each picture gets its own light and colour cast.
    A quarter of the batches are cut to squares, so that the models meet more than one proportion.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(scenes))
        for start in range(0, len(order) - size + 1, size):
            rows = np.sort(order[start : start + size])
            images = torch.from_numpy(scenes.images[rows]).permute(0, 3, 1, 2).float() / 255
            index = torch.from_numpy(scenes.index[rows].astype(np.int64))
            if rng.random() < 0.25:
                side = min(images.shape[-2:])
                left = int(rng.integers(0, images.shape[-1] - side + 1))
                images, index = images[..., left : left + side], index[..., left : left + side]
            turns = int(rng.integers(4))
            images, index = torch.rot90(images, turns, (-2, -1)), torch.rot90(index, turns, (-2, -1))
            if rng.random() < 0.5:
                images, index = images.flip(-1), index.flip(-1)
            gain = torch.from_numpy(rng.uniform(0.92, 1.08, (size, 3, 1, 1)).astype(np.float32))
            lift = torch.from_numpy(rng.uniform(-0.04, 0.04, (size, 1, 1, 1)).astype(np.float32))
            yield (images * gain + lift).clamp(0, 1).contiguous(), index.contiguous(), scenes.pairs[rows].astype(np.int64)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """ImageNet mean and standard deviation, as both real processors use."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / std
