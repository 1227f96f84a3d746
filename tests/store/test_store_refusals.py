"""A run folder that the disk does not give, or that is not whole, is one error that names the path and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store import store as store_file
from autodistill_grounded_sam.store.store import Folder, Store, StoreWriter, recorded_batch_size
from autodistill_grounded_sam.types import Candidates, ImageRecord, Sighting, Status

ROOT = Path("/pictures")
SEEN = Sighting(ImageRecord("001.jpg", "digest", ROOT, 8, 6), Status.SEEN, Candidates.none(1), dhash=7)


def writer(run: Path) -> StoreWriter:
    """Of a folder of one image."""
    return StoreWriter(run, {"prompts": ["cat"]}, Folder(ROOT, [SEEN.image]), batch_size=1, part_images=1, part_seconds=1000)


def test_a_run_file_without_its_parts_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"version": 1, "images": "/pictures"}')
    with pytest.raises(StoreError, match=r"run.json is damaged \(without identity, generations\); put a copy of it back"):
        Store(tmp_path)


def test_failed_jsonl_that_is_damaged_is_written_anew(tmp_path: Path) -> None:
    with writer(tmp_path) as store:
        store.add(0, 0, [SEEN])
    (tmp_path / "failed.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(StoreError, match=r"failed.jsonl is damaged .*run `label` again: it writes this file anew"):
        Store(tmp_path).failed()
    with writer(tmp_path):
        assert Store(tmp_path).failed() == []


def test_a_place_that_cannot_be_a_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(StoreError, match=r"afile/run cannot be used \(Not a directory\); a file lies where a folder has to be"):
        writer(tmp_path / "afile" / "run").__enter__()
    assert recorded_batch_size(tmp_path / "afile" / "run") is None
    with pytest.raises(StoreError, match=r"no run in .*afile"):
        Store(tmp_path / "afile")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "candidates").write_text("")
    with pytest.raises(StoreError, match=r"run/candidates cannot be used \(File exists\); a file lies where a folder has to be"):
        writer(tmp_path / "run").__enter__()
    (tmp_path / "run" / "candidates").unlink()
    with writer(tmp_path / "run") as store:  # the refusal gave the lock back
        store.add(0, 0, [SEEN])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_a_folder_in_proc_is_refused() -> None:
    with pytest.raises(StoreError, match=r"^/proc/x/run cannot be used \(No such file or directory\); .*give another --out"):
        writer(Path("/proc/x/run")).__enter__()


def test_what_is_missing_from_a_run_is_named(tmp_path: Path) -> None:
    with writer(tmp_path) as store:
        store.add(0, 0, [SEEN])
    (tmp_path / "images.parquet").rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"images.parquet cannot be used .*if it was there before, put a copy of it back"):
        next(Store(tmp_path).sightings())
    (tmp_path / "away").rename(tmp_path / "images.parquet")
    (tmp_path / "candidates").rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"candidates cannot be used .*if it was there before, put a copy of it back"):
        next(Store(tmp_path).sightings())
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.raises(StoreError, match=r"run.json cannot be used \(Is a directory\)"):
        store_file.read_json(tmp_path / "run.json")
