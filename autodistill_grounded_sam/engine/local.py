"""The engine of one machine: one worker in this process, with the next batch decoded while the models work on this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

from autodistill_grounded_sam.protocols import Batch, Worker, WorkerSpec
from autodistill_grounded_sam.types import Sighting


@runtime_checkable
class TwoStepWorker(Protocol):
    """A worker whose work falls in two: decoding, which a thread can do ahead, and looking."""

    def decode(self, batch: Batch) -> Any: ...

    def look(self, decoded: Any) -> list[Sighting]: ...


class LocalEngine:
    """Runs one worker and keeps the order of batches; `worker` is one that was already built from the same spec, if any."""

    def __init__(self, worker: Worker | None = None) -> None:
        self._worker = worker

    def run(self, worker_type: type[Worker], spec: WorkerSpec, batches: Iterable[Batch]) -> Iterator[list[Sighting]]:
        worker = self._worker or worker_type(spec)
        if not isinstance(worker, TwoStepWorker):
            yield from map(worker, batches)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
            decoded: Future[Any] | None = None
            for batch in batches:
                following = pool.submit(worker.decode, batch)
                if decoded is not None:
                    yield worker.look(decoded.result())
                decoded = following
            if decoded is not None:
                yield worker.look(decoded.result())
