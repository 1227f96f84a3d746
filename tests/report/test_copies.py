"""Images that look alike, and whether the split keeps them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

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


def test_counts_are_those_of_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    base = [int(value) for value in rng.integers(0, 2**63, 12)]
    rows: list[Row] = []
    for number in range(60):
        dhash = base[number % 12]
        for bit in rng.integers(0, 63, int(rng.integers(0, 4))):
            dhash ^= 1 << int(bit)
        rows.append((number, dhash, "valid" if rng.random() < 0.3 else "train"))
    near = [(a, b) for a, b in combinations(range(60), 2) if (rows[a][1] ^ rows[b][1]).bit_count() <= NEAR_BITS]  # type: ignore[operator]
    alike = {place for pair in near for place in pair}
    leaking = {place for a, b in near if rows[a][2] != rows[b][2] for place in (a, b)}
    copies = find_copies(seen(rows))
    assert (copies.same_bytes, copies.alike) == (0, len(alike))
    assert leaking <= alike and copies.leaking >= len(leaking) > 0
    assert len(copies.pairs) == SHOWN_PAIRS


def test_nothing_is_alike_in_an_empty_run() -> None:
    assert find_copies(seen([])).alike == 0
