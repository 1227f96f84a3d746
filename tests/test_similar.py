"""The difference hash: near-duplicates are near, other pictures are not."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam import similar
from autodistill_grounded_sam.painting import PainterSettings, paint_scene
from autodistill_grounded_sam.similar import NEAR_BITS, dhash, differing_bits, near_groups
from benchmarks.near_copies import FOLDERS


def bits_apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_a_brighter_right_neighbour_sets_a_bit() -> None:
    ramp = np.repeat(np.arange(9, dtype=np.uint8) * 20, 4)[None, :, None].repeat(16, 0).repeat(3, 2)
    assert dhash(np.ascontiguousarray(ramp)) == 2**64 - 1
    assert dhash(np.ascontiguousarray(ramp[:, ::-1])) == 0


def test_near_duplicates_are_near_and_others_far() -> None:
    settings = PainterSettings(width=128, height=96)
    scenes = [paint_scene(settings, seed).image_rgb for seed in range(20)]
    rng = np.random.default_rng(0)
    for scene in scenes:
        noisy = np.clip(scene.astype(int) * 0.95 + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8)
        assert bits_apart(dhash(scene), dhash(noisy)) <= 8
    apart = [bits_apart(dhash(a), dhash(b)) for i, a in enumerate(scenes) for b in scenes[:i]]
    assert np.median(apart) > 20


def test_one_pixel_is_enough() -> None:
    assert dhash(np.zeros((1, 1, 3), np.uint8)) == 0


def brute_groups(values: list[int]) -> set[frozenset[int]]:
    """The connected components of "differ in NEAR_BITS bits or fewer", as sets of places."""
    unseen, groups = set(range(len(values))), set()
    while unseen:
        group, ahead = set(), {unseen.pop()}
        while ahead:
            group |= ahead
            ahead = {place for place in unseen if any(bits_apart(values[place], values[other]) <= NEAR_BITS for other in ahead)}
            unseen -= ahead
        groups.add(frozenset(group))
    return groups


def found_groups(values: list[int]) -> set[frozenset[int]]:
    names = near_groups(np.array(values, np.uint64)).tolist()
    assert all(names[name] == name for name in names)
    return {frozenset(place for place, other in enumerate(names) if other == name) for name in names}


BITS = st.lists(st.integers(0, 63), max_size=9).map(lambda bits: sum(1 << bit for bit in set(bits)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_groups__of_clustered_hashes__are_those_of_the_brute_force(data: st.DataObject) -> None:
    bases = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    values = [data.draw(st.sampled_from(bases)) ^ data.draw(BITS) for _ in range(data.draw(st.integers(0, 30)))]
    assert found_groups(values) == brute_groups(values)


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("folder", FOLDERS)
def test_groups__whatever_is_in_the_folder__are_those_of_the_brute_force(
    folder: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "BATCH", batch)
    values = FOLDERS[folder](np.random.default_rng(batch), 60).tolist()
    assert found_groups(values) == brute_groups(values)


def test_bits_are_counted() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2**64, (2, 1000), dtype=np.uint64)
    first[0], second[0] = 0, 2**64 - 1
    expected = [bits_apart(one, other) for one, other in zip(first.tolist(), second.tolist(), strict=True)]
    assert differing_bits(first, second).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_groups__100_000_images__in_seconds(folder: str) -> None:
    values = FOLDERS[folder](np.random.default_rng(0), 100_000)
    started = time.process_time()
    near_groups(values)
    assert time.process_time() - started < 20  # 2 s are usual
