"""The seams: what a detector, segmenter, tagger, dataset writer, student and engine must be able to do.

Plugins implement these by shape alone (no base class). `autodistill_grounded_sam.testing` holds contract checks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from autodistill_grounded_sam.types import (
    Candidates,
    DatasetSummary,
    ImageRecord,
    Labels,
    RgbImage,
    Sighting,
    Split,
    TrainResult,
)


@runtime_checkable
class Detector(Protocol):
    """Images and prompts in, one `Candidates` an image out, in order. A result never depends on the rest of its batch."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]: ...


@runtime_checkable
class Segmenter(Protocol):
    """Fills `rle` and `mask_score` of each image's candidates; an image without boxes costs nothing."""

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]: ...


@dataclass(frozen=True)
class Tag:
    """A word for something in an image, with its probability."""

    name: str
    score: float


@runtime_checkable
class Tagger(Protocol):
    """What is in these images? One list of tags an image."""

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]: ...


@runtime_checkable
class DatasetWriter(Protocol):
    """Used in a with-block: a clean exit renames the finished folder into place, an error leaves nothing behind."""

    def __enter__(self) -> DatasetWriter: ...

    def write(self, image: ImageRecord, labels: Labels, split: Split) -> None: ...

    def finish(self) -> DatasetSummary: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


OnEpoch = Callable[[int, int, Mapping[str, float]], None]  # is told (epoch from 1, epochs, figures so far) while a student learns


@runtime_checkable
class Target(Protocol):
    """A student that learns from a dataset folder (YOLO layout with a `data.yaml`; ours on transformers take COCO as well)."""

    def train(self, dataset: Path, **settings: Any) -> TrainResult: ...


Batch = Sequence[ImageRecord]
WorkerSpec = Mapping[str, Any]


class Worker(Protocol):
    """Built in its own process from plain data; called with a batch of images to look at."""

    def __init__(self, spec: WorkerSpec) -> None: ...

    def __call__(self, batch: Batch) -> list[Sighting]: ...


class Engine(Protocol):
    """Runs workers over batches and yields each batch's sightings, in any order."""

    def run(self, worker_type: type[Worker], spec: WorkerSpec, batches: Iterable[Batch]) -> Iterator[list[Sighting]]: ...
