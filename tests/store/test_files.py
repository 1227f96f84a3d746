"""Files appear whole or not at all, and a full disk names itself."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import NoImagesError, StoreError
from autodistill_grounded_sam.store.files import disk_errors, write_json, write_whole


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 256 KB, where the system lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_and_leaves_the_old_file(tiny_disk: Path) -> None:
    write_whole(tiny_disk / "file", b"old")
    with pytest.raises(
        StoreError, match=rf"is full \({tiny_disk}: [\d,]+ bytes free\).*free some space and run the same command"
    ):
        write_whole(tiny_disk / "file", b"x" * 1_000_000)
    assert (tiny_disk / "file").read_bytes() == b"old"
    assert [path.name for path in tiny_disk.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_from_its_error_number(tmp_path: Path, code: int) -> None:
    with pytest.raises(StoreError, match=r"the disk that holds .*part is full"), disk_errors(tmp_path / "part"):
        raise OSError(code, os.strerror(code))


def test_a_full_disk_speaks_of_no_parts(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"No file was left half-written: free some space and run the same command") as caught,
        disk_errors(tmp_path / "decide.json"),
    ):
        raise OSError(errno.ENOSPC, "no space left on device")
    assert " part" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EACCES, r"\(Permission denied\); give this user the right to read and write there, or give another --out"),
        (errno.EROFS, r"\(Read-only file system\); nothing can be written to that disk: give another --out"),
        (errno.ENOTDIR, r"\(Not a directory\); a file lies where a folder has to be"),
        (errno.EISDIR, r"\(Is a directory\); a folder lies where a file has to be"),
        (errno.ENOENT, r"\(No such file or directory\); if it was there before, put a copy of it back; else give another --out"),
        (errno.EIO, r"\(Input/output error\); see to that disk and run the same command again, or give another --out"),
    ],
)
def test_whatever_the_disk_refuses_names_the_path_and_a_cure(tmp_path: Path, code: int, said: str) -> None:
    with pytest.raises(StoreError, match=rf"^{tmp_path}/file cannot be used {said}"), disk_errors(tmp_path / "file"):
        raise OSError(code, os.strerror(code))


def test_our_own_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"^nothing$"), disk_errors(tmp_path):  # it is a FileNotFoundError as well
        raise NoImagesError("nothing")


def test_a_write_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(StoreError, match=r"afile/run.json cannot be used \(Not a directory\)"):
        write_json(tmp_path / "afile" / "run.json", {})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "file", {"name": "old"})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full"):
        write_json(tmp_path / "file", {"name": "new"})
    assert "old" in (tmp_path / "file").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
