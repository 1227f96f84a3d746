"""Files that get their name only when they are whole, and disks that say what they refuse."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import GroundedSamError, StoreError

PARTIAL_SUFFIX = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CURES = {
    errno.ENOENT: "if it was there before, put a copy of it back; else give another --out",
    errno.ENOTDIR: "a file lies where a folder has to be: take it away, or give another --out",
    errno.EEXIST: "a file lies where a folder has to be: take it away, or give another --out",
    errno.EISDIR: "a folder lies where a file has to be: take it away, or give another --out",
    errno.EACCES: "give this user the right to read and write there, or give another --out",
    errno.EPERM: "give this user the right to read and write there, or give another --out",
    errno.EROFS: "nothing can be written to that disk: give another --out",
}
_OTHER_CURE = "see to that disk and run the same command again, or give another --out"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Whatever the disk refuses becomes one StoreError that names `path` and says how to go on; a full disk is named as well."""
    try:
        yield
    except GroundedSamError:  # some are OSErrors too, and say already what to do
        raise
    except OSError as error:
        if error.errno in _FULL:
            disk = _mount_of(path)
            raise StoreError(
                f"the disk that holds {path} is full ({disk}: {shutil.disk_usage(disk).free:,} bytes free). "
                "No file was left half-written: free some space and run the same command again, it goes on from there."
            ) from error
        reason, cure = error.strerror or str(error) or type(error).__name__, _CURES.get(error.errno or 0, _OTHER_CURE)
        raise StoreError(f"{path} cannot be used ({reason}); {cure}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to the disk, and rename it: at any moment the old or the new one is there.

    Raises StoreError where the disk refuses.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with disk_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):  # the first error is the one to tell
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
