"""The engine of one machine: one worker in this process; decoding, looking, and what the caller does with the answers overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

from autodistill_grounded_sam.protocols import Batch, Worker, WorkerSpec
from autodistill_grounded_sam.types import Sighting

AHEAD = 2  # batches that are decoded, or looked at and not yet taken, while one is looked at


@runtime_checkable
class TwoStepWorker(Protocol):
    """A worker whose work falls in two: decoding, which a thread can do ahead, and looking."""

    def decode(self, batch: Batch) -> Any: ...

    def look(self, decoded: Any) -> list[Sighting]: ...


class LocalEngine:
    """Runs one worker and keeps the order of batches; `worker` is one that was already built from the same spec, if any.

    One thread decodes, one looks (models never meet two threads), and the caller's own takes the answers: the models wait
    neither for a disk nor for what is done with the answers.
    """

    def __init__(self, worker: Worker | None = None) -> None:
        self._worker = worker

    def run(self, worker_type: type[Worker], spec: WorkerSpec, batches: Iterable[Batch]) -> Iterator[list[Sighting]]:
        worker = self._worker or worker_type(spec)
        if not isinstance(worker, TwoStepWorker):
            yield from map(worker, batches)
            return
        decoding, looking = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("decode", "look"))
        answers: deque[Future[list[Sighting]]] = deque()
        try:
            for batch in batches:
                decoded = decoding.submit(worker.decode, batch)
                answers.append(looking.submit(_look, worker, decoded))
                if len(answers) > AHEAD:
                    yield answers.popleft().result()
            while answers:
                yield answers.popleft().result()
        finally:  # after an error, or when the caller has gone, what is under way ends and nothing else begins
            for pool in (decoding, looking):
                pool.shutdown(cancel_futures=True)


def _look(worker: TwoStepWorker, decoded: Future[Any]) -> list[Sighting]:
    return worker.look(decoded.result())
