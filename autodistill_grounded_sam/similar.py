"""A short fingerprint by which near-duplicate images are known, and the groups and pairs of them among many."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.types import RgbImage

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

# Of 64 bits of a difference hash. Re-encoded and resized copies differ by 0-3 bits.
NEAR_BITS = 4
PARTS = 8  # more parts are more choices of them to sort by, fewer leave more to compare
BATCH = 1 << 20  # pairs; some 60 MB of work


def dhash(image_rgb: RgbImage) -> int:
    """The 64-bit difference hash of an image: near-duplicates differ in few bits.

    Shrunk to 9 x 8 gray pixels, each bit says whether a pixel is brighter than its left neighbour, row by row, the first
    the highest. After Neal Krawetz, "Kind of Like That" (2013).
    """
    from PIL import Image

    gray = np.asarray(Image.fromarray(image_rgb).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes(), "big")


def near_groups(values: Hashes) -> Places:
    """The group of every hash, (n,), named by the place of its smallest: joined are those that differ in NEAR_BITS bits or fewer,
    and whatever a chain of such pairs joins. See `near_pairs` for what it takes."""
    distinct, first, which = np.unique(values, return_index=True, return_inverse=True)
    groups = np.arange(len(distinct))
    for one, other in near_pairs(distinct, groups):
        join(groups, one, other)
    return np.asarray(first[groups][which])


def near_pairs(values: Hashes, kinds: Places) -> Iterator[tuple[Places, Places]]:
    """Pairs of places whose hashes differ in NEAR_BITS bits or fewer, of two kinds, in batches; a pair may come more than once.

    `kinds`, (n,), is read anew as it goes: make one kind of what need not be compared any more, and those pairs are spared.

    Cut into PARTS parts, two such hashes agree in PARTS - NEAR_BITS of them: only those that agree are compared. Those that agree
    in more come first, for they are few and join most of what is dense. What is left is quadratic only in hashes that agree in
    half of their bits and are still of many kinds; no folder in `benchmarks/near_copies.py` is like that (2 s at 100,000).
    """
    for mask in _masks(values):
        for first, second in _agreeing(values & mask, kinds):
            near = differing_bits(values[first], values[second]) <= NEAR_BITS
            yield first[near], second[near]


def join(groups: Places, first: Places, second: Places) -> None:
    """Join the groups of pairs of places, in place: `groups`, (n,), holds the lowest place of the group of every place."""
    while (apart := groups[first] != groups[second]).any():
        first, second = first[apart], second[apart]
        one, other = groups[first], groups[second]
        np.minimum.at(groups, np.maximum(one, other), np.minimum(one, other))
        while ((lower := groups[groups]) != groups).any():
            groups[:] = lower


def differing_bits(first: Hashes, second: Hashes) -> Places:
    """How many bits differ in each pair of hashes, (n,)."""
    bits = first ^ second  # counted in pairs, in fours, in bytes; the product adds the bytes up in the highest
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray((bits * np.uint64(0x0101010101010101)) >> np.uint64(56), np.int64)


def _masks(values: Hashes) -> Iterator[np.uint64]:
    """Every choice of parts, as a mask of their bits, the larger choices first.

    Bits are dealt by how much they vary, so that each part gets its share: of a fixed camera most bits stand still.
    """
    shares = np.array([np.count_nonzero(values & np.uint64(1 << bit)) for bit in range(64)]) / max(1, len(values))
    liveliest_first = np.argsort(np.abs(shares - 0.5), kind="stable").tolist()
    parts = [sum(1 << bit for bit in liveliest_first[part::PARTS]) for part in range(PARTS)]
    for agreeing in range(PARTS - 1, PARTS - NEAR_BITS - 1, -1):
        for chosen in combinations(parts, agreeing):
            yield np.uint64(sum(chosen))


def _agreeing(keys: Hashes, kinds: Places) -> Iterator[tuple[Places, Places]]:
    """All pairs of places of one key and two kinds, in batches of about BATCH."""
    order = np.lexsort((kinds, keys))
    new_key, new_kind = np.diff(keys[order]) != 0, np.diff(kinds[order]) != 0
    kind_end, key_end = _ends_of_runs(new_key | new_kind), _ends_of_runs(new_key)
    partners = key_end - kind_end  # of a place: those of its key behind all of its kind
    rows = np.flatnonzero(partners)
    for batch in np.split(rows, np.flatnonzero(np.diff(np.cumsum(partners[rows]) // BATCH)) + 1):
        counts = partners[batch]
        here = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[np.repeat(batch, counts)], order[np.repeat(kind_end[batch], counts) + here]


def _ends_of_runs(changes: npt.NDArray[np.bool_]) -> Places:
    """For each of n places, where its run ends; `changes`, (n - 1,), says where a new one begins."""
    ends = np.append(np.flatnonzero(changes) + 1, len(changes) + 1)
    return np.repeat(ends, np.diff(ends, prepend=0))
