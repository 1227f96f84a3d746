"""The engine keeps the order, decodes ahead, and lets errors through."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.engine.local import AHEAD, LocalEngine
from autodistill_grounded_sam.protocols import Batch, WorkerSpec
from autodistill_grounded_sam.types import ImageRecord, Sighting, Status


def batches(count: int) -> Iterator[list[ImageRecord]]:
    return ([ImageRecord(f"{n}", "", Path(), 1, 1)] for n in range(count))


def sighting(image: ImageRecord) -> Sighting:
    return Sighting(image, Status.FAILED, None, "test")


class Plain:
    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    def __call__(self, batch: Batch) -> list[Sighting]:
        return [sighting(image) for image in batch]


class Ahead(Plain):
    """Looking at a batch waits until the next one is decoded: it hangs unless another thread decodes ahead."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self.decoded = [threading.Event() for _ in range(spec["count"] + 1)]
        self.decoded[-1].set()

    def decode(self, batch: Batch) -> Any:
        self.decoded[int(batch[0].id)].set()
        if batch[0].id == str(self.spec.get("broken")):
            raise ValueError("a fault of the program")
        return batch

    def look(self, decoded: Any) -> list[Sighting]:
        assert self.decoded[int(decoded[0].id) + 1].wait(timeout=30)
        return self(decoded)


@pytest.mark.parametrize("worker_type", [Plain, Ahead])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_order_is_kept(worker_type: type[Plain], count: int) -> None:
    results = list(LocalEngine().run(worker_type, {"count": count}, batches(count)))
    assert [result[0].image.id for result in results] == [str(n) for n in range(count)]


def test_an_error_of_a_worker_goes_up() -> None:
    results = LocalEngine().run(Ahead, {"count": 5, "broken": 2}, batches(5))
    assert next(results)[0].image.id == "0"
    with pytest.raises(ValueError, match="a fault of the program"):
        list(results)


def test_a_worker_that_is_already_built_is_used() -> None:
    worker = Plain({})
    engine = LocalEngine(worker)
    assert len(list(engine.run(Ahead, {}, batches(2)))) == 2


class Told(Plain):
    """Notes what it was asked to look at; `looked` is set by the first."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self.looked: list[str] = []

    def decode(self, batch: Batch) -> Batch:
        return batch

    def look(self, decoded: Batch) -> list[Sighting]:
        self.looked.append(decoded[0].id)
        return self(decoded)


def test_the_next_batch_is_looked_at_while_the_caller_is_busy_and_not_many_more() -> None:
    worker = Told({})
    results = LocalEngine(worker).run(Told, {}, batches(20))
    next(results)
    deadline = time.monotonic() + 30
    while len(worker.looked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 2 <= len(worker.looked) <= 1 + AHEAD
    results.close()
    assert len(worker.looked) <= 1 + AHEAD, "a caller that has gone leaves nothing running"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "look"))]
