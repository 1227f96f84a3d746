"""What is learnt from: boxes and masks stay on their objects whatever is cut, stretched or mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.distill.detr_dataset import read_training_set
from autodistill_grounded_sam.distill.detr_models import Inputs
from autodistill_grounded_sam.distill.detr_views import LEAST_LEFT, View, draw_view
from autodistill_grounded_sam.painting import COLOURS
from autodistill_grounded_sam.types import DatasetImage
from tests.distill.detr_kit import NAMES, painted_coco

SIDE = 128
INPUTS = Inputs(SIDE, (0.0,) * 3, (1.0,) * 3, smooth=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetImage, ...]:
    folder: Path = painted_coco(tmp_path_factory.mktemp("painted"), train=4, valid=1)
    return read_training_set(folder, masks=True).train


def views_of(images: tuple[DatasetImage, ...], count: int) -> list[View]:
    rngs = map(np.random.default_rng, range(count))
    return [draw_view(rng, images[k % len(images)], INPUTS, masks=True, mirror=True) for k, rng in enumerate(rngs)]


def test_boxes_fit_their_masks(images: tuple[DatasetImage, ...]) -> None:
    compared = 0
    for view in views_of(images, 60):
        assert view.masks is not None
        assert view.pixels.shape == (SIDE, SIDE, 3)
        assert len(view.masks) == len(view.boxes) == len(view.class_id)
        for box, mask in zip(view.boxes * SIDE, view.masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            # A cut may take the very part of an object that reached its box's far side: then the box is larger, never smaller.
            assert (box[:2] <= np.array(tight[:2]) + 2.5).all()
            assert (box[2:] >= np.array(tight[2:]) - 2.5).all()
            compared += bool(np.allclose(box, tight, atol=2.5))
    assert compared > 60


def test_masks_lie_on_their_colours(images: tuple[DatasetImage, ...]) -> None:
    for view in views_of(images, 40):
        for class_id, mask in zip(view.class_id, view.masks if view.masks is not None else (), strict=True):
            seen = view.pixels[mask.astype(bool)].mean(0)
            nearest = min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - seen).sum()))
            assert seen.argmax() == np.argmax(COLOURS[NAMES[class_id].split()[0]]), (NAMES[class_id], nearest)


def test_views_are_drawn_by_seed_and_differ(images: tuple[DatasetImage, ...]) -> None:
    one, again = views_of(images, 6), views_of(images, 6)
    assert all(np.array_equal(a.pixels, b.pixels) and np.array_equal(a.boxes, b.boxes) for a, b in zip(one, again, strict=True))
    assert len({view.pixels.tobytes() for view in one}) == 6


def test_whole_views_show_every_object_and_mirrors_are_mirrors(images: tuple[DatasetImage, ...]) -> None:
    image = images[0]
    shares = image.xyxy / [image.width, image.height, image.width, image.height]
    mirrored = shares[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    views = [draw_view(np.random.default_rng(seed), image, INPUTS, masks=False, mirror=True) for seed in range(40)]
    whole = [view for view in views if len(view.boxes) == len(shares)]
    assert any(np.allclose(view.boxes, shares, atol=1e-5) for view in whole)
    assert any(np.allclose(view.boxes, mirrored, atol=1e-5) for view in whole)
    plain = [draw_view(np.random.default_rng(seed), image, INPUTS, masks=False, mirror=False) for seed in range(40)]
    assert not any(len(view.boxes) == len(shares) and np.allclose(view.boxes, mirrored, atol=1e-5) for view in plain)


def test_an_object_that_is_cut_away_is_not_asked_for(images: tuple[DatasetImage, ...]) -> None:
    total = sum(len(images[seed % len(images)].class_id) for seed in range(80))
    kept = sum(len(view.class_id) for view in views_of(images, 80))
    assert 0.5 * total < kept < total
    assert LEAST_LEFT < 0.5


def test_crowd_regions_are_not_learnt(images: tuple[DatasetImage, ...]) -> None:
    from dataclasses import replace

    image = next(image for image in images if len(image.class_id) > 1)
    crowd = np.arange(len(image.class_id)) == 0
    seen = [draw_view(np.random.default_rng(k), replace(image, crowd=crowd), INPUTS, masks=True, mirror=True) for k in range(20)]
    assert max(len(view.class_id) for view in seen) == len(image.class_id) - 1
