from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.adapt.views import Pictures, draw_view

BOX = np.array([[60, 30, 100, 50]], np.float32)  # of a picture 160x100


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """A white box on black, which no other light makes anything else."""
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[30:50, 60:100] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Pictures([Example("a.png", tmp_path / "a.png", "d", 160, 100, np.zeros(1, np.int32), BOX)], 100)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("size", [(160, 100), (96, 128)])
def test_boxes_go_where_the_pixels_go(pictures: Pictures, turns: bool, size: tuple[int, int]) -> None:
    """Every white pixel of a view lies in a box (where no label was dropped), and every box is full."""
    found = 0
    for seed in range(60):
        view = draw_view(np.random.default_rng(seed), pictures, size, turns)
        assert view.pixels.shape == (3, size[1], size[0])
        assert len(view.boxes) == len(view.class_id) and ((view.boxes >= 0) & (view.boxes <= 1)).all()
        white = view.pixels.float().mean(0).numpy() > 140
        outside = white.copy()
        for x1, y1, x2, y2 in view.boxes * np.array([*size, *size]):
            inner = white[int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1]
            assert inner.size == 0 or inner.mean() > 0.98
            outside[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3] = False
        found += len(view.boxes)
        stray = outside.sum() / max(1, white.sum())
        assert stray < 0.02 or len(view.boxes) < 4, (seed, stray)  # a cut may have dropped a label, of four views at most
    assert found > 40


def test_the_same_seed_draws_the_same_view(pictures: Pictures) -> None:
    first, again, other = (draw_view(np.random.default_rng(seed), pictures, (96, 64), True) for seed in (5, 5, 6))
    assert (first.pixels == again.pixels).all() and (first.boxes == again.boxes).all()
    assert (first.pixels != other.pixels).any()


def test_an_object_that_a_cut_leaves_little_of_is_no_label(pictures: Pictures) -> None:
    for seed in range(60):
        view = draw_view(np.random.default_rng(seed), pictures, (160, 100), False)
        area = (view.boxes[:, 2] - view.boxes[:, 0]) * (view.boxes[:, 3] - view.boxes[:, 1])
        # In a mosaic's smallest part, stretched most, a third of the object is this share of the picture.
        assert (area > 0.35 * 0.05 * 0.35**2 / 1.7).all()


def test_large_pictures_are_kept_small(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((400, 900, 3), np.uint8)).save(tmp_path / "a.png")
    example = Example("a.png", tmp_path / "a.png", "d", 900, 400, np.zeros(0, np.int32), np.zeros((0, 4), np.float32))
    assert Pictures([example], 64).read(0).shape == (3, 128, 288)
