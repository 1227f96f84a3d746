"""Files that get their name only when they are whole, and a full disk that says so."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import StoreError

PARTIAL_SUFFIX = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into a StoreError that names the disk of `path` and says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        disk = _mount_of(path)
        raise StoreError(
            f"the disk that holds {path} is full ({disk}: {shutil.disk_usage(disk).free:,} bytes free). "
            "Everything up to the last whole part is safe: free some space and run the same command again, it goes on from there."
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to the disk, and rename it: at any moment the old or the new one is there."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with disk_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    _flush_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; not every system can open a folder, and then it does not need it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _mount_of(path: Path) -> Path:
    folder = path.absolute().parent
    while not folder.is_dir() or not (folder.is_mount() or folder == folder.parent):
        folder = folder.parent
    return folder
