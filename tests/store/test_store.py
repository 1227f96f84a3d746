"""The run folder: resumed from the names of its parts, read back in order, refused to others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store import store as store_file
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.store import FailedLine, Folder, Store, StoreWriter, find_run, list_parts, recorded_batch_size
from autodistill_grounded_sam.types import Candidates, ImageRecord, Sighting, Status

IDENTITY: dict[str, Any] = {"prompts": ["cat", "dog"], "detector": {"name": "fake", "sha256": None}, "see": {"floor": 0.1}}
ROOT = Path("/pictures")


def image(name: str, digest: str = "") -> ImageRecord:
    return ImageRecord(name, digest or f"digest of {name}", ROOT, 8, 6)


def names(*numbers: int) -> list[ImageRecord]:
    return [image(f"{number:03d}.jpg") for number in numbers]


def seen(record: ImageRecord, score: float = 0.5) -> Sighting:
    boxes = np.array([[0, 0, 4, 4]], np.float32)
    return Sighting(record, Status.SEEN, Candidates(boxes, np.full((1, 2), score, np.float32)), dhash=7)


def failed(record: ImageRecord, reason: str = "truncated") -> Sighting:
    return Sighting(record, Status.FAILED, None, reason, "ends early")


def writer(run: Path, images: Sequence[ImageRecord], **changes: Any) -> StoreWriter:
    settings = {"batch_size": 2, "part_images": 4, "part_seconds": 1000.0, **changes}
    identity, lost = settings.pop("identity", IDENTITY), settings.pop("failed", ())
    return StoreWriter(run, identity, Folder(ROOT, images, lost), **settings)


def batches(store: StoreWriter) -> Iterator[tuple[int, int, list[ImageRecord]]]:
    for window, start in enumerate(range(0, len(store.todo), store.part_images)):
        members = store.todo[start : start + store.part_images]
        for number, at in enumerate(range(0, len(members), store.batch_size)):
            if (window, number) not in store.done:
                yield window, number, list(members[at : at + store.batch_size])


def fill(store: StoreWriter, limit: int = 10**6) -> list[str]:
    looked: list[str] = []
    for window, number, members in batches(store):
        if limit == 0:
            break
        store.add(window, number, [seen(member) for member in members])
        looked += [member.id for member in members]
        limit -= 1
    return looked


def part_names(run: Path) -> list[str]:
    return [str(part) for part in list_parts(run)]


def test_a_whole_run_is_read_back_in_order(tmp_path: Path) -> None:
    with writer(tmp_path, list(reversed(names(*range(7))))) as store:
        assert not store.finished
        fill(store)
    assert part_names(tmp_path) == ["g000-w000000-b0000-b0001.parquet", "g000-w000001-b0000-b0001.parquet"]
    assert [sighting.image.id for sighting in Store(tmp_path).sightings()] == [f"{n:03d}.jpg" for n in range(7)]
    with writer(tmp_path, names(*range(7))) as store:
        assert store.finished
        assert list(batches(store)) == []


def test_what_is_on_disk_is_not_looked_at_again(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(9))) as store:
        first = fill(store, limit=3)  # a part of two batches, and one batch that the end of the block writes
    with writer(tmp_path, names(*range(9))) as store:
        assert store.done == {(0, 0), (0, 1), (1, 0)}
        second = fill(store)
    assert sorted(first + second) == [f"{n:03d}.jpg" for n in range(9)]


def test_a_part_is_closed_when_it_is_old_enough(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(8)), part_images=100, part_seconds=1e-9) as store:
        fill(store)
        assert len(part_names(tmp_path)) == 4


def test_batches_may_come_in_any_order(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(12)), part_images=100, batch_size=2) as store:
        planned = list(batches(store))
        for index in (5, 0, 1, 3):
            window, number, members = planned[index]
            store.add(window, number, [seen(member) for member in members])
    assert part_names(tmp_path) == [
        "g000-w000000-b0000-b0001.parquet",
        "g000-w000000-b0003-b0003.parquet",
        "g000-w000000-b0005-b0005.parquet",
    ]
    with writer(tmp_path, names(*range(12)), part_images=100) as store:
        assert [number for _, number, _ in batches(store)] == [2, 4]
        fill(store)
    assert [sighting.image.id for sighting in Store(tmp_path).sightings()] == [f"{n:03d}.jpg" for n in range(12)]


def test_workers_that_fill_many_windows_at_a_time_leave_one_part_a_window(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(40)), part_images=10) as store:
        planned = list(batches(store))
        for window, number, members in sorted(planned, key=lambda batch: (batch[1], batch[0])):  # first batch of each window, ...
            store.add(window, number, [seen(member) for member in members])
            held = {part.window for part in list_parts(tmp_path)}
            assert held == (set(range(window + 1)) if number == 4 else set()), "a whole window is written at once, no other is"
    assert part_names(tmp_path) == [f"g000-w{window:06d}-b0000-b0004.parquet" for window in range(4)]


def test_the_rest_of_a_window_is_whole_when_the_rest_is_there(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(10)), part_images=10) as store:
        fill(store, limit=2)
    with writer(tmp_path, names(*range(10)), part_images=10) as store:
        assert len(fill(store)) == 6
        assert part_names(tmp_path)[1:] == ["g000-w000000-b0002-b0004.parquet"]


def test_only_the_window_that_waited_too_long_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    with writer(tmp_path, names(*range(30)), part_images=10, part_seconds=100.0) as store:
        planned = list(batches(store))
        monkeypatch.setattr(store_file.time, "monotonic", lambda: clock[0])
        for index, clock[0] in ((0, 0.0), (6, 50.0), (10, 101.0)):  # a batch of each window
            window, number, members = planned[index]
            store.add(window, number, [seen(member) for member in members])
        assert part_names(tmp_path) == ["g000-w000000-b0000-b0000.parquet"]


def test_leftovers_are_removed_when_the_run_is_opened(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(6))) as store:
        fill(store)
    parts = tmp_path / "candidates"
    (parts / "g000-w000000-b0002-b0003.parquet.tmp").write_bytes(b"half")
    (tmp_path / "run.json.tmp").write_bytes(b"{")
    whole = parts / "g000-w000000-b0000-b0001.parquet"
    (parts / "g000-w000000-b0001-b0001.parquet").write_bytes(whole.read_bytes())
    with writer(tmp_path, names(*range(6))) as store:
        assert store.finished
    assert sorted(path.name for path in parts.iterdir()) == part_names(tmp_path)
    assert len(part_names(tmp_path)) == 2
    assert not (tmp_path / "run.json.tmp").exists()


def test_added_changed_and_removed_images(tmp_path: Path) -> None:
    with writer(tmp_path, names(1, 3, 5)) as store:
        fill(store)
    changed = replace(image("003.jpg"), digest="another digest")
    now = [*names(1), changed, *names(0, 7)]
    with writer(tmp_path, now) as store:
        assert [record.id for record in store.todo] == ["000.jpg", "003.jpg", "007.jpg"]
        fill(store, limit=1)
    with writer(tmp_path, now) as store:  # the second plan resumes like the first
        assert store.done == {(0, 0)}
        assert fill(store) == ["007.jpg"]
    read = [(sighting.image.id, sighting.image.digest) for sighting in Store(tmp_path).sightings()]
    assert read == [
        ("000.jpg", "digest of 000.jpg"),
        ("001.jpg", "digest of 001.jpg"),
        ("003.jpg", "another digest"),
        ("007.jpg", "digest of 007.jpg"),
    ]
    assert [(record.id, dhash) for record, dhash in Store(tmp_path).seen()] == [(f"00{n}.jpg", 7) for n in (0, 1, 3, 7)]
    with writer(tmp_path, names(1, 3, 5)) as store:  # the old files are back: nothing to look at
        assert store.finished
        assert store.todo == ()
    assert [sighting.image.id for sighting in Store(tmp_path).sightings()] == ["001.jpg", "003.jpg", "005.jpg"]


def test_another_batch_size_begins_a_new_plan_for_the_rest(tmp_path: Path) -> None:
    assert recorded_batch_size(tmp_path) is None
    with writer(tmp_path, names(*range(8))) as store:
        fill(store, limit=2)
    with writer(tmp_path, names(*range(8)), batch_size=1) as store:
        assert fill(store) == ["004.jpg", "005.jpg", "006.jpg", "007.jpg"]
    assert recorded_batch_size(tmp_path) == 1
    assert len(list(Store(tmp_path).sightings())) == 8


def test_failed_images_are_listed_and_not_tried_again_while_their_bytes_are_the_same(tmp_path: Path) -> None:
    lost = [FailedLine("z.jpg", "not_an_image", "holds text")]
    with writer(tmp_path, names(1, 2), failed=lost) as store:
        store.add(0, 0, [seen(image("001.jpg")), failed(image("002.jpg"))])
    lines = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert lines == [
        {"id": "002.jpg", "reason": "truncated", "detail": "ends early"},
        {"id": "z.jpg", "reason": "not_an_image", "detail": "holds text"},
    ]
    with writer(tmp_path, names(1, 2)) as store:
        assert store.finished
    with writer(tmp_path, names(1, 2, 3)) as store:
        assert fill(store) == ["003.jpg"]
    assert [line.id for line in Store(tmp_path).failed()] == ["002.jpg"]
    with writer(tmp_path, [*names(1, 3), image("002.jpg", "mended")]) as store:
        assert fill(store) == ["002.jpg"]
    assert Store(tmp_path).failed() == []
    assert [(s.image.id, s.status) for s in Store(tmp_path).sightings()] == [(f"00{n}.jpg", Status.SEEN) for n in (1, 2, 3)]


@pytest.mark.parametrize("reason", ["missing", "broken_link", "permission_denied", "io_error", "changed", "out_of_memory"])
def test_what_failed_for_a_passing_reason_is_looked_at_again_by_every_later_run(tmp_path: Path, reason: str) -> None:
    with writer(tmp_path, names(*range(5))) as store:
        store.add(0, 0, [seen(image("000.jpg")), failed(image("001.jpg"), reason)])
        store.add(0, 1, [failed(image("002.jpg")), failed(image("003.jpg"), reason)])
        store.add(1, 0, [seen(image("004.jpg"))])
    for _ in range(2):
        with writer(tmp_path, names(*range(5)), batch_size=1) as store:
            assert not store.finished
            assert [record.id for record in store.todo] == ["001.jpg", "003.jpg"]
            store.add(0, 0, [failed(image("001.jpg"), reason)])
            store.add(0, 1, [failed(image("003.jpg"), reason)])
    assert [(line.id, line.reason) for line in Store(tmp_path).failed()] == [
        ("001.jpg", reason), ("002.jpg", "truncated"), ("003.jpg", reason),
    ]  # fmt: skip
    with writer(tmp_path, names(*range(5)), batch_size=1) as store:
        assert fill(store, limit=1) == ["001.jpg"]  # interrupted
    with writer(tmp_path, names(*range(5)), batch_size=1) as store:
        assert store.done == {(0, 0)}
        assert fill(store) == ["003.jpg"]
    before = (tmp_path / "run.json").read_bytes()
    with writer(tmp_path, names(*range(5)), batch_size=1) as store:
        assert store.finished
    assert (tmp_path / "run.json").read_bytes() == before
    assert [line.id for line in Store(tmp_path).failed()] == ["002.jpg"]
    assert [s.status for s in Store(tmp_path).sightings()] == [Status.SEEN] * 2 + [Status.FAILED] + [Status.SEEN] * 2


def test_a_passing_failure_waits_until_its_generation_is_complete(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(4))) as store:
        store.add(0, 0, [seen(image("000.jpg")), failed(image("001.jpg"), "io_error")])
    with writer(tmp_path, names(*range(4))) as store:
        assert fill(store) == ["002.jpg", "003.jpg"]
    with writer(tmp_path, names(*range(4))) as store:
        assert fill(store) == ["001.jpg"]


def test_a_deleted_part_of_an_earlier_generation_is_looked_at_again(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(8))) as store:
        fill(store)
    with writer(tmp_path, names(*range(10))) as store:
        fill(store)
    (tmp_path / "candidates" / part_names(tmp_path)[0]).unlink()
    with writer(tmp_path, names(*range(10))) as store:
        assert fill(store) == [f"00{n}.jpg" for n in range(4)]
    with writer(tmp_path, names(*range(10))) as store:
        assert store.finished
    assert [s.image.id for s in Store(tmp_path).sightings()] == [f"00{n}.jpg" for n in range(10)]


def test_images_that_were_never_looked_at_are_counted(tmp_path: Path) -> None:
    with writer(tmp_path, names(*range(8))) as store:
        fill(store, limit=1)
        store.add(0, 1, [failed(image("002.jpg")), failed(image("003.jpg"), "io_error")])
    assert Store(tmp_path).not_looked_at() == 4
    with writer(tmp_path, names(*range(8))) as store:
        fill(store)
    assert Store(tmp_path).not_looked_at() == 0
    with writer(tmp_path, [*names(*range(1, 9)), image("000.jpg", "another digest")]):
        pass
    assert Store(tmp_path).not_looked_at() == 2


def test_another_identity_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with writer(tmp_path, names(1)) as store:
        fill(store)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(StoreError, match=r"(?s)prompts: without 'dog'; new 'bird'.*another --out"):
        writer(tmp_path, names(1), identity={**IDENTITY, "prompts": ["cat", "bird"]}).__enter__()
    assert (tmp_path / "run.json").read_bytes() == before
    with writer(tmp_path, names(1)) as store:  # the refusal gave the lock back
        assert store.finished


def test_a_run_that_saw_nothing_takes_another_identity(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writer(tmp_path, names(1), batch_size=8) as store:
        store.note({"prompt_groups": [["kat"]]})
        raise KeyboardInterrupt
    assert recorded_batch_size(tmp_path) is None
    other = {**IDENTITY, "prompts": ["cat", "bird"]}
    with writer(tmp_path, names(1), identity=other) as store:
        assert "prompt_groups" not in store.info
        assert fill(store) == ["001.jpg"]
    info = json.loads((tmp_path / "run.json").read_text())
    assert info["identity"] == other
    assert [plan["batch_size"] for plan in info["generations"]] == [2]
    assert part_names(tmp_path) == ["g000-w000000-b0000-b0000.parquet"]
    with pytest.raises(StoreError, match=r"without 'bird'; new 'dog'"):  # now that it saw something it is bound
        writer(tmp_path, names(1)).__enter__()


def test_a_run_of_another_version_is_refused_even_without_parts(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"version": 99}')
    with pytest.raises(StoreError, match="is of version 99"):
        writer(tmp_path, names(1)).__enter__()
    assert (tmp_path / "run.json").read_text() == '{"version": 99}'


def test_whoever_holds_the_lock_of_the_run_may_write_to_it(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with writer(tmp_path, names(1)) as store:
            fill(store)
        assert (tmp_path / "lock").read_text()  # still held
    assert not (tmp_path / "lock").read_text()


def test_an_error_in_the_block_keeps_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writer(tmp_path, names(*range(8)), part_images=100) as store:
        fill(store, limit=3)
        raise KeyboardInterrupt
    assert part_names(tmp_path) == ["g000-w000000-b0000-b0002.parquet"]


def test_a_full_disk_leaves_a_run_that_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store_file.write_part

    def full(path: Path, *rest: Any) -> None:
        if "w000001" in path.name:
            raise StoreError("the disk that holds the part is full")
        real(path, *rest)

    monkeypatch.setattr(store_file, "write_part", full)
    with pytest.raises(StoreError, match="is full"), writer(tmp_path, names(*range(8))) as store:
        fill(store)
    monkeypatch.undo()
    with writer(tmp_path, names(*range(8))) as store:
        assert fill(store) == [f"{n:03d}.jpg" for n in range(4, 8)]


def test_a_folder_without_a_run_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run in .*: expected .*run/run.json \(or run.json\); `label` makes one"):
        Store(tmp_path)
    with writer(tmp_path / "run", names(1)) as store:
        fill(store)
    assert find_run(tmp_path) == find_run(tmp_path / "run") == tmp_path / "run"


def test_damaged_and_foreign_run_files(tmp_path: Path) -> None:
    with writer(tmp_path, names(1)) as store:
        fill(store)
    path = tmp_path / "run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "version": 99}))
    with pytest.raises(StoreError, match="is of version 99, but this program knows version 1; use the program that wrote it"):
        Store(tmp_path)
    path.write_text("{")
    with pytest.raises(StoreError, match=r"run.json is damaged .*put a copy of it back, or give another --out"):
        Store(tmp_path)
    path.unlink()
    with pytest.raises(StoreError, match=r"holds candidates but no run.json that says what they are of; give another --out"):
        writer(tmp_path, names(1)).__enter__()


def test_a_moved_images_folder(tmp_path: Path) -> None:
    with writer(tmp_path, names(1)) as store:
        fill(store)
    assert next(Store(tmp_path).sightings()).image.path == ROOT / "001.jpg"
    assert next(Store(tmp_path).sightings(Path("/new"))).image.path == Path("/new/001.jpg")


def test_one_window_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path, names(*range(40))) as store:
        fill(store)
    opened: list[str] = []
    real = store_file.read_part

    def counting(path: Path, *rest: Any) -> Iterator[Sighting]:
        opened.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(store_file, "read_part", counting)
    stream = Store(tmp_path).sightings()
    next(stream)
    assert len(opened) == 1
    for _ in range(4):
        next(stream)
    assert len(opened) == 2
