"""A second export replaces what is ours and as it was written; hand-made things, other formats, other processes stop it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.errors import ConfigError, ExportError
from autodistill_grounded_sam.export import folder_lock, replacing
from autodistill_grounded_sam.export.folder_lock import LOCK, FolderLock
from autodistill_grounded_sam.export.formats import FORMATS, check_place
from autodistill_grounded_sam.export.replacing import MARKER

THREE = ("yolo-seg", "yolo", "coco")  # as in test_writing
every_format = pytest.mark.parametrize("name", THREE)


def a_label_file(out: Path, name: str) -> Path:
    return out / "train" / ("_annotations.coco.json" if name == "coco" else "labels/a.txt")


# --- foreign files


@every_format
def test_foreign_folder__is_refused_and_kept(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "out" / "train" / "precious.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("by hand")
    with pytest.raises(ExportError, match=r"out/train is already there and was not written by this tool: move it away, or give"):
        kit.export(two, name, tmp_path / "out")
    assert kit.tree(tmp_path / "out") == {"train/precious.txt": hashlib.sha256(b"by hand").hexdigest()}


@every_format
def test_files_added_to_ours__are_refused_and_kept(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    kit.export(two, name, tmp_path / "out", valid=["b.png"])
    (tmp_path / "out" / "valid" / "extra.png").write_bytes(b"by hand")
    with pytest.raises(ExportError, match=r"out/valid holds 1 file\(s\) more than were written there: move what was added"):
        kit.export(two, name, tmp_path / "out")
    assert (tmp_path / "out" / "valid" / "extra.png").exists()


def test_files_that_trainers_and_desktops_leave__are_no_reason_to_refuse(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "yolo", tmp_path / "out")
    for name in ("labels.cache", "images/a.npy", ".DS_Store", "images/Thumbs.db"):
        (tmp_path / "out" / "train" / name).write_bytes(b"x")
    kit.export(two, "yolo", tmp_path / "out")
    assert len(list((tmp_path / "out" / "train" / "images").iterdir())) == 2


@pytest.mark.parametrize(
    "marker", ["not json", "[]", '{"entries": 7}', '{"entries": {"../in": 9, "..": 999}}', '{"entries": {"train": "many"}}']
)
def test_marker__broken_or_hostile__makes_nothing_ours(kit: Any, two: Any, tmp_path: Path, marker: str) -> None:
    out = tmp_path / "out"
    (out / "train").mkdir(parents=True)
    (out / "train" / "mine.txt").write_text("x")
    (out / MARKER).write_text(marker)
    with pytest.raises(ExportError, match="was not written by this tool"):
        kit.export(two, "yolo", out)
    assert (tmp_path / "in" / "a.png").exists() and (out / "train" / "mine.txt").exists()


# --- labels changed by hand


def change(out: Path, name: str, how: str) -> str:
    """Change labels as a person would; returns the entry that was changed."""
    file = a_label_file(out, name)
    if how == "edit":
        file.write_text(file.read_text().replace("0", "1", 1))
    elif how == "delete":
        file.unlink()
    elif how == "rename":
        file.rename(file.with_stem("other"))
    else:
        (out / "data.yaml").write_text((out / "data.yaml").read_text().replace("cup", "mug"))
        return "data.yaml"
    return "train"


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in THREE
        for how in ("edit", "delete", "rename", "class names")
        if (name, how) != ("coco", "class names")
    ],
)
def test_labels_changed_by_hand__are_refused_and_kept(kit: Any, two: Any, tmp_path: Path, name: str, how: str) -> None:
    out = tmp_path / "out"
    kit.export(two, name, out, valid=["b.png"])
    entry = change(out, name, how)
    before = kit.tree(out)
    message = (
        rf"labels in .*out/{entry} were changed by hand since they were written: move .*out/{entry} away to keep them, or give"
    )
    with pytest.raises(ExportError, match=message):
        kit.export(two, name, out, valid=["b.png"])
    with pytest.raises(ExportError, match=message):
        check_place(name, out, has_masks=True)
    assert kit.tree(out) == before


def test_confidence_files__are_ours_and_stable(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "yolo", tmp_path / "out", confidence_files=True)
    kit.export(two, "yolo", tmp_path / "out", confidence_files=True)
    (tmp_path / "out/train/labels/confidence-a.txt").write_text("1.0\n1.0\n")
    with pytest.raises(ExportError, match="were changed by hand"):
        kit.export(two, "yolo", tmp_path / "out")


def test_labels_moved_away__make_room(kit: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kit.export(two, "yolo", out)
    change(out, "yolo", "edit")
    (out / "train").rename(tmp_path / "mine")
    kit.export(two, "yolo", out)
    assert (out / "train/labels/a.txt").exists() and (tmp_path / "mine/labels/a.txt").exists()


def test_labels_changed_while_the_new_dataset_is_made__are_refused_and_kept(kit: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kit.export(two, "yolo", out)
    with (
        pytest.raises(ExportError, match="were changed by hand"),
        FORMATS["yolo"](out, kit.names, {"a.png": "a", "b.png": "b"}) as writer,
    ):
        writer.write(*two[0], "train")
        change(out, "yolo", "edit")
        before = {path: digest for path, digest in kit.tree(out).items() if not path.startswith(".")}
    assert {path: digest for path, digest in kit.tree(out).items() if path != MARKER} == before


@every_format
def test_marker_of_an_older_version__counts_only(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    kit.export(two, name, out)
    marker = json.loads((out / MARKER).read_text())
    del marker["labels"]
    (out / MARKER).write_text(json.dumps(marker))
    change(out, name, "edit")
    kit.export(two, name, out)
    fresh = tmp_path / "fresh"
    kit.export(two, name, fresh)
    assert kit.tree(out) == kit.tree(fresh)


def test_images_and_student__are_not_read(kit: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kit.export(two, "yolo", out)
    (out / "train/images/a.png").write_bytes(b"another picture")
    (out / "runs/detect").mkdir(parents=True)
    (out / "runs/detect/args.yaml").write_text("epochs: 3")
    kit.export(two, "yolo", out)
    assert (out / "runs/detect/args.yaml").read_text() == "epochs: 3"


def test_digest__does_not_depend_on_the_order_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", "b/a.txt", "b.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    held, scandir = replacing._held(tmp_path / "in"), os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: contextlib.nullcontext(reversed(list(scandir(folder)))))
    assert replacing._held(tmp_path / "in") == held and held.files == 3


# --- another format


@pytest.mark.parametrize(("first", "second"), [("yolo-seg", "coco"), ("coco", "yolo"), ("yolo", "yolo-seg")])
def test_another_format__is_refused(kit: Any, two: Any, tmp_path: Path, first: str, second: str) -> None:
    out = tmp_path / "out"
    kit.export(two, first, out)
    before = kit.tree(out)
    message = (
        rf"out holds a dataset of format {first}, .*give another --out, or export .* `export --format {second} --out \.\.\.`"
    )
    with pytest.raises(ExportError, match=message):
        kit.export(two, second, out)
    with pytest.raises(ExportError, match=message):
        check_place(second, out, has_masks=True)
    assert kit.tree(out) == before


def test_another_format__whose_dataset_was_moved_away(kit: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kit.export(two, "yolo", out)
    for entry in FORMATS["yolo"].entries:
        (out / entry).rename(tmp_path / entry)
    kit.export(two, "coco", out)
    assert json.loads((out / MARKER).read_text())["format"] == "coco"


# --- another process


HOLD = """
import sys
from pathlib import Path
from autodistill_grounded_sam.export.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
if sys.argv[2] == "release":
    lock.release()
