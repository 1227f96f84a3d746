"""One process a run folder: a lock of the operating system, which a killed process cannot leave behind."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store.files import disk_errors

logger = logging.getLogger(__name__)


@dataclass
class _Held:
    handle: int
    blocks: int


# What this process holds, by process id (a fork inherits this table, but not the right to write) and resolved path.
_HELD: dict[tuple[int, Path], _Held] = {}
_TABLE = threading.Lock()


class RunLock:
    """A with-block that only one process at a time can be in; the file `lock` says which one, for people.

    The process that is in it may enter again, from any of its threads; the lock ends with the last of its blocks. The run folder
    is made if it is missing. The lock is `flock` on the file, so it ends with its process however that ends. Where there is no
    flock (Windows, some network disks) the run goes on without one, and the log says so. Raises StoreError that names the
    holder, or what the disk refuses.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._key = (0, run)

    def __enter__(self) -> RunLock:
        with _TABLE:
            with disk_errors(self._run):
                self._run.mkdir(parents=True, exist_ok=True)
                self._key = (os.getpid(), self._run.resolve())
            held = _HELD.get(self._key)
            if held is None:
                held = _HELD[self._key] = _Held(_open_locked(self._run), 0)
            held.blocks += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _TABLE:
            held = _HELD[self._key]
            held.blocks -= 1
            if held.blocks == 0:
                del _HELD[self._key]
                with suppress(OSError):  # the line is for people only, and must not hide what went wrong in the block
                    os.ftruncate(held.handle, 0)
                os.close(held.handle)  # this ends the lock; the file stays, as taking it away would race with the next process


def _open_locked(run: Path) -> int:
    """A handle on the lock file of `run` that holds the lock, with this process written into it."""
    path = run / "lock"
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle, run)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(holder).encode())
        except BaseException:
            os.close(handle)
            raise
    return handle


def _take(handle: int, run: Path) -> None:
    try:
        import fcntl
    except ImportError:
        logger.warning("this system has no flock: make sure that no other process writes to %s", run)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            logger.warning("the disk of %s knows no locks: make sure that no other process writes there", run)
            return
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise StoreError(
            f"the run folder {run} is in use by {_holder(run)}; wait for it to end, or give another --out"
        ) from error


def _holder(run: Path) -> str:
    try:
        holder = json.loads((run / "lock").read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
