"""A folder that is being labelled, in a thread of its own: how far it is, and the way to stop it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from autodistill_grounded_sam.errors import ConfigError, GroundedSamError

logger = logging.getLogger(__name__)

Phase = Literal["idle", "working", "stopping", "stopped", "done", "failed"]


class Stopped(Exception):
    """Raised where the work next tells how far it is, after a person asked to stop it."""


@dataclass(frozen=True)
class Standing:
    """Where the work stands. `summary` is of work that is done, `message` what it does now, or why it failed."""

    phase: Phase = "idle"
    message: str = ""
    images: int = 0
    done: int = 0
    counts: Mapping[str, int] | None = None  # labels by class
    summary: Any = None

    @property
    def running(self) -> bool:
        return self.phase in ("working", "stopping")


class FolderJob:
    """One work at a time; it is the `Progress` that the work tells of itself."""

    def __init__(self) -> None:
        self._lock, self._standing = threading.Lock(), Standing()
        self._thread: threading.Thread | None = None

    @property
    def standing(self) -> Standing:
        with self._lock:
            return self._standing

    def start(self, work: Callable[[FolderJob], Any]) -> None:
        """Begin; `work` is given this object for its progress. Raises ConfigError while other work is under way."""
        with self._lock:
            if self._standing.running:
                raise ConfigError("a folder is being labelled already; stop it first, or wait until it is done")
            self._standing = Standing("working", "starting")
        self._thread = threading.Thread(target=self._run, args=(work,), name="label a folder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to stop; it does after the batch that it looks at."""
        with self._lock:
            if self._standing.running:
                self._standing = replace(self._standing, phase="stopping")

    def wait(self, seconds: float | None = None) -> Standing:
        """Where it stands when it has ended, or after so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.standing

    def total(self, images: int) -> None:
        self._tell(images=images, done=0, counts={}, message="looking")

    def advance(self, images: int, counts: Mapping[str, int]) -> None:
        standing = self.standing
        self._tell(done=standing.done + images, counts=Counter(standing.counts) + Counter(counts))

    def message(self, text: str) -> None:
        self._tell(message=text)

    def _tell(self, **facts: Any) -> None:
        with self._lock:
            stop = self._standing.phase == "stopping"
            self._standing = replace(self._standing, **facts)
        if stop:
            raise Stopped

    def _run(self, work: Callable[[FolderJob], Any]) -> None:
        try:
            summary = work(self)
        except Stopped:
            self._end(phase="stopped")
        except GroundedSamError as error:
            self._end(phase="failed", message=str(error))
        except Exception as error:  # whatever it is, the person is told, and the page goes on
            logger.exception("labelling a folder failed")
            self._end(phase="failed", message=f"{type(error).__name__}: {error}")
        else:
            self._end(phase="done", message="", summary=summary)

    def _end(self, **facts: Any) -> None:
        with self._lock:
            self._standing = replace(self._standing, **facts)
