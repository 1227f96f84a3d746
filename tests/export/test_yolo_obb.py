"""Rotated boxes: the smallest rectangle around an object that lies in the image, as ultralytics reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.datasets import read_yolo, read_yolo_rows
from autodistill_grounded_sam.export.writing import Written
from autodistill_grounded_sam.export.yolo_obb import rotated_boxes
from autodistill_grounded_sam.masks import boxes_xyxy, decode_mask, encode_mask

SIDE = 60


def area(corners: Any) -> float:
    return float(np.linalg.norm(corners[1] - corners[0]) * np.linalg.norm(corners[2] - corners[1]))


def bar(centre: tuple[float, float], length: float, breadth: float, degrees: float) -> Any:
    points = cv2.boxPoints((centre, (length, breadth), degrees))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool)


def around(mask: Any) -> tuple[Any, int]:
    rle = encode_mask(mask)
    (corners,), held_in = rotated_boxes(Written("train", "a.png", SIDE, SIDE, [0], boxes_xyxy([rle]).tolist(), [rle]))
    return corners, held_in


@settings(max_examples=200, deadline=None)
@given(st.floats(0, SIDE), st.floats(0, SIDE), st.floats(1, 50), st.floats(1, 30), st.floats(0, 180))
def test_rotated_box__holds_every_pixel_inside_the_image(x: float, y: float, length: float, breadth: float, turn: float) -> None:
    mask = bar((x, y), length, breadth, turn)
    mask[min(SIDE - 1, int(y)), min(SIDE - 1, int(x))] = True
    corners, held_in = around(mask)
    assert (corners >= 0).all() and (corners <= SIDE).all()
    ys, xs = np.nonzero(mask)
    pixels = np.concatenate([np.stack([xs + dx, ys + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]).astype(float)
    sides = np.roll(corners, -1, axis=0) - corners
    for corner, side in zip(corners, sides, strict=True):
        across = side[0] * (pixels[:, 1] - corner[1]) - side[1] * (pixels[:, 0] - corner[0])
        assert (across >= -1e-3).all()  # on the inner side of each edge
    smallest = cv2.minAreaRect(pixels.astype(np.float32))[1]
    if not held_in:
        assert area(corners) <= smallest[0] * smallest[1] * 1.01 + 0.1
    upright = boxes_xyxy([encode_mask(mask)])[0]
    assert area(corners) <= (upright[2] - upright[0]) * (upright[3] - upright[1]) + 1e-6


def test_rotated_box__of_a_tilted_bar_is_tilted() -> None:
    corners, held_in = around(bar((30, 30), 40, 8, 30))
    lengths = sorted(np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1))
    assert held_in == 0 and lengths[0] == pytest.approx(9, abs=1.5) and lengths[-1] == pytest.approx(41, abs=1.5)


def test_rotated_box__that_would_leave_the_image_is_the_next_that_does_not() -> None:
    corners, held_in = around(bar((2, 2), 60, 6, 45))
    assert held_in == 1 and (corners >= 0).all()


def test_rows__and_notes(kit: Any, two: Any, tmp_path: Path) -> None:
    rows = [(two[0][0], kit.labels([kit.box(4, 6, 30, 40)], [2])), two[1]]
    summary = kit.export(rows, "yolo-obb", tmp_path / "out", valid=["b.png"])
    class_id, (row,) = read_yolo_rows(tmp_path / "out" / "train" / "labels" / "a.txt")
    corners = sorted((row.reshape(4, 2) * (64, 48)).round(3).tolist())
    assert class_id.tolist() == [2] and corners == [[4, 6], [4, 40], [30, 6], [30, 40]]
    assert (summary.labels, summary.round_trip_iou) == (1, None)
    assert (tmp_path / "out" / "valid" / "labels" / "b.txt").read_text() == ""


@pytest.mark.slow
def test_ultralytics__reads_the_very_rectangles(kit: Any, two: Any, tmp_path: Path) -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    ops = pytest.importorskip("ultralytics.utils.ops")
    mask = np.zeros((48, 64), np.bool_)
    mask[:, :48] = bar((24, 24), 36, 10, 25)[6:54, 6:54]
    kit.export([(two[0][0], kit.labels([mask, kit.box(50, 2, 64, 9)], [1, 0]))], "yolo-obb", tmp_path / "out")
    image, label = tmp_path / "out" / "train" / "images" / "a.png", tmp_path / "out" / "train" / "labels" / "a.txt"
    _, rows, _, segments, _, missing, found, _, corrupt, message = utils.verify_image_label(
        (str(image), str(label), "", False, 3, 0, 0, False)
    )
    assert (missing, found, corrupt, message) == (0, 1, 0, "") and rows[:, 0].tolist() == [1, 0]
    expected, _ = rotated_boxes(Written("train", "a.png", 64, 48, [1, 0], boxes_xyxy([encode_mask(mask)] * 2).tolist(), [
        encode_mask(mask), encode_mask(kit.box(50, 2, 64, 9)),
    ]))  # fmt: skip
    for segment, corners in zip(segments, expected, strict=True):
        x, y, width, height, _ = ops.xyxyxyxy2xywhr((segment * (64, 48)).reshape(1, 8).astype(np.float32))[0]
        assert (x, y) == pytest.approx(corners.mean(axis=0), abs=0.02)
        assert width * height == pytest.approx(area(corners), rel=0.01)


def test_our_reader__gives_the_box_back_and_no_pixel_more(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "in" / "a.png")
    boxes = [kit.box(4, 6, 30, 40), kit.box(0, 0, 64, 48), kit.box(63, 47, 64, 48), kit.box(9, 9, 10, 30)]
    kit.export(kit.rows(tmp_path / "in", {"a.png": kit.labels(boxes)}), "yolo-obb", tmp_path / "out")
    (row,) = read_yolo(tmp_path / "out")
    assert [mask.tolist() for mask in map(decode_mask, row.rle or ())] == [box.tolist() for box in boxes]
