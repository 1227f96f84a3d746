"""One object, one ring: parts and holes of a mask bridged into a single closed polygon that a YOLO trainer paints back.

Where a ring runs. ultralytics cuts coordinates to whole pixels and paints the outline as well, so a ring along the outer pixel
edges comes back a pixel too wide on the right and below; one through pixel centres comes back exact there, but half a pixel thin
in every reader that measures areas (COCO). So rings run inside the outermost pixels of the mask, a quarter of a pixel in from
their outer edges: a mask comes back from both exactly. (Readers that round instead of cutting see objects one pixel wider.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import fill_polygon
from autodistill_grounded_sam.masks import boxes_xyxy, decode_mask
from autodistill_grounded_sam.types import Mask, Rle

IntPoints = npt.NDArray[np.int32]  # (n, 2) x y in half pixels: place k is the middle of half pixel k
Ring = npt.NDArray[np.float64]  # (n, 2) x y in pixels of the upright image, closed without repeating the first point

# How far a simplified ring may stray, in pixels, coarsest first; the first that keeps SIMPLE_IOU is taken, else the exact ring.
# At 0.99 objects of 60-200 px radius need about 50 points instead of 900; small ones stay exact, at a few dozen points.
TOLERANCES_PX = (1.0, 0.7, 0.5)
SIMPLE_IOU = 0.99
# ultralytics resamples every ring to this many points before it paints (`resample_segments`), and every point marks a pixel.
TRAINER_POINTS = 1000
# More contours than this is noise, and bridging costs their square: the largest are kept. `decide` leaves far fewer.
MAX_CONTOURS = 256
COARSE_POINTS = 128  # of each outline where the nearest places of two are looked for first


@dataclass
class _Contour:
    """One outline of a mask; `bridges` are (place on this outline, other outline, place on the other)."""

    points: IntPoints
    area_px: float
    is_hole: bool
    bridges: list[tuple[int, _Contour, int]] = field(default_factory=list)


def ring_of(rle: Rle) -> tuple[Ring, int]:
    """The ring of a mask, at least 4 points (none for an empty mask), and how many of its parts were left out.

    A part is left out only where the bridge to it would paint more pixels of background than the part has.
    """
    x1, y1, x2, y2 = (int(edge) for edge in boxes_xyxy([rle])[0])
    crop = decode_mask(rle)[y1:y2, x1:x2]
    if not crop.any():
        return np.zeros((0, 2)), 0
    contours = _contours(crop)
    root, left_out = _bridge(contours)
    exact = _walk(root, 0, 0.0)[:-1]  # a ring does not repeat its first point
    painted = _paint(exact, crop.shape)
    for tolerance_px in TOLERANCES_PX:
        ring = _walk(root, 0, tolerance_px)[:-1]
        if len(ring) >= 4 and all(map(_is_alike, _paint(ring, crop.shape), painted)):
            return _pixels(ring, x1, y1), left_out
    return _pixels(exact, x1, y1), left_out


def ring_of_box(xyxy: npt.NDArray[Any]) -> Ring:
    """The ring of a box, placed as those of masks are, for an object that has no mask. `xyxy` (4,) with x2 > x1 and y2 > y1."""
    x1, y1, x2, y2 = (float(edge) for edge in xyxy)
    return np.array([(x1, y1), (x1, y2), (x2, y2), (x2, y1)]) + 0.25 * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])


def paint_as_trainer(ring_px: Ring, width: int, height: int) -> Mask:
    """The mask (height, width) that ultralytics trains on at the image's own size: the ring resampled, cut and filled."""
    return fill_polygon(_resample(ring_px), width, height)


def _contours(crop: Mask) -> list[_Contour]:
    """Every outline of a mask. On a mask of twice the size, even one pixel has an outline with an inside (four points)."""
    import cv2

    double = np.repeat(np.repeat(crop.astype(np.uint8), 2, axis=0), 2, axis=1)
    outlines, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    contours = []
    for outline, (_, _, _, parent) in zip(outlines, hierarchy[0], strict=True):
        # Pick's theorem: the outline runs through the middles of half pixels, so half of its points count on top of its area
        area_px = (cv2.contourArea(outline) + len(outline) / 2 + 1) / 4
        contours.append(_Contour(outline[:, 0], area_px, parent >= 0))
    return sorted(contours, key=lambda contour: -contour.area_px)


