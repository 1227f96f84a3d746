"""One object, one ring: parts and holes of a mask bridged into a single closed polygon that a YOLO trainer paints back.

Where a ring runs. ultralytics cuts coordinates to whole pixels and paints the outline as well, so a ring along the outer pixel
edges comes back a pixel too wide on the right and below; one through pixel centres comes back exact there, but half a pixel thin
in every reader that measures areas (COCO). So rings run inside the outermost pixels of the mask, a quarter of a pixel in from
their outer edges: a mask comes back from both exactly. (Readers that round instead of cutting see objects one pixel wider.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import fill_polygon
from autodistill_grounded_sam.mask_runs import paint_crops, read_runs
from autodistill_grounded_sam.types import Mask, Rle

IntPoints = npt.NDArray[np.int32]  # (n, 2) x y in half pixels: place k is the middle of half pixel k
Ring = npt.NDArray[np.float64]  # (n, 2) x y in pixels of the upright image, closed without repeating the first point

# How far a simplified ring may stray, in pixels, and from which fullness of the mask on that is tried: its pixels over the length
# of its outline (a quarter of a disc's diameter). The first that keeps SIMPLE_IOU is taken, else the exact ring. Below that
# fullness hardly any passes: of 2,500 forms of 3 to 200 px radius 1 % below 15, and 10 % from 15 to 20. At 0.99 objects of
# 60-200 px radius need about 50 points instead of 900.
TOLERANCES_PX = ((1.0, 25.0), (0.7, 20.0), (0.5, 20.0))
SIMPLE_IOU = 0.99
# ultralytics resamples every ring to this many points before it paints (`resample_segments`), and every point marks a pixel.
TRAINER_POINTS = 1000
# More contours than this is noise, and bridging costs their square: the largest are kept. `decide` leaves far fewer.
MAX_CONTOURS = 256
COARSE_POINTS = 128  # of each outline where the nearest places of two are looked for first
# Two bytes of ink a pixel are its two half pixels: on a mask of twice the size, even one pixel has an outline with an inside.
HALF_PIXELS = np.uint16(0x0101)


@dataclass
class _Contour:
    """One outline of a mask; `bridges` are (place on this outline, other outline, place on the other)."""

    points: IntPoints
    area_px: float
    is_hole: bool
    bridges: list[tuple[int, _Contour, int]] = field(default_factory=list)


def ring_of(rle: Rle) -> tuple[Ring, int]:
    """The ring of one mask; see `rings_of`."""
    return rings_of([rle])[0]


def rings_of(rles: Sequence[Rle]) -> list[tuple[Ring, int]]:
    """The ring of each mask, at least 4 points (none for an empty mask), and how many of its parts were left out.

    A part is left out only where the bridge to it would paint more pixels of background than the part has.
    """
    return _rings(rles, bridged=True)


def outlines_of(rles: Sequence[Rle]) -> list[Ring]:
    """The ring of each mask of one part without a hole, as in `rings_of`. No points for every other: no plain polygon is it."""
    return [ring for ring, _ in _rings(rles, bridged=False)]


def _rings(rles: Sequence[Rle], *, bridged: bool) -> list[tuple[Ring, int]]:
    runs = read_runs(rles)
    nothing = np.zeros((0, 2), np.int32), 0
    found = [
        _ring(crop, area_px, bridged=bridged) if area_px else nothing
        for crop, area_px in zip(paint_crops(runs, HALF_PIXELS), runs.areas().tolist(), strict=True)
    ]
    if not found:
        return []
    counts = [len(points) for points, _ in found]
    corners = np.repeat(runs.boxes_xyxy()[:, :2].astype(np.float64), counts, axis=0)
    rings = np.split((np.concatenate([points for points, _ in found]) + 0.5) / 2 + corners, np.cumsum(counts[:-1]))
    return [(ring, left_out) for ring, (_, left_out) in zip(rings, found, strict=True)]


def ring_of_box(xyxy: npt.NDArray[Any]) -> Ring:
    """The ring of a box, placed as those of masks are, for an object that has no mask. `xyxy` (4,) with x2 > x1 and y2 > y1."""
    x1, y1, x2, y2 = (float(edge) for edge in xyxy)
    return np.array([(x1, y1), (x1, y2), (x2, y2), (x2, y1)]) + 0.25 * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])


def paint_as_trainer(ring_px: Ring, width: int, height: int) -> Mask:
    """The mask (height, width) that ultralytics trains on at the image's own size: the ring resampled, cut and filled."""
    return fill_polygon(_resample(ring_px), width, height)


