"""YOLO with rotated boxes: `class x1 y1 x2 y2 x3 y3 x4 y4`, the corners of the smallest rectangle around each object.

ultralytics takes no corner outside the image. Where the smallest rectangle reaches beyond the edges, the smallest that does not
is written: the upright box always lies inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.datasets import TURNED
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.writing import ReadBack, Written, boxes_inside
from autodistill_grounded_sam.export.yolo import Numbers, YoloWriter
from autodistill_grounded_sam.mask_runs import paint_crops, read_runs

Corners = npt.NDArray[np.float64]  # (4, 2) x y in pixels, clockwise


class YoloObbWriter(YoloWriter):
    """One rotated box an object; an object without a mask gets its upright box."""

    about = (About("yolo-obb", "read back in every export; ultralytics reads it (`tests/export/test_yolo_obb.py`)"),)
    name: ClassVar[str] = "yolo-obb"
    more_settings: ClassVar[Mapping[str, str]] = {"task": TURNED}

    def _rows(self, images: Sequence[Written]) -> tuple[Numbers, list[int]]:
        rows = []
        for written in images:
            corners, held_in = rotated_boxes(written)
            if held_in:
                what = "box(es) are not the smallest around their object, which reaches beyond the image"
                self._counts[what] += held_in
            rows.append((corners / (written.width, written.height)).reshape(-1))
        return np.concatenate(rows), [8] * sum(len(written.class_id) for written in images)

    def _compare(self, written: Written, rows: list[Numbers], found: ReadBack) -> None:
        expected = rotated_boxes(written)[0].reshape(-1, 8)
        size = np.array([written.width, written.height] * 4)
        for row, corners in zip(rows, expected, strict=True):
            if len(row) != 8 or np.abs(row - corners / size).max() > 1e-6:  # six digits are written
                raise ExportError(f"{self.name} dataset {self.out}: a box of {written.file_name} came back in another place")


def rotated_boxes(written: Written) -> tuple[Corners, int]:
    """The corners (n, 4, 2) in pixels around every label, inside the image; and how many had a smaller rectangle outside it."""
    upright = [_rectangle(box[:2], box[2:]) for box in boxes_inside(written)]
    if written.rle is None:
        return np.array(upright).reshape(-1, 4, 2), 0
    runs = read_runs(written.rle)
    corners, held_in = [], 0
    for box, whole, crop in zip(runs.boxes_xyxy(), upright, paint_crops(runs, np.uint8(1)), strict=True):
        if not crop.size:
            corners.append(whole)
            continue
        smallest, inside = _smallest_around(_edge_points(crop) + box[:2].astype(np.float64), written.width, written.height)
        corners.append(smallest)
        held_in += not inside
    return np.array(corners).reshape(-1, 4, 2), held_in


def _edge_points(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The outer corners (n, 2) of the first and last pixel of every column of a crop (width, height): all that a hull needs."""
    columns = np.flatnonzero(crop.any(axis=1))
    first = crop[columns].argmax(axis=1)
    last = crop.shape[1] - crop[columns][:, ::-1].argmax(axis=1)
    x, y = np.concatenate([columns, columns]), np.concatenate([first, last])
    return np.stack([np.concatenate([x, x + 1]), np.concatenate([y, y])], axis=1).astype(np.float64)


def _smallest_around(points: npt.NDArray[np.float64], width: int, height: int) -> tuple[Corners, bool]:
    """The smallest rectangle around points (n, 2) that lies in the image, and whether no smaller one lies outside.

    A side of the smallest rectangle lies on a side of the hull, so those directions, and the upright one, are tried.
    """
    import cv2

    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    sides = np.diff(hull, axis=0, append=hull[:1])
    angles = np.concatenate([[0.0], np.arctan2(sides[:, 1], sides[:, 0])])
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (k, 2), one axis a direction; the other is across
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    on_along, on_across = hull @ along.T, hull @ across.T  # (points, k)
    low, high = np.stack([on_along.min(0), on_across.min(0)]), np.stack([on_along.max(0), on_across.max(0)])
    area = (high - low).prod(axis=0)
    places = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    corners = np.stack([a[:, None] * along + b[:, None] * across for a, b in places], axis=1)  # (k, 4, 2)
    size = np.array([width, height])
    outside = ((corners < -1e-6) | (corners > size + 1e-6)).any(axis=(1, 2))  # never of the upright one, which is the first
    best = int(np.where(outside, np.inf, area).argmin())
    return corners[best].clip(0, size), bool(area[best] <= area.min() + 1e-6)


def _rectangle(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> Corners:
    return np.array([(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])])
