"""One process a run folder: a lock of the operating system, which a killed process cannot leave behind."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from autodistill_grounded_sam.errors import StoreError

logger = logging.getLogger(__name__)


class RunLock:
    """A with-block that only one process at a time can be in; the file `lock` says which one, for people.

    The lock is `flock` on that file, so it ends with its process however that ends. Where there is no flock (Windows, some
    network disks) the run goes on without one, and the log says so. Raises StoreError that names the holder.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "lock"
        self._handle = -1

    def __enter__(self) -> RunLock:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self._handle)
            raise
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        os.ftruncate(self._handle, 0)
        os.write(self._handle, json.dumps(holder).encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.ftruncate(self._handle, 0)
        os.close(self._handle)  # this ends the lock; the file stays, as taking it away would race with the next process

    def _take(self) -> None:
        try:
            import fcntl
        except ImportError:
            logger.warning("this system has no flock: make sure that no other process writes to %s", self._path.parent)
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                logger.warning("the disk of %s knows no locks: make sure that no other process writes there", self._path.parent)
                return
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise StoreError(
                f"the run folder {self._path.parent} is in use by {self._holder()}; wait for it to end, or give another --out"
            ) from error

    def _holder(self) -> str:
        try:
            holder = json.loads(self._path.read_text())
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