def _ring(crop: npt.NDArray[np.uint16], area_px: int, *, bridged: bool) -> tuple[IntPoints, int]:
    """The ring of what a crop (width, height) holds in HALF_PIXELS, and how many parts were left out; without bridges no points
    where there are parts or holes."""
    import cv2

    # columns of the image are rows here, so the points found are y x
    double = np.repeat(crop.view(np.uint8), 2, axis=0)
    outlines, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outline_px = sum(cv2.arcLength(outline, True) for outline in outlines) / 2
    tolerances = [tolerance_px for tolerance_px, fullness in TOLERANCES_PX if area_px >= fullness * outline_px]
    if len(outlines) == 1:  # one part without a hole, as most are: the outline is the ring, and paints the very mask
        exact = np.ascontiguousarray(outlines[0][:, 0, ::-1])
        if not tolerances:
            return exact, 0
        mask = np.ascontiguousarray(crop.view(np.bool_)[:, ::2].T)
        rings = (cv2.approxPolyDP(exact, 2 * tolerance_px, True)[:, 0] for tolerance_px in tolerances)
        return _first_alike(rings, exact, (mask, mask)), 0
    if not bridged:
        return np.zeros((0, 2), np.int32), 0
    outlines, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    root, left_out = _bridge(_contours([outline[:, 0, ::-1] for outline in outlines], hierarchy[0][:, 3] >= 0))
    exact = _walk(root, 0, 0.0)[:-1]  # a ring does not repeat its first point
    if not tolerances:
        return exact, left_out
    width, height = crop.shape
    wanted = _paint_as_trainer(exact, width, height), _paint(exact, width, height)
    return _first_alike((_walk(root, 0, tolerance_px)[:-1] for tolerance_px in tolerances), exact, wanted), left_out


def _first_alike(rings: Iterable[IntPoints], exact: IntPoints, wanted: tuple[Mask, Mask]) -> IntPoints:
    """The first ring that comes back alike from ultralytics' training and from all that paint it as it stands; else `exact`.

    `wanted` are the masks to come back from the two. The former marks every pixel that a line grazes, so it is the stricter.
    """
    height, width = wanted[0].shape
    for ring in rings:
        if (
            len(ring) >= 4
            and _is_alike(_paint_as_trainer(ring, width, height), wanted[0])
            and _is_alike(_paint(ring, width, height), wanted[1])
        ):
            return ring
    return exact


def _contours(outlines: Sequence[IntPoints], is_hole: npt.NDArray[np.bool_]) -> list[_Contour]:
    """Every outline of a mask, given as all of its half pixels, largest first."""
    import cv2

    contours = []
    for outline, hole in zip(outlines, is_hole.tolist(), strict=True):
        points = np.ascontiguousarray(outline)
        # Pick's theorem: the outline runs through the middles of half pixels, so half of its points count on top of its area
        contours.append(_Contour(points, (cv2.contourArea(points) + len(points) / 2 + 1) / 4, hole))
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


def _paint_as_trainer(ring: IntPoints, width: int, height: int) -> Mask:
    return paint_as_trainer((ring + 0.5) / 2, width, height)


def _paint(ring: IntPoints, width: int, height: int) -> Mask:
    return fill_polygon((ring + 0.5) / 2, width, height)


def _resample(ring_px: Ring) -> Ring:
    """The ring with points added along it, as ultralytics' `resample_segments` adds them; every original point stays."""
    closed = np.concatenate([ring_px, ring_px[:1]]).view(np.complex128)[:, 0]  # x + iy: both are interpolated in one call
    corners = np.arange(len(closed))
    extra = max(0, TRAINER_POINTS - len(closed))
    places = np.concatenate([np.arange(extra) * ((len(closed) - 1) / max(1, extra - 1)), corners])
    places.sort(kind="stable")  # it merges the two sorted stretches
    resampled: Ring = np.interp(places, corners, closed).view(np.float64).reshape(-1, 2)
    return resampled


def _is_alike(first: Mask, second: Mask) -> bool:
    return bool(np.count_nonzero(first & second) >= SIMPLE_IOU * np.count_nonzero(first | second))
