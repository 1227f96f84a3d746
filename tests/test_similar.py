"""The difference hash: near-duplicates are near, other pictures are not."""

from __future__ import annotations

import numpy as np

from autodistill_grounded_sam.painting import PainterSettings, paint_scene
from autodistill_grounded_sam.similar import dhash


def bits_apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_a_brighter_right_neighbour_sets_a_bit() -> None:
    ramp = np.repeat(np.arange(9, dtype=np.uint8) * 20, 4)[None, :, None].repeat(16, 0).repeat(3, 2)
    assert dhash(np.ascontiguousarray(ramp)) == 2**64 - 1
    assert dhash(np.ascontiguousarray(ramp[:, ::-1])) == 0


def test_near_duplicates_are_near_and_others_far() -> None:
    settings = PainterSettings(width=128, height=96)
    scenes = [paint_scene(settings, seed).image_rgb for seed in range(20)]
    rng = np.random.default_rng(0)
    for scene in scenes:
        noisy = np.clip(scene.astype(int) * 0.95 + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8)
        assert bits_apart(dhash(scene), dhash(noisy)) <= 8
    apart = [bits_apart(dhash(a), dhash(b)) for i, a in enumerate(scenes) for b in scenes[:i]]
    assert np.median(apart) > 20


def test_one_pixel_is_enough() -> None:
    assert dhash(np.zeros((1, 1, 3), np.uint8)) == 0
