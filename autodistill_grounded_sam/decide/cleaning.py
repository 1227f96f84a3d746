"""Mask clean-up: specks beside the object go, pinholes in it are filled; every other mask keeps its code byte for byte.

All masks, of many images if need be, are cleaned at once, on their runs: runs are the nodes of a graph, and runs of
neighbouring columns that touch are linked. Its connected sets are the parts of the masks; those of the gaps between runs are
their holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.mask_runs import Flags, Int64, Runs, edges_of_groups, read_runs, write_rles
from autodistill_grounded_sam.types import Float32, Rle


@dataclass(frozen=True)
class CleanMasks:
    """n masks after cleaning, with the pixels (n,) and the tight box (n, 4) of each, and the runs of all."""

    rle: tuple[Rle, ...]
    runs: Runs
    area: npt.NDArray[np.float64]
    xyxy: Float32


def clean_masks(rles: Sequence[Rle], island_fraction: float, hole_fraction: float) -> CleanMasks:
    """Take out parts smaller than `island_fraction` of the largest part, fill holes smaller than `hole_fraction` of the mask.

    Parts hang together by sides and corners, holes by sides; what touches the edge of the image is no hole. A fraction of 0
    leaves parts or holes alone. Larger parts and holes are the object's own (a thing behind a pole, a ring) and stay.
    """
    runs = read_runs(rles)
    changed = np.zeros(runs.count, np.bool_)
    if island_fraction > 0:
        islands = find_islands(runs, island_fraction)
        changed[runs.mask[islands]] = True
        runs = runs.where(~islands)
    if hole_fraction > 0:
        holes = find_holes(runs, hole_fraction)
        changed[holes.mask] = True
        runs = _joined(runs, holes)
    cleaned = list(rles)
    for i, rle in zip(np.flatnonzero(changed).tolist(), write_rles(runs.of_masks(changed)), strict=True):
        cleaned[i] = rle
    return CleanMasks(tuple(cleaned), runs, runs.areas().astype(np.float64), runs.boxes_xyxy())


def find_islands(runs: Runs, fraction: float) -> Flags:
    """(runs,) True for the runs of parts smaller than `fraction` of their mask's largest part."""
    part = _connected(len(runs.mask), *_links(runs, corners=True))
    size = np.bincount(part, weights=runs.y2 - runs.y1, minlength=len(part))[part]
    largest = np.zeros(runs.count)
    np.maximum.at(largest, runs.mask, size)
    islands: Flags = size < fraction * largest[runs.mask]
    return islands


def find_holes(runs: Runs, fraction: float) -> Runs:
    """The background that would fill each hole smaller than `fraction` of its mask's area, as runs."""
    column = runs.columns()
    follows = np.flatnonzero(column[1:] == column[:-1])  # a gap lies between this run and the next
    gaps = Runs(runs.sizes, runs.mask[follows], runs.x[follows], runs.y2[follows], runs.y1[follows + 1])
    if not len(follows):
        return gaps
    hole = _connected(len(follows), *_links(gaps, corners=False))
    # A gap is open if it looks, to the left or right, above the first run or below the last run of that column.
    first, last = edges_of_groups(column)
    columns, top, foot = column[first], runs.y1[first], runs.y2[last]
    leaks = np.zeros(len(follows), np.bool_)
    for beside in (column[follows] - 1, column[follows] + 1):
        at = np.minimum(np.searchsorted(columns, beside), len(columns) - 1)
        leaks |= (columns[at] != beside) | (gaps.y1 < top[at]) | (gaps.y2 > foot[at])
    size = np.bincount(hole, weights=gaps.y2 - gaps.y1, minlength=len(hole))[hole]
    leaking = np.bincount(hole, weights=leaks, minlength=len(hole))[hole] > 0
    return gaps.where(~leaking & (size < fraction * runs.areas()[gaps.mask]))


def _links(runs: Runs, corners: bool) -> tuple[Int64, Int64]:
    """Pairs of runs, as two arrays of places, that touch across neighbouring columns by a side, or by a corner too."""
    stride = int(runs.sizes[:, 0].max(initial=0)) + 2  # of a column, so that the foot of one never touches the head of another
    column = runs.columns() * stride + 1
    begin, end, reach = column + runs.y1, column + runs.y2, int(corners)
    low = np.searchsorted(end, begin + (stride - reach), "right")
    count = np.searchsorted(begin, end + (stride + reach), "left") - low
    count = np.maximum(count, 0)
    left = np.repeat(np.arange(len(begin)), count)
    return left, np.arange(len(left)) + np.repeat(low - (np.cumsum(count) - count), count)


def _connected(nodes: int, left: Int64, right: Int64) -> Int64:
    """(nodes,) the lowest node of the connected set that each node is in, by links from lower to higher nodes.

    Linked roots hook on the lower one, then all look up. Most links are to the very next node: those stretches come first.
    """
    own = np.arange(nodes)
    fresh = np.ones(nodes, np.bool_)
    fresh[right[right == left + 1]] = False
    root = np.maximum.accumulate(np.where(fresh, own, 0))
    while True:
        a, b = root[left], root[right]
        apart = a != b
        if not apart.any():
            return root
        a, b = a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        higher = root[root]
        while not np.array_equal(higher, root):
            root, higher = higher, higher[higher]


def _joined(runs: Runs, more: Runs) -> Runs:
    """Both as one, in order."""
    both = Runs(
        runs.sizes,
        np.append(runs.mask, more.mask),
        np.append(runs.x, more.x),
        np.append(runs.y1, more.y1),
        np.append(runs.y2, more.y2),
    )
    place = both.columns() * int(runs.sizes[:, 0].max(initial=0)) + both.y1
    return both.where(np.argsort(place, kind="stable"))  # stable: it merges the two sorted stretches, in one go
