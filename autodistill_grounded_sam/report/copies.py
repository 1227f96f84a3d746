"""Images of a run that look alike, and those that look alike across the split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.report.facts import Copies
from autodistill_grounded_sam.report.samples import Example
from autodistill_grounded_sam.similar import near_pairs
from autodistill_grounded_sam.types import ImageRecord, Split

SHOWN_PAIRS = 6
TRAIN, VALID = 1, 2  # bits

Seen = Iterator[tuple[ImageRecord, int | None, Split]]
Places = npt.NDArray[np.int64]


def find_copies(seen: Callable[[], Seen]) -> Copies:
    """`seen` gives every image with its difference hash and its side, in the same order whenever it is asked; some dozens of
    bytes an image are held. Images without a hash look like no other."""
    digests, hashes, sides, places = [], [], [], []
    for place, (image, dhash, split) in enumerate(seen()):
        digests.append(int(image.digest[:16], 16))
        if dhash is not None:
            hashes.append(dhash)
            sides.append(TRAIN if split == "train" else VALID)
            places.append(place)
    same_bytes = int((_counts_of(np.array(digests, np.uint64)) > 1).sum())
    if not hashes:
        return Copies(same_bytes)
    side = np.array(sides, np.uint8)
    values, first, which = np.unique(np.array(hashes, np.uint64), return_index=True, return_inverse=True)
    of_value = np.zeros(len(values), np.uint8)  # the sides on which images of this hash are
    np.bitwise_or.at(of_value, which, side)
    twin, leaks = np.bincount(which) > 1, of_value == TRAIN | VALID
    pairs = _equal_pairs(which, side)
    kinds = np.where(twin, -1, np.arange(len(values)))  # what has its twin is one kind, all else a kind each
    for one, other in near_pairs(values, kinds):
        twin[one] = twin[other] = True
        kinds[twin] = -1
        pairs += _some(first[one], first[other], (of_value[one] | of_value[other]) == TRAIN | VALID)
    kinds = np.where(leaks, -1, of_value.astype(np.int64))  # what leaks is one kind, all else is of its side
    for one, other in near_pairs(values, kinds):
        across = (of_value[one] | of_value[other]) == TRAIN | VALID
        leaks[one[across]] = leaks[other[across]] = True
        kinds[leaks] = -1
        pairs += _some(first[one[across]], first[other[across]], across[across])
    shown = list(dict.fromkeys((places[a], places[b]) for _, a, b in sorted(pairs)))[:SHOWN_PAIRS]
    return Copies(same_bytes, int(twin[which].sum()), int(leaks[which].sum()), _examples(seen, shown))


def _counts_of(values: npt.NDArray[np.uint64]) -> Places:
    """How often each value is there, (n,)."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    often: Places = counts[which]
    return often


def _equal_pairs(which: Places, side: npt.NDArray[np.uint8]) -> list[tuple[bool, int, int]]:
    """Neighbours of one hash, images of train before those of valid."""
    order = np.lexsort((side, which))
    one, other = order[:-1], order[1:]
    equal = which[one] == which[other]
    return _some(one[equal], other[equal], side[one[equal]] != side[other[equal]])


def _some(one: Places, other: Places, across: npt.NDArray[np.bool_]) -> list[tuple[bool, int, int]]:
    """A few pairs as (stays on a side, lower place, higher place); sorted, those that leak come first."""
    chosen = np.concatenate([np.flatnonzero(across)[:SHOWN_PAIRS], np.flatnonzero(~across)[:SHOWN_PAIRS]])
    return [(not across[k], int(min(one[k], other[k])), int(max(one[k], other[k]))) for k in chosen.tolist()]


def _examples(seen: Callable[[], Seen], pairs: list[tuple[int, int]]) -> tuple[tuple[Example, Example], ...]:
    wanted = {place for pair in pairs for place in pair}
    if not wanted:
        return ()
    shown = {place: Example(image) for place, (image, _, _) in enumerate(seen()) if place in wanted}
    return tuple((shown[one], shown[other]) for one, other in pairs)
