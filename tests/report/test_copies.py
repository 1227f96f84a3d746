"""Images that look alike, and whether the split keeps them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.report.copies import SHOWN_PAIRS, find_copies
from autodistill_grounded_sam.similar import NEAR_BITS
from autodistill_grounded_sam.types import ImageRecord, Split

Row = tuple[int, int | None, Split]  # digest, hash, side


def seen(rows: list[Row]) -> Callable[[], Iterator[tuple[ImageRecord, int | None, Split]]]:
    return lambda: (
        (ImageRecord(f"{place:03d}.png", f"{digest:016x}" + "0" * 48, Path(), 8, 8), dhash, side)
        for place, (digest, dhash, side) in enumerate(rows)
    )


def test_equal_bytes_near_pictures_and_leaks() -> None:
    copies = find_copies(
        seen([
            (1, 0b0, "train"), (1, 0b0, "train"),  # the same file twice, on one side
            (2, 0xFFFF << 20, "train"), (3, (0xFFFF << 20) | 0b11, "valid"),  # nearly alike, on both sides
            (4, 0xABCDEF << 40, "train"), (5, None, "valid"),
        ])
    )  # fmt: skip
    assert (copies.same_bytes, copies.alike, copies.leaking) == (2, 4, 2)
    assert [(one.image.id, other.image.id) for one, other in copies.pairs] == [("002.png", "003.png"), ("000.png", "001.png")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_are_those_of_comparing_all_with_all(data: st.DataObject) -> None:
    bases = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
    flips = st.lists(st.integers(0, 63), max_size=6).map(lambda bits: sum(1 << bit for bit in set(bits)))
    hashes = st.tuples(st.sampled_from(bases), flips).map(lambda drawn: drawn[0] ^ drawn[1])
    drawn = data.draw(st.lists(st.tuples(hashes, st.sampled_from(["train", "train", "valid"])), max_size=30))
    rows: list[Row] = [(number, dhash, side) for number, (dhash, side) in enumerate(drawn)]
    near = [(a, b) for a, b in combinations(range(len(drawn)), 2) if (drawn[a][0] ^ drawn[b][0]).bit_count() <= NEAR_BITS]
    alike = {place for pair in near for place in pair}
    leaking = {place for a, b in near if drawn[a][1] != drawn[b][1] for place in (a, b)}
    copies = find_copies(seen(rows))
    assert (copies.same_bytes, copies.alike, copies.leaking) == (0, len(alike), len(leaking))
    shown = [(int(one.image.id[:3]), int(other.image.id[:3])) for one, other in copies.pairs]
    assert set(shown) <= set(near) and len(set(shown)) == len(shown) <= SHOWN_PAIRS
    assert bool(shown) == bool(near)


def test_nothing_is_alike_in_an_empty_run() -> None:
    assert find_copies(seen([])).alike == 0