def _bridge(contours: list[_Contour]) -> tuple[_Contour, int]:
    """Join the outlines to a tree by shortest bridges (Prim), starting from the largest part; also the number left out.

    Holes are always joined: the bridge runs inside the mask. The shortest bridge crosses no other outline, since a crossed one
    would be nearer.
    """
    root = next(contour for contour in contours if not contour.is_hole)
    waiting = [contour for contour in contours[:MAX_CONTOURS] if contour is not root]
    left_out = max(0, len(contours) - MAX_CONTOURS)
    nearest = {id(contour): (np.inf, root, 0, 0) for contour in waiting}
    joined = root
    while waiting:
        for contour in waiting:
            gap_px, place, other_place = _nearest(joined.points, contour.points)
            if gap_px < nearest[id(contour)][0]:
                nearest[id(contour)] = (gap_px, joined, place, other_place)
        worth = [contour for contour in waiting if contour.is_hole or nearest[id(contour)][0] <= contour.area_px]
        if not worth:
            break
        joined = min(worth, key=lambda contour: nearest[id(contour)][0])
        waiting = [contour for contour in waiting if contour is not joined]
        _, parent, place, other_place = nearest[id(joined)]
        parent.bridges.append((place, joined, other_place))
    return root, left_out + len(waiting)


def _nearest(first: IntPoints, second: IntPoints) -> tuple[float, int, int]:
    """The gap between two outlines, in pixels that a line over it paints, and the place on each; found coarsely, then nearby."""
    steps = [1 + len(points) // COARSE_POINTS for points in (first, second)]
    _, *middles = _closest(first, second, np.arange(0, len(first), steps[0]), np.arange(0, len(second), steps[1]))
    around = [
        np.arange(middle - 2 * max(steps), middle + 2 * max(steps) + 1) % len(points)
        for middle, points in zip(middles, (first, second), strict=True)
    ]
    return _closest(first, second, around[0], around[1])


def _closest(
    first: IntPoints, second: IntPoints, places: npt.NDArray[Any], other_places: npt.NDArray[Any]
) -> tuple[float, int, int]:
    gaps = np.abs(first[places][:, None] - second[other_places][None]).max(axis=2)
    at, other_at = np.unravel_index(int(gaps.argmin()), gaps.shape)
    return float(gaps[at, other_at]) / 2, int(places[at]), int(other_places[other_at])


def _walk(contour: _Contour, start: int, tolerance_px: float) -> IntPoints:
    """Around an outline from place `start` back to it, both included, with an excursion over every bridge on the way."""
    count = len(contour.points)
    around = np.concatenate([contour.points[start:], contour.points[: start + 1]])
    bridges = sorted(contour.bridges, key=lambda bridge: (bridge[0] - start) % count)
    pieces, here = [], 0
    for place, other, other_place in bridges:
        stop = (place - start) % count
        pieces += [_simplify(around[here : stop + 1], tolerance_px), _walk(other, other_place, tolerance_px)]
        here = stop
    return np.concatenate([*pieces, _simplify(around[here:], tolerance_px)])


def _simplify(line: IntPoints, tolerance_px: float) -> IntPoints:
    """Fewer points for a line of neighbouring half pixels, its ends kept; tolerance 0 drops only what lies on a straight."""
    import cv2

    if len(line) < 3:
        return line
    if (line[0] == line[-1]).all():  # a whole outline: as two lines, split at the point farthest from its start
        middle = int(np.abs(line - line[0]).max(axis=1).argmax())
        return np.concatenate([_simplify(line[: middle + 1], tolerance_px)[:-1], _simplify(line[middle:], tolerance_px)])
    if tolerance_px == 0:
        steps = np.diff(line, axis=0)
        turns = (steps[1:] != steps[:-1]).any(axis=1)
        kept: IntPoints = line[np.concatenate([[True], turns, [True]])]
        return kept
    return np.asarray(cv2.approxPolyDP(np.ascontiguousarray(line), 2 * tolerance_px, False)[:, 0])


def _pixels(points: IntPoints, x1: int, y1: int) -> Ring:
    ring: Ring = (points + 0.5) / 2 + np.array([x1, y1])
    return ring


def _paint(ring: IntPoints, shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """The masks of the ring for ultralytics' training, and for all that paint it as it stands (supervision, our reader)."""
    ring_px, (height, width) = _pixels(ring, 0, 0), shape
    return paint_as_trainer(ring_px, width, height), fill_polygon(ring_px, width, height)


def _resample(ring_px: Ring) -> Ring:
    """The ring with points added along it, as ultralytics' `resample_segments` adds them; every original point stays."""
    closed = np.concatenate([ring_px, ring_px[:1]])
    extra = max(0, TRAINER_POINTS - len(closed))
    corners = np.arange(len(closed))
    places = np.sort(np.concatenate([np.linspace(0, len(closed) - 1, extra), corners]))
    return np.stack([np.interp(places, corners, closed[:, axis]) for axis in (0, 1)], axis=1)


def _is_alike(first: Mask, second: Mask) -> bool:
    return bool((first & second).sum() >= SIMPLE_IOU * (first | second).sum())
