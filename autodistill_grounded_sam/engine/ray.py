"""The engine of many machines: the same worker class in the actors of a Ray cluster.

Batches are planned by the driver and written by it to the store, as on one machine; so the dataset is the same, byte for byte. An
actor that dies is replaced and its batches are looked at again; after a killed driver the same command goes on from the store.
What one driver can do, and where it ends, was measured: docs/scale.md.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from autodistill_grounded_sam.engine.local import LocalEngine
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError
from autodistill_grounded_sam.protocols import Batch, Worker, WorkerSpec
from autodistill_grounded_sam.types import Sighting

logger = logging.getLogger(__name__)

TASK_BATCHES = 8  # of one task at most: what a killed actor has to do again; a task costs Ray some milliseconds
# Answers that a worker may have waiting for a driver that is slower: about 10,000 images, and all that a killed driver loses.
# Without a limit they are half of the cluster's object store, which is hours of work of many GPUs.
ANSWERS_BYTES = 64 << 20


def import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("the ray engine", "ray") from error
    return ray


class RayEngine:
    """Runs `workers` actors (None: one a GPU of the cluster, or one a core where there is none), each with `gpus` of a GPU.

    A cluster that is already joined (`ray.init`), or named by RAY_ADDRESS, is used; else one is started on this machine. Answers
    come in the order in which they are ready. Raises MissingExtraError without ray, ConfigError where the cluster has too little.
    """

    def __init__(self, workers: int | None = None, gpus: float | None = None) -> None:
        self._workers, self._gpus = workers, gpus

    def run(self, worker_type: type[Worker], spec: WorkerSpec, batches: Iterable[Batch]) -> Iterator[list[Sighting]]:
        ray = import_ray()
        planned = list(batches)
        if not planned:
            return
        begun_here = not ray.is_initialized()
        if begun_here:
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
        try:
            workers, gpus = self._resources(ray.cluster_resources())
            yield from self._answers(ray, planned, workers, gpus, {"worker_type": worker_type, "spec": dict(spec)})
        finally:
            if begun_here:
                ray.shutdown()

    def _resources(self, cluster: Mapping[str, float]) -> tuple[int, float]:
        has_gpus = int(cluster.get("GPU", 0))
        gpus = self._gpus if self._gpus is not None else float(has_gpus > 0)
        most = int(has_gpus / gpus) if gpus else int(cluster.get("CPU", 1))
        workers = self._workers or max(1, most)
        if workers > most:
            what = f"{has_gpus} GPUs, {gpus:g} a worker" if gpus else f"{most} cores"
            raise ConfigError(f"{workers} workers asked for, but the cluster has {what}: give it more, or fewer workers")
        return workers, gpus

    def _answers(
        self, ray: Any, planned: Sequence[Batch], workers: int, gpus: float, built_from: dict[str, Any]
    ) -> Iterator[list[Sighting]]:
        tasks = min(len(planned), max(workers, -(-len(planned) // TASK_BATCHES)))
        logger.info("%d batches in %d tasks for %d workers with %g GPUs each", len(planned), tasks, workers, gpus)
        rows = [{"batch": pickle.dumps(list(batch))} for batch in planned]
        todo = ray.data.from_items(rows, override_num_blocks=tasks)
        del rows  # Ray's object store has them now, and can put them on a disk
        todo.context.enable_progress_bars = False
        limits = todo.context.execution_options.resource_limits
        todo.context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
            cpu=limits.cpu, gpu=limits.gpu, object_store_memory=min(limits.object_store_memory, workers * ANSWERS_BYTES)
        )
        looked = todo.map_batches(
            _Actor,
            fn_constructor_kwargs=built_from,
            batch_size=None,  # the whole task
            num_gpus=gpus,
            num_cpus=0 if gpus else 1,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        for row in looked.iter_rows():
            yield pickle.loads(row["sightings"])


class _Actor:
    """Builds the worker where it runs; called with the batches of one task, it decodes ahead as on one machine."""

    def __init__(self, worker_type: type[Worker], spec: WorkerSpec) -> None:
        self._worker_type, self._spec = worker_type, spec
        self._engine = LocalEngine(worker_type(spec))

    def __call__(self, rows: Mapping[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        batches = (pickle.loads(row) for row in rows["batch"])
        for sightings in self._engine.run(self._worker_type, self._spec, batches):
            yield {"sightings": [pickle.dumps(sightings)]}
