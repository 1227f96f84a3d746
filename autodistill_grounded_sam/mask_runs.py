"""Masks as vertical runs of pixels: a COCO code read and written by numpy, without ever making the dense mask.

A code of a 640x480 mask is some hundred numbers, the dense mask is 307,200 pixels; this is why ten thousand images are
decided in seconds, and why only what lies in a mask's tight box is ever painted. The format is that of pycocotools
(`rleFrString`, `rleToString` in maskApi.c): column-major run lengths, from the fourth on as the difference to the one but last,
in signed groups of five bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.types import Float32, Rle

Flags = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
_MORE, _SIGN, _BITS, _ZERO = 32, 16, 31, 48  # flags and digits of one character, which stands at "0" + its value
PAINTED_AT_ONCE = 500_000  # pixels: they stay in the cache, and few masks of a 100-megapixel image lie in memory together


@dataclass(frozen=True)
class Runs:
    """The foreground of n masks by mask, column, row. A run is column `x`, rows `y1` up to `y2` (exclusive).

    `sizes` (n, 2) are the height and width of each mask: masks of many images go through together, in one numpy call a step.
    """

    sizes: Int64
    mask: Int64
    x: Int64
    y1: Int64
    y2: Int64

    @property
    def count(self) -> int:
        """How many masks, empty ones too."""
        return len(self.sizes)

    def where(self, which: Flags | Int64) -> Runs:
        """The runs at `which` (bool or places); the masks keep their places."""
        return Runs(self.sizes, self.mask[which], self.x[which], self.y1[which], self.y2[which])

    def of_masks(self, which: Flags) -> Runs:
        """The masks at `which` (count,), without the others."""
        mine = self.where(which[self.mask])
        return replace(mine, sizes=self.sizes[which], mask=(np.cumsum(which) - 1)[mine.mask])

    def columns(self) -> Int64:
        """(runs,) a number for each column of each mask, that of the next column one higher; no two masks have neighbours."""
        return self.mask * (int(self.sizes[:, 1].max(initial=0)) + 1) + self.x

    def areas(self) -> Int64:
        """Pixels of each mask, (count,)."""
        return np.bincount(self.mask, weights=self.y2 - self.y1, minlength=self.count).astype(np.int64)

    def shared(self, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> Int64:
        """Pixels in both masks of each pair, (pairs,); the two of a pair are places of masks of one size."""
        pixels, height = self.sizes.prod(axis=1), self.sizes[:, 0]
        start = np.cumsum(pixels) - pixels
        length = self.y2 - self.y1
        begin = start[self.mask] + self.x * height[self.mask] + self.y1
        before = np.cumsum(length) - length  # the pixels of all runs before each
        count = np.bincount(self.mask, minlength=self.count)
        fewer = np.where(count[first] <= count[second], first, second)
        more = first + second - fewer
        # Each run of the one mask, moved on to the other, holds what is covered up to its end less what is up to its begin.
        number = count[fewer]
        pair = np.repeat(np.arange(len(first)), number)
        run = np.arange(len(pair)) + np.repeat((np.cumsum(count) - count)[fewer] - (np.cumsum(number) - number), number)
        moved = begin[run] + (start[more] - start[fewer])[pair]
        place = np.stack([moved, moved + length[run]])
        at = np.maximum(np.searchsorted(begin, place, "right") - 1, 0)
        covered = before[at] + np.clip(place - begin[at], 0, length[at])
        return np.bincount(pair, weights=covered[1] - covered[0], minlength=len(first)).astype(np.int64)

    def boxes_xyxy(self) -> Float32:
        """The tight box of each mask, (count, 4) pixels; zeros where a mask is empty."""
        boxes = np.zeros((self.count, 4), np.float32)
        if len(self.mask):
            first, last = edges_of_groups(self.mask)
            low, high = np.minimum.reduceat(self.y1, first), np.maximum.reduceat(self.y2, first)
            boxes[self.mask[first]] = np.stack([self.x[first], low, self.x[last] + 1, high], axis=1)
        return boxes


def edges_of_groups(sorted_keys: Int64) -> tuple[Int64, Int64]:
    """Where each stretch of equal keys begins, and its last place."""
    last = np.append(np.flatnonzero(sorted_keys[1:] != sorted_keys[:-1]), len(sorted_keys) - 1)
    return np.append(0, last[:-1] + 1), last


def read_runs(rles: Sequence[Rle]) -> Runs:
    """The runs of masks of any sizes, in order; a damaged code is a RecordError."""
    sizes = np.array([rle["size"] for rle in rles], np.int64).reshape(-1, 2)
    if not rles:
        nothing = np.zeros(0, np.int64)
        return Runs(sizes, nothing, nothing, nothing, nothing)
    values, numbers = _read_values([rle["counts"] for rle in rles])
    positions, rows = _positions(values, numbers)
    ends = np.cumsum(sizes.prod(axis=1))
    wrong = positions[np.cumsum(rows) - 1, 1] != ends
    if wrong.any() or (np.diff(positions.ravel(), prepend=0) < 0).any():
        height, width = sizes[wrong.argmax()]
        raise RecordError(f"a mask's run-length code is damaged: its runs do not add up to {width}x{height} pixels")
    some = positions[:, 1] > positions[:, 0]
    mask = np.repeat(np.arange(len(rles)), rows)[some]
    return _by_column(*_without_seams(mask, positions[some, 0], positions[some, 1]), sizes)


def paint_crops(runs: Runs, ink: np.unsignedinteger[Any]) -> Iterator[npt.NDArray[Any]]:
    """Each mask in its tight box, column by column: (width, height) of 0 and `ink`, in the dtype of the ink."""
    boxes = runs.boxes_xyxy().astype(np.int64)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    stops = np.cumsum(widths * heights)
    starts = stops - widths * heights
    begin = (starts - boxes[:, 1])[runs.mask] + (runs.x - boxes[runs.mask, 0]) * heights[runs.mask] + runs.y1
    edges = np.stack([begin, begin + runs.y2 - runs.y1], axis=1).reshape(-1)
    firsts = np.flatnonzero(np.diff(starts // PAINTED_AT_ONCE, prepend=-1)).tolist()
    for first, stop in pairwise([*firsts, runs.count]):
        base, end = starts[first], stops[stop - 1]
        own = edges[2 * np.searchsorted(runs.mask, first) : 2 * np.searchsorted(runs.mask, stop)]
        inks = np.zeros(len(own) + 1, ink.dtype)
        inks[1::2] = ink
        flat = np.repeat(inks, np.diff(own, prepend=base, append=end))
        for k in range(first, stop):
            yield flat[starts[k] - base : stops[k] - base].reshape(widths[k], heights[k])


def write_rles(runs: Runs) -> list[Rle]:
    """The codes of all masks; the same bytes as pycocotools writes. Runs of one mask may touch."""
    if runs.count == 0:
        return []
    pixels = runs.sizes.prod(axis=1)
    starts = np.cumsum(pixels) - pixels
    begin = starts[runs.mask] + runs.x * runs.sizes[runs.mask, 0] + runs.y1
    mask, begin, end = _without_seams(runs.mask, begin, begin + runs.y2 - runs.y1)
    pieces = np.bincount(mask, minlength=runs.count)
    # Every mask has its edges in a row: its own begin, begin and end of each run, its own end.
    length = 2 * pieces + 2
    heads = np.cumsum(length) - length
    edges = np.empty(int(length.sum()), np.int64)
    edges[heads], edges[heads + length - 1] = starts, starts + pixels
    place = 2 * np.arange(len(begin)) + 2 * mask + 1
    edges[place], edges[place + 1] = begin, end
    counts = np.append(np.diff(edges), 0)
    at = np.arange(len(counts)) - np.repeat(heads, length)
    steps = counts.copy()
    steps[2:] -= np.where(at[2:] > 2, counts[:-2], 0)
    left = np.repeat(length, length) - at  # 2 at the last count of a mask, 1 at the gap to the next mask
    written = (left > 2) | ((left == 2) & (counts > 0))
    texts = _write_values(steps[written], np.add.reduceat(written, heads))
    return [Rle(size=size, counts=text) for size, text in zip(runs.sizes.tolist(), texts, strict=True)]


def _without_seams(mask: Int64, begin: Int64, end: Int64) -> tuple[Int64, Int64, Int64]:
    """Runs of one mask that touch end to end as one: at the foot of a column, or where a code has a gap of length 0."""
    fresh = np.ones(len(begin) + 1, np.bool_)
    np.logical_or(begin[1:] != end[:-1], mask[1:] != mask[:-1], out=fresh[1:-1])
    return mask[fresh[:-1]], begin[fresh[:-1]], end[fresh[1:]]


def _read_values(texts: Sequence[str]) -> tuple[Int64, Int64]:
    """Every signed number of the joined codes, and how many numbers each code holds."""
    joined = "".join(texts)
    codes = np.frombuffer(joined.encode("ascii", "replace"), np.uint8).astype(np.int64) - _ZERO
    stops = np.cumsum([len(text) for text in texts])
    lasts = np.flatnonzero((codes & _MORE) == 0)
    known = joined.isascii() and all(texts) and bool(((codes >= 0) & (codes < 64)).all())
    if not known or (codes[stops - 1] & _MORE).any():
        raise RecordError("a mask's run-length code is damaged: it is empty, cut, or holds characters that no COCO code has")
    firsts = np.append(0, lasts[:-1] + 1)
    digits = lasts - firsts + 1
    if digits.max() > 12:  # twelve groups of five bits are the most that 64 hold
        raise RecordError("a mask's run-length code is damaged: a number in it never ends")
    place = np.arange(len(codes)) - np.repeat(firsts, digits)
    values = np.add.reduceat((codes & _BITS) << (5 * place), firsts)
    values -= np.where(codes[lasts] & _SIGN, np.int64(1) << (5 * digits), 0)
    return values, np.diff(np.searchsorted(lasts, stops - 1) + 1, prepend=0)


def _positions(values: Int64, numbers: Int64) -> tuple[Int64, Int64]:
    """(rows, 2) where each foreground run begins and ends, masks laid end to end; and the rows of each mask.

    A row is a (background, foreground) pair of run lengths. The differences refer to the one but last, so each of the two
    columns is a running sum of its own, begun anew for every mask; the first background is outside of its chain.
    """
    rows = (numbers + 1) // 2
    first_row = np.cumsum(rows) - rows
    flat = np.zeros(2 * int(rows.sum()), np.int64)
    flat[np.arange(len(values)) + np.repeat(2 * first_row - (np.cumsum(numbers) - numbers), numbers)] = values
    pairs = flat.reshape(-1, 2)
    sums = np.cumsum(pairs, axis=0)
    before = np.stack([sums[first_row, 0], sums[first_row, 1] - pairs[first_row, 1]], axis=1)
    lengths = sums - np.repeat(before, rows, axis=0)
    lengths[first_row, 0] = pairs[first_row, 0]
    odd = numbers % 2 == 1  # the last row of such a mask has no foreground
    lengths[(first_row + rows - 1)[odd], 1] = 0
    return np.cumsum(lengths.ravel()).reshape(-1, 2), rows


def _by_column(mask: Int64, begin: Int64, end: Int64, sizes: Int64) -> Runs:
    """Cut runs that go on in the next column; `begin` and `end` count the pixels of all masks, end to end."""
    pixels = sizes.prod(axis=1)
    height, start = sizes[mask, 0], (np.cumsum(pixels) - pixels)[mask]
    begin, end = begin - start, end - start
    x, last = begin // height, (end - 1) // height
    y1, y2, spans = begin - x * height, end - last * height, last - x + 1
    if len(spans) and spans.max() > 1:
        piece = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
        whole = np.repeat(np.arange(len(spans)), spans)
        y1 = np.where(piece == 0, y1[whole], 0)
        y2 = np.where(piece == spans[whole] - 1, y2[whole], height[whole])
        mask, x = mask[whole], x[whole] + piece
    return Runs(sizes, mask, x, y1, y2)


def _write_values(values: Int64, numbers: Int64) -> list[str]:
    """One text for each `numbers` of the signed values: groups of five bits, lowest first."""
    groups: list[Int64] = []
    used: list[Flags] = []
    rest, active = values, np.ones(len(values), np.bool_)
    while active.any():
        group, rest = rest & _BITS, rest >> 5
        goes_on = np.where(group & _SIGN, rest != -1, rest != 0)
        groups.append(group + np.where(goes_on, _MORE, 0) + _ZERO)
        used.append(active)
        active = active & goes_on
    taken = np.stack(used, axis=1)
    text = np.stack(groups, axis=1)[taken].astype(np.uint8).tobytes().decode("ascii")
    stops = np.cumsum(taken.sum(axis=1))[np.cumsum(numbers) - 1]
    return [text[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
