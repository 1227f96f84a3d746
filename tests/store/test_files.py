"""Files appear whole or not at all, and a full disk names itself."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import StoreError
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


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "file", {"name": "old"})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full"):
        write_json(tmp_path / "file", {"name": "new"})
    assert "old" in (tmp_path / "file").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
