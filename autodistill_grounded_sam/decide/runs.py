"""Masks as vertical runs of pixels: a COCO code read and written by numpy, without ever making the dense mask.

A code of a 640x480 mask is some hundred numbers, the dense mask is 307,200 pixels; this is why ten thousand images are
decided in seconds. The format is that of pycocotools (`rleFrString`, `rleToString` in maskApi.c): column-major run lengths,
from the fourth on as the difference to the one but last, in signed groups of five bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.types import Float32, Rle

Int64 = npt.NDArray[np.int64]
_MORE, _SIGN, _BITS, _ZERO = 32, 16, 31, 48  # flags and digits of one character, which stands at "0" + its value


@dataclass(frozen=True)
class Runs:
    """The foreground of `count` masks by mask, column, row. A run is column `x`, rows `y1` up to `y2` (exclusive)."""

    count: int
    width: int
    height: int
    mask: Int64
    x: Int64
    y1: Int64
    y2: Int64

    def where(self, which: npt.NDArray[np.bool_]) -> Runs:
        """The runs at `which`; the masks keep their places."""
        return replace(self, mask=self.mask[which], x=self.x[which], y1=self.y1[which], y2=self.y2[which])

    def areas(self) -> Int64:
        """Pixels of each mask, (count,)."""
        return np.bincount(self.mask, weights=self.y2 - self.y1, minlength=self.count).astype(np.int64)

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


def read_runs(rles: Sequence[Rle], width: int, height: int) -> Runs:
    """The runs of masks that all belong to one image; a code of another size, or a damaged one, is a RecordError."""
    if not rles:
        nothing = np.zeros(0, np.int64)
        return Runs(0, width, height, nothing, nothing, nothing, nothing)
    for rle in rles:
        if list(rle["size"]) != [height, width]:
            raise RecordError(
                f"a mask of an image of {width}x{height} must have size [{height}, {width}], got {list(rle['size'])}"
            )
    values, numbers = _read_values([rle["counts"] for rle in rles])
    positions, rows = _positions(values, numbers)
    if (positions[np.cumsum(rows) - 1, 1] != np.arange(1, len(rles) + 1) * width * height).any() or (
        np.diff(positions.ravel()) < 0
    ).any():
        raise RecordError(f"a mask's run-length code is damaged: its runs do not add up to {width}x{height} pixels")
    mask = np.repeat(np.arange(len(rles)), rows)
    some = positions[:, 1] > positions[:, 0]
    return _by_column(mask[some], positions[some, 0], positions[some, 1], len(rles), width, height)


def write_rles(runs: Runs) -> list[Rle]:
    """The codes of all masks; the same bytes as pycocotools writes. Runs of one mask may touch."""
    if runs.count == 0:
        return []
    pixels = runs.width * runs.height
    begin = runs.mask * pixels + runs.x * runs.height + runs.y1
    end = begin + runs.y2 - runs.y1
    fresh = np.ones(len(begin), np.bool_)  # a run at the foot of a column goes on at the head of the next
    fresh[1:] = (begin[1:] != end[:-1]) | (runs.mask[1:] != runs.mask[:-1])
    mask, begin, end = runs.mask[fresh], begin[fresh], end[np.append(fresh[1:], True)[: len(end)]]
    pieces = np.bincount(mask, minlength=runs.count)
    # Every mask has its edges in a row: its own begin, begin and end of each run, its own end.
    heads = np.cumsum(2 * pieces + 2) - (2 * pieces + 2)
    edges = np.empty(int((2 * pieces + 2).sum()), np.int64)
    edges[heads] = np.arange(runs.count) * pixels
    edges[heads + 2 * pieces + 1] = edges[heads] + pixels
    place = 2 * np.arange(len(begin)) + 2 * mask + 1
    edges[place], edges[place + 1] = begin, end
    counts = np.append(np.diff(edges), 0)
    at = np.arange(len(counts)) - np.repeat(heads, 2 * pieces + 2)
    steps = counts.copy()
    steps[2:] -= np.where(at[2:] > 2, counts[:-2], 0)
    last = at == np.repeat(2 * pieces, 2 * pieces + 2)
    written = (at < np.repeat(2 * pieces + 1, 2 * pieces + 2)) & ~(last & (counts == 0))
    texts = _write_values(steps[written], np.add.reduceat(written, heads))
    return [Rle(size=[runs.height, runs.width], counts=text) for text in texts]


def _read_values(texts: Sequence[str]) -> tuple[Int64, Int64]:
    """Every signed number of the joined codes, and how many numbers each code holds."""
    codes = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8).astype(np.int64) - _ZERO
    stops = np.cumsum([len(text) for text in texts])
    lasts = np.flatnonzero((codes & _MORE) == 0)
    whole = bool((np.diff(stops, prepend=0) > 0).all()) and bool(((codes >= 0) & (codes < 64)).all())
    if not whole or (codes[stops - 1] & _MORE).any():
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


def _by_column(mask: Int64, begin: Int64, end: Int64, count: int, width: int, height: int) -> Runs:
    """Cut runs that go on in the next column."""
    column, last = begin // height, (end - 1) // height
    spans = last - column + 1
    y1, y2 = begin - column * height, end - last * height
    if len(spans) and spans.max() > 1:
        piece = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
        spans = np.repeat(spans, spans)
        y1 = np.where(piece == 0, np.repeat(y1, spans[piece == 0]), 0)
        y2 = np.where(piece == spans - 1, np.repeat(y2, spans[piece == 0]), height)
        column = np.repeat(column, spans[piece == 0]) + piece
        mask = np.repeat(mask, spans[piece == 0])
    return Runs(count, width, height, mask, column - mask * width, y1, y2)


def _write_values(values: Int64, numbers: Int64) -> list[str]:
    """One text for each `numbers` of the signed values: groups of five bits, lowest first."""
    groups: list[Int64] = []
    used: list[npt.NDArray[np.bool_]] = []
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
