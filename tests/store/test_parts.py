"""Parts: what is read back is what was written, and a damaged or oversized file says so."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.errors import RecordError, StoreError
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.store.parts import SCORE_FLOOR, PartName, count_rows, read_columns, read_part, write_part
from autodistill_grounded_sam.types import Candidates, ImageRecord, Sighting, Status

ROOT = Path("/pictures")


def random_sighting(number: int, seed: int, *, prompts: int, count: int, masks: str = "all") -> Sighting:
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    image_id = f"folder/image {number:03d}.jpg"
    image = ImageRecord(image_id, f"{seed:064x}", ROOT, width, height)
    low = rng.uniform(-5, 5, (count, 2))
    xyxy = np.concatenate([low, low + rng.uniform(0, 30, (count, 2))], axis=1).astype(np.float32)
    scores = rng.beta(0.3, 2, (count, prompts)).astype(np.float32)
    rle = tuple(encode_mask(rng.random((height, width)) < rng.random()) for _ in range(count)) if masks == "all" else None
    mask_score = rng.random(count).astype(np.float32) if masks == "all" else None
    agreement = rng.random(count).astype(np.float32) if seed % 2 else None
    return Sighting(
        image, Status.SEEN, Candidates(xyxy, scores, rle, mask_score, agreement), dhash=int(rng.integers(2**63)) * 2 + 1
    )


def assert_same(read: Sighting, written: Sighting) -> None:
    assert (read.image, read.status, read.reason, read.detail, read.dhash) == (
        written.image,
        written.status,
        written.reason,
        written.detail,
        written.dhash,
    )
    if written.candidates is None:
        assert read.candidates is None
        return
    assert read.candidates is not None
    expected = np.where(written.candidates.scores >= SCORE_FLOOR, written.candidates.scores, np.float32(0))
    np.testing.assert_array_equal(read.candidates.scores, expected)
    np.testing.assert_array_equal(read.candidates.xyxy, written.candidates.xyxy)
    assert read.candidates.rle == written.candidates.rle
    for name in ("mask_score", "agreement"):
        expected, found = getattr(written.candidates, name), getattr(read.candidates, name)
        assert (expected is None) == (found is None)
        if expected is not None:
            np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 6), st.sampled_from(["all", "none", "failed"])), max_size=6),
    prompts=st.integers(1, 5),
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, str]], prompts: int
) -> None:
    sightings = []
    for number, (seed, count, kind) in enumerate(rows):
        seen = random_sighting(number, seed, prompts=prompts, count=count, masks=kind)
        failed = Sighting(seen.image, Status.FAILED, None, "truncated", "ends after 3 of 40 rows, \u00fcber\nall")
        sightings.append(failed if kind == "failed" else seen)
    path = tmp_path_factory.mktemp("parts") / "part.parquet"
    write_part(path, sightings)
    read = list(read_part(path, prompts, ROOT))
    assert len(read) == len(sightings) == count_rows(path)
    for got, expected in zip(read, sightings, strict=True):
        assert_same(got, expected)


@settings(max_examples=100, deadline=None)
@given(numbers=st.tuples(*[st.integers(0, 10**7)] * 4))
def test_a_part_is_known_from_its_name(numbers: tuple[int, int, int, int]) -> None:
    name = PartName(*numbers)
    assert PartName.parse(str(name)) == name


def test_other_files_are_no_parts() -> None:
    assert str(PartName(0, 12, 3, 9)) == "g000-w000012-b0003-b0009.parquet"
    assert PartName.parse("g000-w000012-b0003-b0009.parquet.tmp") is None
    assert PartName.parse("notes.parquet") is None


def test_a_moved_images_folder_gives_new_paths(tmp_path: Path) -> None:
    write_part(tmp_path / "part", [random_sighting(0, 1, prompts=1, count=1)])
    assert next(read_part(tmp_path / "part", 1, Path("/elsewhere"))).image.path == Path("/elsewhere/folder/image 000.jpg")


def test_a_file_name_that_cannot_be_printed_is_found_again(tmp_path: Path) -> None:
    image = ImageRecord("new\ufffd000aline \ufffddcff.jpg", "d", ROOT, 3, 2, os.fsdecode(b"new\nline \xff.jpg"))
    write_part(tmp_path / "part", [Sighting(image, Status.SEEN, Candidates.none(2))])
    assert next(read_part(tmp_path / "part", 2, ROOT)).image == image


def test_1200_prompts_cost_little_more_than_12(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for prompts in (12, 1200):
        scores = np.zeros((100, prompts), np.float32)
        scores[:, :12] = rng.uniform(0.02, 1, (100, 12))
        scores[:, 12:] = rng.uniform(0, 0.009, (100, prompts - 12))
        boxes = np.tile(np.array([0, 0, 5, 5], np.float32), (100, 1))
        image = ImageRecord("a.jpg", "d", ROOT, 10, 10)
        path = tmp_path / f"{prompts}.parquet"
        write_part(path, [Sighting(image, Status.SEEN, Candidates(boxes, scores))])
        sizes.append(path.stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    seen = Candidates(
        np.array([[0, 0, 2, 2]], np.float32), np.ones((1, 1), np.float32), (encode_mask(np.ones((4, 5))),), np.ones(1, np.float32)
    )
    image = ImageRecord("a.jpg", "d", ROOT, 4, 5)
    with pytest.raises(RecordError, match=r"the masks of 'a.jpg' must be of size \[5, 4\] \(height, width\), got \[4, 5\]"):
        write_part(tmp_path / "part", [Sighting(image, Status.SEEN, seen)])


def test_a_part_that_the_disk_does_not_give_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "g000-w000000-b0000-b0000.parquet"
    for read in (count_rows, lambda path: list(read_columns(path, ("image_id",))), lambda path: list(read_part(path, 1, ROOT))):
        with pytest.raises(StoreError, match=r"b0000.parquet cannot be used \(.*; if it was there before, put a copy of it back"):
            read(path)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g000-w000000-b0000-b0000.parquet"
    write_part(path, [random_sighting(0, 1, prompts=1, count=1)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        StoreError, match=r"g000-w000000-b0000-b0000.parquet is damaged .*delete this one file and run `label` again"
    ):
        list(read_part(path, 1, ROOT))
    with pytest.raises(StoreError, match="is damaged"):
        count_rows(path)
    with pytest.raises(StoreError, match="is damaged"):
        list(read_columns(path, ("image_id",)))