"""


@pytest.mark.parametrize("end", ["release", "die"])
def test_another_process__is_named_and_then_makes_room(kit: Any, two: Any, tmp_path: Path, end: str) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", HOLD, str(out), end]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(
            ExportError, match=r"another process is writing a dataset into .*out: wait until it has ended, or give"
        ):
            kit.export(two, "yolo", out)
        assert (out / LOCK).exists()
        other.stdin.close()
        assert other.wait(30) == 0
    kit.export(two, "yolo", out)
    fresh = tmp_path / "fresh"
    kit.export(two, "yolo", fresh)
    assert kit.tree(out) == kit.tree(fresh)


def test_second_writer__does_not_disturb_the_first(kit: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FORMATS["yolo"](out, kit.names, {"a.png": "a", "b.png": "b"}) as writer:
        writer.write(*two[0], "train")
        for name in THREE:
            with pytest.raises(ExportError, match="another process is writing a dataset into"):
                kit.export(two, name, out)
        writer.write(*two[1], "valid")
    assert {path.name for path in out.iterdir()} == {MARKER, *FORMATS["yolo"].entries}


def test_lock__whose_file_the_holder_takes_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the holder ends: the file is no longer the one that others find, so it is opened again."""
    first, second, third = (FolderLock(tmp_path / "out") for _ in range(3))
    first.take()
    hold, tries = folder_lock._hold, 0

    def late(handle: int, out: Path) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            first.release()
            out.rmdir()
        hold(handle, out)

    monkeypatch.setattr(folder_lock, "_hold", late)
    second.take()
    assert tries == 2
    with pytest.raises(ExportError, match="another process"):
        third.take()
    second.release()
    assert list((tmp_path / "out").iterdir()) == []


