"""The engine of many machines: the same worker class in the actors of a Ray cluster.

Batches are planned by the driver and written by it to the store, as on one machine; so the dataset is the same, byte for byte. An
actor that dies is replaced and its batches are looked at again; after a killed driver the same command goes on from the store.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from autodistill_grounded_sam.errors import ConfigError, MissingExtraError
from autodistill_grounded_sam.protocols import Batch, Worker, WorkerSpec
from autodistill_grounded_sam.types import Sighting

logger = logging.getLogger(__name__)

TASK_BATCHES = 8  # of one task at most: what a killed actor has to do again; a task costs Ray some milliseconds


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
        rows = [{"batch": pickle.dumps(list(batch))} for batch in batches]
        if not rows:
            return
        begun_here = not ray.is_initialized()
        if begun_here:
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
        try:
            workers, gpus = self._resources(ray.cluster_resources())
            yield from self._answers(ray, rows, workers, gpus, {"worker_type": worker_type, "spec": dict(spec)})
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
        self, ray: Any, rows: list[dict[str, bytes]], workers: int, gpus: float, built_from: dict[str, Any]
    ) -> Iterator[list[Sighting]]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        tasks = max(workers, -(-len(rows) // TASK_BATCHES))
        logger.info("%d batches in %d tasks for %d workers with %g GPUs each", len(rows), min(tasks, len(rows)), workers, gpus)
        looked = ray.data.from_items(rows, override_num_blocks=min(tasks, len(rows))).map_batches(
            _Actor,
            fn_constructor_kwargs=built_from,
            batch_size=1,
            num_gpus=gpus,
            num_cpus=0 if gpus else 1,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        for row in looked.iter_rows():
            yield pickle.loads(row["sightings"])


class _Actor:
    """Builds the worker where it runs; called with one batch."""

    def __init__(self, worker_type: type[Worker], spec: WorkerSpec) -> None:
        self._worker = worker_type(spec)

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"sightings": [pickle.dumps(self._worker(pickle.loads(row))) for row in rows["batch"]]}
