"""One process a dataset folder: a lock of the operating system, which a killed process cannot leave behind."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from pathlib import Path

from autodistill_grounded_sam.errors import ExportError

logger = logging.getLogger(__name__)

LOCK = ".autodistill-grounded-sam.lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
# Each try that fails means that another process gave the folder up at that very moment.
_TRIES = 100


class FolderLock:
    """Holds the folder `out` for this process between `take` and `release`; the file of the lock is gone afterwards.

    On a disk that knows no locks (some network disks) the export goes on without one, and the log says so.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._path = out / LOCK
        self._handle = -1

    def take(self) -> None:
        """Make the folder if need be, and hold it. Raises ExportError where another process holds it, OSError for the disk."""
        for _ in range(_TRIES):
            self._out.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # its holder took the folder away again
            try:
                _hold(handle, self._out)
                if self._is_still(handle):
                    self._handle = handle
                    return
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        raise _in_use(self._out)

    def release(self) -> None:
        """Give the folder up. The file goes first, while it is held, so nobody else can hold it by then: see `_is_still`."""
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):  # Windows keeps open files
            self._path.unlink()
        os.close(self._handle)
        self._handle = -1
        if sys.platform == "win32":
            with contextlib.suppress(OSError):  # another process has opened it meanwhile: it is theirs now
                self._path.unlink()

    def _is_still(self, handle: int) -> bool:
        """Whether the file held is the one that others will find, and not one that its last holder has taken away."""
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False


def _hold(handle: int, out: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            logger.warning("the disk of %s knows no locks: make sure that no other process writes there", out)
        elif error.errno in _TAKEN:
            raise _in_use(out) from error
        else:
            raise


def _in_use(out: Path) -> ExportError:
    return ExportError(f"another process is writing a dataset into {out}: wait until it has ended, or give another --out")
