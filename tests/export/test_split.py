"""The split: nothing that looks alike on both sides, the same for ever, never one-sided where it can be helped."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.export.split import SplitPlan, _natural, group_keys, plan_splits, split_of
from autodistill_grounded_sam.similar import NEAR_BITS
from autodistill_grounded_sam.types import ImageRecord


def image(name: str, content: str | None = None) -> ImageRecord:
    return ImageRecord(name, hashlib.sha256((content or name).encode()).hexdigest(), Path(), 64, 48)


def images(names: Iterable[str]) -> list[ImageRecord]:
    return [image(name) for name in names]


def aligned(found: Sequence[ImageRecord], hashes: Mapping[str, int]) -> list[int | None]:
    return [hashes.get(item.id) for item in found]


def sides(plan: SplitPlan, names: Iterable[str]) -> set[str]:
    return {plan.split[name] for name in names}


def test_split_of__fraction_and_seed() -> None:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    valid = [digest for digest in digests if split_of(digest, 0.2) == "valid"]
    assert 0.18 < len(valid) / 4000 < 0.22
    assert {split_of(digest, 0.0) for digest in digests} == {"train"}
    assert valid != [digest for digest in digests if split_of(digest, 0.2, seed=1) == "valid"]
    assert all(split_of(digest, 0.3) == "valid" for digest in valid)  # a larger share keeps what was there


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab-_./ 0129٣é", max_size=9), max_size=6))
def test_natural__numbers_by_value_and_texts_by_letters(names: list[str]) -> None:
    plain = {name: [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)] for name in names}
    assert [plain[name] for name in sorted(names, key=_natural)] == sorted(plain[name] for name in names)
    assert sorted(["frame_10", "frame_2", "frame_02"], key=_natural)[-1] == "frame_10"


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["clip_0001.jpg", "clip_0002.jpg", "clip_0300.jpg"], 1),
        (["a/clip_0001.jpg", "b/clip_0001.jpg"], 2),  # two folders, two recordings
        (["name_frame_000123.png", "name_frame_000124.png", "other_frame_000001.png"], 2),
        (["frame1.jpg", "frame2.jpg"], 1),
        (["clip.mp4#t=12.jpg", "clip.mp4#t=13.jpg", "clop.mp4#t=12.jpg"], 2),
        (["road_mp4-12_jpg.rf.0ab1.jpg", "road_mp4-13_jpg.rf.77cd.jpg", "lane_mp4-12_jpg.rf.99ee.jpg"], 2),
        (["video-00012.jpg", "video-00013.jpg"], 1),
        (["video1_0001.jpg", "video1_0002.jpg", "video2_0001.jpg"], 2),
        (["cam2_001.jpg", "cam2_002.jpg"], 1),
        (["IMG_1234.jpg", "IMG_1235.jpg"], 2),  # a camera counts its photographs, related or not
        (["000000000139.jpg", "000000000285.jpg"], 2),
        (["img_0001.jpg", "img_0002.jpg", "img_0003.jpg"], 3),
        (["eclipse_1.jpg", "eclipse_2.jpg"], 2),  # a word that only holds "clip"
        (["camel_1.jpg", "camel_2.jpg"], 2),
        (["sequoia_1.jpg", "sequoia_2.jpg"], 2),
        (["videos/a.jpg", "videos/b.jpg"], 2),  # no number, no sequence
    ],
)
def test_groups__by_name(names: list[str], groups: int) -> None:
    padding = [f"other{letter}.jpg" for letter in "abcdefghij"]  # so that no group holds half of the folder
    keys, notes = group_keys(images([*names, *padding]))
    assert len({keys[name] for name in names}) == groups
    assert notes == []


def test_groups__equal_bytes_and_near_pictures() -> None:
    found = [image("a.jpg", "same"), image("sub/b.jpg", "same"), *images(["c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg", "h.jpg"])]
    base = 0x0123456789ABCDEF
    hashes = {
        "c.jpg": base,
        "d.jpg": base ^ 0b10110000000000000000000000000001,
        "e.jpg": base ^ 0b111110000,
        "f.jpg": ~base % 2**64,
    }
    keys, _ = group_keys(found, aligned(found, hashes))
    assert keys["a.jpg"] == keys["sub/b.jpg"]
    assert keys["c.jpg"] == keys["d.jpg"]  # 4 bits
    assert keys["e.jpg"] != keys["c.jpg"]  # 5 bits
    assert len(set(keys.values())) == 6


def test_groups__burst_of_a_camera_needs_likeness_of_names_and_pictures() -> None:
    found = images(["IMG_0041.jpg", "IMG_0042.jpg", "IMG_0043.jpg", "x1.jpg", "y1.jpg", "z1.jpg", "w1.jpg"])
    alike, apart = 0b1111111, 0xFFFFFFFF00000000
    hashes = {"IMG_0041.jpg": 0, "IMG_0042.jpg": alike, "IMG_0043.jpg": apart, "x1.jpg": alike << 20}
    keys, _ = group_keys(found, aligned(found, hashes))
    assert keys["IMG_0041.jpg"] == keys["IMG_0042.jpg"]
    assert keys["IMG_0043.jpg"] != keys["IMG_0042.jpg"]
    assert keys["x1.jpg"] != keys["IMG_0041.jpg"]


def test_groups__one_video_is_the_whole_folder__is_cut_into_runs_with_a_note() -> None:
    names = [f"clip_{number}.jpg" for number in range(1, 201)]
    plan = plan_splits(images(names), 0.2)
    assert sides(plan, names) == {"train", "valid"}
    assert "200 of 200 images are one sequence or look alike (clip_1.jpg ...): cut into 10 runs of neighbours" in plan.notes[0]
    changes = sum(plan.split[a] != plan.split[b] for a, b in pairwise(names))
    assert changes <= 9  # runs, not a shuffle: clip_2 sorts before clip_10
    assert plan.groups == 10


def test_groups__cut_keeps_equal_bytes_together() -> None:
    found = [image(f"frame_{number:03}.jpg", f"content {number % 40}") for number in range(80)]
    plan = plan_splits(found, 0.2)
    for number in range(40):
        assert len(sides(plan, [f"frame_{number:03}.jpg", f"frame_{number + 40:03}.jpg"])) == 1


def test_groups__numbered_collection__is_split_by_image() -> None:
    plan = plan_splits(images(f"img_{number:04}.jpg" for number in range(1000)), 0.2)
    assert 0.16 < plan.achieved < 0.24
    assert plan.notes == ()


def test_plan__images_added__moves_none_of_the_others() -> None:
    before = plan_splits(images([f"p{n}.jpg" for n in range(300)] + [f"clip_{n}.jpg" for n in range(50)]), 0.2)
    after = plan_splits(images([f"p{n}.jpg" for n in range(400)] + [f"clip_{n}.jpg" for n in range(99)]), 0.2)
    assert {name: after.split[name] for name in before.split} == before.split


@pytest.mark.parametrize("seed", range(20))
def test_plan__two_groups__neither_side_is_empty(seed: int) -> None:
    plan = plan_splits(images(["a.jpg", "b.jpg"]), 0.2, seed=seed)
    assert sides(plan, ["a.jpg", "b.jpg"]) == {"train", "valid"}
    most = plan_splits(images(["a.jpg", "b.jpg", "c.jpg"]), 0.99, seed=seed)
    assert sides(most, most.split) == {"train", "valid"}


def test_plan__one_image_and_none() -> None:
    assert plan_splits(images(["a.jpg"]), 0.2).split == {"a.jpg": "train"} or split_of(image("a.jpg").digest, 0.2) == "valid"
    assert plan_splits([], 0.2).split == {}
    assert sides(plan_splits(images(["a.jpg", "b.jpg"]), 0.0), ["a.jpg", "b.jpg"]) == {"train"}


def test_plan__far_off__says_so() -> None:
    names = [f"clip_{number}.jpg" for number in range(45)] + [f"video_{number}.jpg" for number in range(45)] + ["one.jpg"] * 1
    plan = plan_splits(images(names), 0.2)
    (note,) = (note for note in plan.notes if "of the images fell to valid, 20% was asked for" in note)
    assert note.endswith("what looks alike or is of one sequence stays together, so 91 images are 3 draws")


def test_plan__without_groups__only_equal_bytes_stay_together() -> None:
    found = [*images(f"clip_{number}.jpg" for number in range(60)), image("copy.jpg", "clip_7.jpg")]
    plan = plan_splits(found, 0.3, group=False)
    assert plan.groups == 60
    assert plan.split["copy.jpg"] == plan.split["clip_7.jpg"]


def test_plan__fraction_out_of_range() -> None:
    with pytest.raises(
        ConfigError, match=r"valid must be at least 0 and below 1, got 1\.5; it is the share of images for validation"
    ):
        plan_splits([], 1.5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_plan__nothing_straddles(data: st.DataObject) -> None:
    """Equal bytes never do; near pictures and frames do only where a note says that a large group was cut."""
    count = data.draw(st.integers(2, 30))
    stems = st.sampled_from(["clip_{}", "a/frame{}", "IMG_{}", "x{}", "road.mp4_{}"])
    found = [image(data.draw(stems).format(place) + ".jpg", f"{data.draw(st.integers(0, 25))}") for place in range(count)]
    base = data.draw(st.integers(0, 2**64 - 1))
    bits = st.lists(st.integers(0, 63), max_size=6)
    hashes = {item.id: base ^ sum(1 << bit for bit in set(data.draw(bits))) for item in found if data.draw(st.booleans())}
    plan = plan_splits(found, 0.3, hashes=aligned(found, hashes))
    assert plan == plan_splits(found[::-1], 0.3, hashes=aligned(found[::-1], hashes))
    for one in found:
        for other in found:
            same_bytes = one.digest == other.digest
            near = one.id in hashes and other.id in hashes and (hashes[one.id] ^ hashes[other.id]).bit_count() <= NEAR_BITS
            film = one.id.split("clip_")[0] == other.id.split("clip_")[0] == "" and "clip_" in one.id and "clip_" in other.id
            if same_bytes or ((near or film) and not any("cut into" in note for note in plan.notes)):
                assert plan.split[one.id] == plan.split[other.id]
    if plan.groups > 1:
        assert set(plan.split.values()) == {"train", "valid"}


def test_group_keys__near_pictures__equal_the_brute_force() -> None:
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2**63, 40)
    values = [
        int(base) ^ sum(1 << int(bit) for bit in set(rng.integers(0, 63, rng.integers(0, 7)))) for base in bases for _ in range(8)
    ]
    found = images(f"{letter}{place}q.jpg" for place, letter in enumerate("x" * len(values)))
    keys, _ = group_keys(found, values)
    for first, value in zip(found, values, strict=True):
        for second, other in zip(found, values, strict=True):
            if (value ^ other).bit_count() <= NEAR_BITS:
                assert keys[first.id] == keys[second.id]
    assert len(set(keys.values())) >= 40


@pytest.mark.slow
def test_plan__100_000_images__in_seconds() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**63, 100_000)
    values[:20_000] = values[0] ^ np.arange(20_000)  # a fixed camera
    found = images(f"p{place}.jpg" for place in range(100_000))
    started = time.process_time()
    plan = plan_splits(found, 0.2, hashes=values.tolist())
    assert len(sides(plan, [f"p{place}.jpg" for place in range(20_000)])) == 1
    assert time.process_time() - started < 60
