"""For tests, of this package and of plugins: painted folders, models that are instant, and the checks of `contracts`.

The fake models answer from the pixels alone, so the same image gives the same answer in any batch and in any process. Two
environment variables serve tests of interrupted runs: AGS_FAKE_LOG names a file that gets a line an image that is looked at
(the sha256 of its pixels), AGS_FAKE_SECONDS makes each image take so long.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.contracts import check_detector, check_format, check_segmenter, check_tagger, check_target
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.painting import PainterSettings, Scene, paint_scene
from autodistill_grounded_sam.types import Candidates, Mask, RgbImage

__all__ = [
    "FakeDetector",
    "FakeSegmenter",
    "check_detector",
    "check_format",
    "check_segmenter",
    "check_tagger",
    "check_target",
    "paint_folder",
]


class FakeDetector:
    """A detector that needs no weights: some boxes and scores drawn from a generator seeded by the image's pixels."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image, prompts) for image in images]

    def _detect_one(self, image_rgb: RgbImage, prompts: Sequence[str]) -> Candidates:
        digest = _pixel_digest(image_rgb)
        _log(digest)
        height, width = image_rgb.shape[:2]
        rng = np.random.default_rng(int(digest[:16], 16))
        count = int(rng.integers(0, 8))  # some images hold nothing
        centre, half = rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.25, (count, 2))
        corners = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)
        xyxy = (corners * [width, height, width, height]).astype(np.float32)
        return Candidates(xyxy, rng.beta(0.6, 1.2, (count, len(prompts))).astype(np.float32))


class FakeSegmenter:
    """A segmenter that needs no weights: the ellipse that touches the four sides of each box."""

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        return [self._segment_one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _segment_one(self, image_rgb: RgbImage, found: Candidates) -> Candidates:
        masks = [_ellipse(box, image_rgb.shape[0], image_rgb.shape[1]) for box in found.xyxy]
        filled = np.array([mask.mean() for mask in masks], np.float32)
        return Candidates(
            found.xyxy, found.scores, tuple(encode_mask(mask) for mask in masks), (1 - filled / 2).astype(np.float32)
        )


def paint_folder(folder: Path, count: int, *, seed: int = 0, settings: PainterSettings | None = None) -> list[Scene]:
    """Write `count` painted scenes as `scene_0000.png`, ... and return them with their truth; the same seed, the same bytes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    scenes = [paint_scene(settings or PainterSettings(), seed + number) for number in range(count)]
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.image_rgb).save(folder / f"scene_{number:04d}.png")
    return scenes


def _ellipse(box_xyxy: npt.NDArray[np.float32], height: int, width: int) -> Mask:
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 0.5)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 0.5)
    return np.asarray(x[None, :] ** 2 + y[:, None] ** 2 <= 1)


def _pixel_digest(image_rgb: RgbImage) -> str:
    return hashlib.sha256(repr(image_rgb.shape).encode() + np.ascontiguousarray(image_rgb).tobytes()).hexdigest()


def _log(digest: str) -> None:
    """Write the line at once and in one piece, so that a kill cannot take it back."""
    path = os.environ.get("AGS_FAKE_LOG")
    if path:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{digest}\n".encode())
        os.close(handle)
    time.sleep(float(os.environ.get("AGS_FAKE_SECONDS", "0")))