def test_lock__on_a_disk_without_locks__goes_on_and_says_so(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none_here(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    kit.export(two, "yolo", tmp_path / "out")
    assert "knows no locks: make sure that no other process writes there" in caplog.text
    assert not (tmp_path / "out" / LOCK).exists()


# --- known before the labelling


@every_format
def test_check_place__good_places_pass_and_nothing_is_made(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    check_place(name, tmp_path / "new/deeper", has_masks=True)
    check_place(FORMATS[name], tmp_path, has_masks=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    kit.export(two, name, tmp_path / "out")
    before = kit.tree(tmp_path / "out")
    check_place(name, tmp_path / "out", has_masks=True)
    assert kit.tree(tmp_path / "out") == before


@every_format
def test_check_place__foreign_entries_and_files_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / "out/train").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="out/train is already there and was not written by this tool"):
        check_place(name, tmp_path / "out", has_masks=True)
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ExportError, match="file is a file; a dataset needs a folder: give another --out"):
            check_place(name, place, has_masks=True)


def test_check_place__no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere, so the real thing cannot be set up
    with pytest.raises(ExportError, match=rf"cannot write the dataset .*out/a: no permission to write into {tmp_path}; give"):
        check_place("coco", tmp_path / "out/a", has_masks=True)


def test_check_place__masks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format yolo-seg needs masks, but this run is made without: use --format yolo$"):
        check_place("yolo-seg", tmp_path, has_masks=False)
    check_place("yolo", tmp_path, has_masks=False)
    check_place("coco", tmp_path, has_masks=False)


def test_check_place__unknown_format_and_plugins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'kitti'; known are yolo-seg, yolo, yolo-obb, coco"):
        check_place("kitti", tmp_path, has_masks=True)
    (tmp_path / "train").mkdir()
    check_place(lambda *_, **__: pytest.fail("built"), tmp_path, has_masks=False)


# --- moves that fail


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("failing_move", range(7))
def test_move_that_fails__is_undone(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, failing_move: int
) -> None:
    out = tmp_path / "out"
    if there:
        kit.export(two, "yolo", out)
    before, rename, moves = kit.tree(out), Path.rename, 0

    def stubborn(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == failing_move + 1:
            raise PermissionError(errno.EACCES, "in use by another program", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    if failing_move >= (6 if there else 3):  # no such move: it goes well
        kit.export(two[:1], "yolo", out)
        return
    with pytest.raises(ExportError, match=r"cannot write the dataset .*in use by another program"):
        kit.export(two[:1], "yolo", out)
    assert kit.tree(out) == before


def test_killed_half_way__is_ours_next_time(kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves no chance to undo: old entries, larger than the new ones, beside a part-made folder."""
    out = tmp_path / "out"
    kit.export(two, "yolo", out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            kit.export(two[:1], "yolo", out)
    assert (out / ".partial-yolo").is_dir()
    kit.export(two[:1], "yolo", out)
    fresh = tmp_path / "fresh"
    kit.export(two[:1], "yolo", fresh)
    assert kit.tree(out) == kit.tree(fresh)
