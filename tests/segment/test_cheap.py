"""Segmenters that need no model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import LabelConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.masks import areas, decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import FRESH_SETTINGS, paint_scene
from autodistill_grounded_sam.run_setup import identity_of
from autodistill_grounded_sam.segment.cheap import Ellipse, GrabCut
from autodistill_grounded_sam.testing import check_segmenter

BOTH = pytest.mark.parametrize("name", ["ellipse", "grabcut"])


@BOTH
def test_is_named_and_keeps_the_contract_of_its_seam(name):
    check_segmenter(plugins.load("segmenters", name, device="cpu", offline=True, precision="float32", mask_guess="single"))


@BOTH
def test_boxes_of_any_shape_and_place(name, picture, boxed):
    boxes = boxed(
        (10, 10, 60, 40),
        (5, 5, 5, 40),
        (-20, -10, 30, 30),
        (200, 200, 300, 300),
        (0, 0, 97, 51),
        (3, 3, 3.6, 3.6),
        (20, 20, 21, 21),
    )
    (found,) = plugins.load("segmenters", name).segment([picture(51, 97)], [boxes])
    assert [code["size"] for code in found.rle] == [[51, 97]] * 7
    assert (areas(found.rle) > 0).tolist()[:5] == [True, False, True, False, True]
    assert areas(found.rle)[6] == 1
    assert np.isfinite(found.mask_score).all() and found.xyxy is boxes.xyxy
    (none,) = plugins.load("segmenters", name).segment([picture(51, 97)], [boxed()])
    assert none.rle == () and none.mask_score.shape == (0,)


@BOTH
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3000, 1), (2, 900)])
def test_pictures_of_any_shape(name, picture, boxed, height, width):
    (found,) = plugins.load("segmenters", name).segment([picture(height, width)], [boxed((0, 0, width, height))])
    assert found.rle[0]["size"] == [height, width] and areas(found.rle)[0] > 0


def test_an_ellipse_fills_what_an_ellipse_fills(picture, boxed):
    (found,) = Ellipse().segment([picture(200, 300)], [boxed((50, 20, 250, 180))])
    mask = decode_mask(found.rle[0])
    assert mask.sum() / (200 * 160) == pytest.approx(np.pi / 4, abs=2e-3)
    ys, xs = np.nonzero(mask)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (50, 250, 20, 180)


def test_grabcut_finds_a_shape_that_an_ellipse_misses(boxed):
    rng = np.random.default_rng(0)
    image = rng.integers(90, 130, (120, 160, 3), dtype=np.uint8)
    truth = np.zeros((120, 160), np.uint8)
    truth[30:90, 40:60] = truth[70:90, 40:120] = 1  # an L
    image[truth > 0] = image[truth > 0] // 4 + np.array([150, 20, 20], np.uint8)
    masks = [kind().segment([image], [boxed((40, 30, 120, 90))])[0].rle[0] for kind in (Ellipse, GrabCut)]
    ellipse, cut = (mask_iou(code, encode_mask(truth)) for code in masks)
    assert cut > 0.95 and ellipse < 0.6


def test_grabcut_answers_a_large_box_on_a_smaller_picture_of_it(boxed):
    image = np.full((1500, 2000, 3), 60, np.uint8)
    image[300:1200, 500:1500] = (200, 180, 20)
    (found,) = GrabCut().segment([image], [boxed((480, 280, 1520, 1220))])
    truth = np.zeros((1500, 2000), np.uint8)
    truth[300:1200, 500:1500] = 1
    assert mask_iou(found.rle[0], encode_mask(truth)) > 0.97


def test_on_painted_scenes_grabcut_is_better_than_an_ellipse(boxed):
    ious: dict[str, list[float]] = {"ellipse": [], "grabcut": []}
    for seed in range(20):
        scene = paint_scene(FRESH_SETTINGS, seed)
        boxes = boxed(*(thing.xyxy for thing in scene.objects))
        for name, values in ious.items():
            (found,) = plugins.load("segmenters", name).segment([scene.image_rgb], [boxes])
            values += [mask_iou(code, encode_mask(thing.mask)) for code, thing in zip(found.rle, scene.objects, strict=True)]
    assert np.mean(ious["grabcut"]) > np.mean(ious["ellipse"]) + 0.05


def test_a_store_belongs_to_the_name(tmp_path):
    words = Ontology.load("painted_shapes_small")
    first, second = (
        identity_of(LabelConfig(see=SeeConfig(detector="mini", segmenter=name)), words) for name in ("ellipse", "grabcut")
    )
    assert first["segmenter"] == {"name": "ellipse", "sha256": None} and first != second


def test_another_guess_is_refused():
    with pytest.raises(ConfigError, match=r"grabcut draws one mask a box; mask_guess 'best-of-three' is of SAM"):
        GrabCut(mask_guess="best-of-three")


def test_needs_no_torch():
    code = "import sys; from autodistill_grounded_sam.segment.cheap import GrabCut; GrabCut(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
