"""Masks to rings and back, in the eyes of every program that will read them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.datasets import fill_polygon
from autodistill_grounded_sam.export import polygons
from autodistill_grounded_sam.export.polygons import SIMPLE_IOU, paint_as_trainer, ring_of, ring_of_box, rings_of
from autodistill_grounded_sam.masks import areas, decode_mask, encode_mask, from_coco, mask_iou

Mask = npt.NDArray[np.bool_]


def iou(first: Mask, second: Mask) -> float:
    return float((first & second).sum() / (first | second).sum())


def paint_as_coco(ring: npt.NDArray[np.float64], width: int, height: int) -> Mask:
    return decode_mask(from_coco([ring.reshape(-1).tolist()], width, height))


def blob(rng: np.random.Generator, radius: float, side: int = 640) -> Mask:
    """A wavy disc somewhere in a picture, perhaps with a hole or cut in two, perhaps beyond the edge."""
    centre_x, centre_y = rng.uniform(0.6 * radius, side - 0.6 * radius, 2)
    y, x = np.mgrid[:side, :side] + 0.5
    angle, distance = np.arctan2(y - centre_y, x - centre_x), np.hypot(x - centre_x, y - centre_y)
    wave = rng.uniform(0, 0.25)
    mask = distance < radius * (1 - wave + wave * np.cos(rng.integers(2, 7) * angle + rng.uniform(0, 6)))
    kind = rng.integers(4)
    if kind == 1:
        mask &= distance > radius / 3
    if kind == 2:
        mask &= np.abs(x - centre_x) > max(1, radius / 30)
    return mask


@st.composite
def small_masks(draw: st.DrawFn) -> Mask:
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    cells = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(cells).reshape(height, width)
    mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return mask


@settings(max_examples=300, deadline=None)
@given(small_masks())
def test_ring__any_mask__covers_all_that_is_not_left_out(mask: Mask) -> None:
    """Noise of any form: what a trainer paints is the mask, but for parts left out and bridges over background."""
    height, width = mask.shape
    ring, left_out = ring_of(encode_mask(mask))
    assert len(ring) >= 4 and (ring > 0).all() and (ring < (width, height)).all()
    painted = fill_polygon(np.round(ring / (width, height), 6) * (width, height), width, height)
    if left_out == 0:
        assert (painted & mask).sum() >= 0.97 * mask.sum()
    assert (painted & mask).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 20), st.integers(0, 20))
def test_ring__rectangle__is_exact_for_trainer_and_coco_with_four_points(w: int, h: int, left: int, top: int) -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[top : top + h, left : left + w] = True
    ring, left_out = ring_of(encode_mask(mask))
    assert (len(ring), left_out) == (4, 0)
    for painted in (fill_polygon(ring, 64, 64), paint_as_trainer(ring, 64, 64), paint_as_coco(ring, 64, 64)):
        assert (painted == mask).all()


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1)),  # one pixel that is the whole image
        np.ones((640, 640)),
        np.ones((1, 30)),
        np.ones((30, 1)),
        np.eye(12),  # joined only by corners
        np.pad(np.ones((1, 1)), ((0, 99), (99, 0))),  # one pixel in a corner
        np.pad(np.zeros((20, 20)), 15, constant_values=1),  # a frame
        np.pad(np.pad(np.pad(np.ones((4, 4)), 6), 8, constant_values=1), 5),  # an island in the hole of a ring
    ],
)
def test_ring__hard_form__keeps_nearly_every_pixel(mask: Mask) -> None:
    mask = mask.astype(np.bool_)
    height, width = mask.shape
    ring, left_out = ring_of(encode_mask(mask))
    assert len(ring) >= 4 and left_out == 0
    assert iou(fill_polygon(ring, width, height), mask) >= 0.98
    assert iou(paint_as_coco(ring, width, height), mask) >= 0.94  # corner contacts are open there


def test_ring__two_parts__are_one_ring_that_keeps_both() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[10:40, 10:40] = mask[60:90, 50:90] = True
    ring, left_out = ring_of(encode_mask(mask))
    painted = fill_polygon(ring, 100, 100)
    assert left_out == 0
    assert (painted & mask).sum() == mask.sum()
    assert (painted & ~mask).sum() <= 20  # the bridge: one pixel wide, from corner to corner


def test_ring__far_speck__is_left_out_rather_than_bridged() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[10:40, 10:40] = True
    mask[95, 95] = True
    ring, left_out = ring_of(encode_mask(mask))
    assert left_out == 1
    assert (fill_polygon(ring, 100, 100) & ~mask).sum() == 0


def test_ring__empty_mask__has_no_point() -> None:
    ring, left_out = ring_of(encode_mask(np.zeros((9, 9))))
    assert ring.shape == (0, 2) and left_out == 0


def test_ring__noise__stays_in_time_and_memory() -> None:
    noise = np.random.default_rng(0).random((400, 400)) < 0.2
    ring, _ = ring_of(encode_mask(noise))
    assert len(ring) >= 4


def test_ring_of_box__paints_the_box() -> None:
    painted = fill_polygon(ring_of_box(np.array([3.0, 4, 9, 11])), 20, 20)
    assert painted.sum() == 6 * 7 and painted[4:11, 3:9].all()


def test_suite__objects_over_100_px__come_back_from_trainer_and_coco(record_property: pytest.RecordProperty) -> None:
    """The promise of the export, measured: 640 px, areas from 100 px up, holes and parts among them."""
    rng = np.random.default_rng(7)
    trainer, coco, points = [], [], []
    for _ in range(80):
        mask = blob(rng, float(np.exp(rng.uniform(np.log(7), np.log(200)))))
        rle = encode_mask(mask)
        if areas([rle])[0] < 100:
            continue
        ring, left_out = ring_of(rle)
        written = np.round(ring / 640, 6) * 640
        trainer.append(iou(mask, paint_as_trainer(written, 640, 640)))
        coco.append(iou(mask, paint_as_coco(written, 640, 640)))
        points.append(len(ring))
        assert left_out == 0
    record_property("figures", f"trainer {np.mean(trainer):.4f} coco {np.mean(coco):.4f} points {np.mean(points):.0f}")
    assert np.mean(trainer) >= 0.98 and min(trainer) >= 0.9
    assert np.mean(coco) >= 0.98 and min(coco) >= 0.9
    assert np.mean(points) < 250


def test_simplified__is_the_mask_to_a_hundredth_for_both_painters() -> None:
    """Large ones take few points; each that does was painted both ways and compared."""
    rng = np.random.default_rng(11)
    fewer = 0
    for _ in range(40):
        mask = blob(rng, float(rng.uniform(20, 200)))
        ring, left_out = ring_of(encode_mask(mask))
        parts, _ = cv2.connectedComponents(mask.astype(np.uint8))
        holes, _ = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)
        if (parts, holes) != (2, 2):
            continue  # a bridge paints more than the mask
        assert left_out == 0
        assert iou(paint_as_trainer(ring, 640, 640), mask) >= SIMPLE_IOU
        assert iou(fill_polygon(ring, 640, 640), mask) >= SIMPLE_IOU
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        fewer += len(ring) < len(outline[0]) / 2
    assert fewer >= 10


@settings(max_examples=50, deadline=None)
@given(st.lists(small_masks(), max_size=5))
def test_rings_of_many__are_those_of_each_alone(several: list[Mask]) -> None:
    codes = [encode_mask(mask) for mask in [*several, np.zeros((3, 4), np.bool_)]]
    for (ring, left_out), code in zip(rings_of(codes), codes, strict=True):
        alone, left_out_alone = ring_of(code)
        assert ring.tolist() == alone.tolist() and left_out == left_out_alone
    assert rings_of([]) == []


@settings(max_examples=50, deadline=None)
@given(count=st.integers(3, 1100), seed=st.integers(0, 2**32))
def test_resampled__as_ultralytics_does_it(count: int, seed: int) -> None:
    """Its `resample_segments`, in plain words: so many places evenly along the corners, and the corners themselves."""
    ring = np.random.default_rng(seed).random((count, 2)) * 50
    closed, extra = np.concatenate([ring, ring[:1]]), max(0, 1000 - count - 1)
    places = np.sort(np.concatenate([np.linspace(0, count, extra), np.arange(count + 1)]))
    expected = np.stack([np.interp(places, np.arange(count + 1), closed[:, axis]) for axis in (0, 1)], axis=1)
    np.testing.assert_allclose(polygons._resample(ring), expected, atol=1e-9)


def test_suite__ultralytics_paints_what_we_say_it_paints() -> None:
    """`paint_as_trainer` against ultralytics' own resampling and painting."""
    ops = pytest.importorskip("ultralytics.utils.ops")
    utils = pytest.importorskip("ultralytics.data.utils")
    rng = np.random.default_rng(3)
    for radius in (8, 30, 90, 180):
        mask = blob(rng, radius)
        ring, _ = ring_of(encode_mask(mask))
        written = np.round(ring / 640, 6).astype(np.float32)
        (resampled,) = ops.resample_segments([written.copy()], 1000)
        painted = utils.polygon2mask((640, 640), [(resampled * 640).reshape(-1)]).astype(np.bool_)
        assert mask_iou(encode_mask(painted), encode_mask(paint_as_trainer(ring, 640, 640))) >= 0.995
        assert iou(painted, mask) >= 0.95  # the smallest are in two parts, and a bridge counts
