"""The main path: scan -> plan -> see -> decide -> export. The whole story on one screen, in `see` and `label`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, SeeConfig, checked
from autodistill_grounded_sam.decide.chain import decide, decide_many
from autodistill_grounded_sam.engine.local import LocalEngine
from autodistill_grounded_sam.engine.planning import plan_batches
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.errors import ConfigError, NoImagesError, StoreError
from autodistill_grounded_sam.export.formats import export_dataset
from autodistill_grounded_sam.export.split import plan_splits
from autodistill_grounded_sam.images import dataset_stems, scan
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.run_setup import batch_size_of, identity_of, session_note, worker_spec, worker_type_of
from autodistill_grounded_sam.store.files import write_json
from autodistill_grounded_sam.store.store import FailedLine, Folder, Store, StoreWriter, read_json
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, RgbImage, Sighting, State

logger = logging.getLogger(__name__)

DECIDED_AT_ONCE = 64  # images; their masks are cleaned together, twice as quick as one by one, and no quicker beyond


class Progress(Protocol):
    """What long work tells about itself; the CLI shows it, the library is silent."""

    def total(self, images: int) -> None: ...

    def advance(self, images: int, counts: Mapping[str, int]) -> None: ...  # `counts` labels by class, of these images

    def message(self, text: str) -> None: ...


@dataclass(frozen=True)
class RunSummary:
    """What became of a folder. `images` counts by state, `looked_at` those that this call showed to the models (the others
    were in the store), `stages` are seconds; `images_per_second` is of those that were looked at."""

    out: Path
    run: Path
    images: Mapping[str, int]
    per_class: Mapping[str, int]
    failed: Sequence[FailedLine] = ()
    looked_at: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    datasets: Sequence[DatasetSummary] = ()

    @property
    def labels(self) -> int:
        return sum(self.per_class.values())

    @property
    def images_per_second(self) -> float:
        return self.looked_at / self.stages["see"] if self.looked_at and self.stages.get("see") else 0.0


def label(
    images: Path | str,
    ontology: Any,
    out: Path | str | None = None,
    config: LabelConfig | None = None,
    *,
    extension: str | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Label a folder of images: the dataset is in `out` (`<images>_labeled` by default), what the models saw in `out/run`.

    `ontology` is anything `Ontology.load` takes. Run again after an interruption, it goes on where it was, and the dataset
    is byte for byte the same. Raises NoImagesError if there is nothing to label, StoreError if `out` is of another run.
    """
    started = time.perf_counter()
    config, words = config or LabelConfig(), Ontology.load(ontology)
    for name in config.export.formats:
        plugins.find("formats", name)  # a wrong one is refused now, not after hours of looking
    target = default_out(images) if out is None else Path(out)
    seen = see(images, words, target, config, extension=extension, progress=progress)
    decided = redecide(seen.run, config.decide, words, export=config.export)
    return replace(
        decided,
        looked_at=seen.looked_at,
        stages={**seen.stages, **decided.stages},
        seconds=time.perf_counter() - started,
    )


def see(
    images: Path | str,
    ontology: Any,
    out: Path | str,
    config: LabelConfig | None = None,
    *,
    extension: str | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """The costly half: show every image that the store does not know yet to the models, and write down what they saw."""
    config, words = config or LabelConfig(), Ontology.load(ontology)
    started = time.perf_counter()
    if progress is not None:
        progress.message(f"listing {images}")
    folder = _scan(Path(images), Path(out), config.see, extension)
    stages = {"scan": time.perf_counter() - started}
    run = Path(out) / "run"
    writer = StoreWriter(
        run,
        identity_of(config, words),
        folder,
        batch_size=batch_size_of(config, run),
        part_images=config.run.part_images,
        part_seconds=config.run.part_seconds,
    )
    with writer as store:
        store.note({"prompt_groups": store.info.get("prompt_groups", [list(group) for group in words.prompt_groups])})
        looked_at = 0 if store.finished else _look(store, config, words, progress, stages)
        store.note(session_note(store, config, looked_at, stages))
    failed = Store(run).failed()
    if len(failed) == len(folder.images) + len(folder.failed):
        counts = ", ".join(f"{count} {reason}" for reason, count in Counter(line.reason for line in failed).most_common())
        raise NoImagesError(f"none of the {len(failed)} images in {images} could be used: {counts}; see {run / 'failed.jsonl'}")
    return RunSummary(Path(out), run, {}, {}, failed, looked_at, time.perf_counter() - started, stages)


def redecide(
    run: Path | str,
    config: DecideConfig | None = None,
    ontology: Any = None,
    *,
    export: ExportConfig | None = None,
    images: Path | str | None = None,
) -> RunSummary:
    """The cheap half: decide anew from what was seen, without a model; with `export` the dataset is written as well.

    `config` and `ontology` left out are those used last; an ontology may name any of the prompts that the run asked for.
    The first format goes to the output folder itself, any other to a folder of its name in it.
    `images` says where the images folder is now, if it moved.
    """
    started = time.perf_counter()
    decided = _decided(run, config, ontology, images)
    store, words, out = decided.store, decided.ontology, decided.store.run.parent
    write_json(store.run / "decide.json", {"decide": decided.config.model_dump(mode="json"), "ontology": words.document()})
    tally, datasets = _Tally(), []
    if export is None or not export.formats:
        for _ in _labelled(decided, tally):
            pass
    else:
        datasets = [_export(decided, export.formats[0], out, export, tally)]
        datasets += [_export(decided, name, out / name, export, _Tally()) for name in export.formats[1:]]
    failed, seconds = store.failed(), time.perf_counter() - started
    states = {state.value: tally.states[state] for state in State} | {State.FAILED.value: len(failed)}
    per_class = {name: tally.classes[class_id] for class_id, name in enumerate(words.class_names)}
    stages = {"decide": tally.seconds, "export": seconds - tally.seconds}
    return RunSummary(out, store.run, states, per_class, failed, 0, seconds, stages, datasets)


def export_run(
    run: Path | str,
    format: str,  # noqa: A002 - the word of the command line
    out: Path | str,
    config: ExportConfig | None = None,
    *,
    images: Path | str | None = None,
) -> DatasetSummary:
    """Write the labels as they were decided last into another folder or format; `images` as in `redecide`."""
    return _export(_decided(run, None, None, images), format, Path(out), config or ExportConfig(), _Tally())


def decided_labels(run: Path | str, images: Path | str | None = None) -> tuple[Ontology, Iterator[tuple[ImageRecord, Labels]]]:
    """The labels as they were decided last: the ontology, and each image that was seen with its labels, in the order of ids."""
    decided = _decided(run, None, None, images)
    return decided.ontology, _labelled(decided, _Tally())


def build_worker(config: LabelConfig, ontology: Ontology) -> SeeWorker:
    """A worker for images that belong to no run: `look_at_one` shows it one."""
    return worker_type_of(config)(worker_spec(config, ontology))


def look_at_one(image_rgb: RgbImage, worker: SeeWorker, ontology: Ontology, config: DecideConfig) -> Labels:
    """The labels of one upright RGB image, by a worker that was built for the prompts of this ontology."""
    return decide(worker.look_at(image_rgb), ontology, config, image_rgb.shape[1], image_rgb.shape[0])


def default_out(images: Path | str) -> Path:
    """Where autodistill puts the dataset of a folder: beside it, `_labeled` after its name."""
    folder = Path(images).absolute()
    return folder.with_name(f"{folder.name}_labeled")


def _scan(images: Path, out: Path, config: SeeConfig, extension: str | None) -> Folder:
    if out.resolve().is_relative_to(images.resolve()):
        raise ConfigError(
            f"the output folder {out} must not lie in the images folder {images}: its images would be labelled next time"
        )
    scanned = scan(images, extension=extension, max_megapixels=config.max_megapixels)
    return Folder(images, scanned.images, [FailedLine(failed.id, failed.reason, failed.detail) for failed in scanned.failed])


def _look(
    store: StoreWriter, config: LabelConfig, ontology: Ontology, progress: Progress | None, stages: dict[str, float]
) -> int:
    """Plan, leave out what is done, and look at the rest; the number of images looked at."""
    worker_type, spec = worker_type_of(config), worker_spec(config, ontology, store.info["prompt_groups"])
    if progress is not None:
        progress.message(f"loading {config.see.detector} and {config.see.segmenter}")
    started = time.perf_counter()
    worker = worker_type(spec)
    stages["load"] = time.perf_counter() - started
    plan = plan_batches(store.todo, store.batch_size, store.part_images, worker.resized_size)
    left = [batch for batch in plan if (batch.window, batch.number) not in store.done]
    by_first = {batch.images[0].id: batch for batch in left}
    count = sum(len(batch.images) for batch in left)
    logger.info("%d of %d images are left to look at", count, len(store.todo))
    if progress is not None:
        progress.total(count)
    started = time.perf_counter()
    for sightings in LocalEngine(worker).run(worker_type, spec, (batch.images for batch in left)):
        batch = by_first[sightings[0].image.id]
        store.add(batch.window, batch.number, sightings)
        if progress is not None:
            progress.advance(len(sightings), _class_counts(sightings, ontology, config.decide))
    stages["see"] = time.perf_counter() - started
    stages.update(worker.seconds)
    return count


@dataclass(frozen=True)
class _Decided:
    """A store with the settings that make labels of it, and the place where its images are now."""

    store: Store
    config: DecideConfig
    ontology: Ontology
    images_root: Path


def _decided(run: Path | str, config: DecideConfig | None, ontology: Any, images: Path | str | None) -> _Decided:
    """The settings given, or else those used last; raises StoreError if the ontology asks for what the run never asked."""
    store = Store(Path(run))
    path = store.run / "decide.json"
    last = read_json(path) if path.exists() else {}
    if ontology is None and "ontology" not in last:
        raise StoreError(f"nothing was decided in {store.run} yet; give the ontology")
    words = Ontology.from_document(last["ontology"], str(path)) if ontology is None else Ontology.load(ontology)
    never_asked = [prompt for prompt in words.prompts if prompt not in store.prompts]
    if never_asked:
        raise StoreError(
            f"{store.run} was never asked for {', '.join(map(repr, never_asked))}; it was asked for "
            f"{', '.join(map(repr, store.prompts))}. Label into another --out to ask for more"
        )
    root = store.images_root if images is None else Path(images)
    return _Decided(store, config or checked(DecideConfig, last.get("decide", {})), words, root)


class _Tally:
    """Counts that go along with the one pass over the labels; `seconds` without the time of whoever takes them."""

    def __init__(self) -> None:
        self.states: Counter[State] = Counter()
        self.classes: Counter[int] = Counter()
        self.seconds = 0.0


def _labelled(decided: _Decided, tally: _Tally) -> Iterator[tuple[ImageRecord, Labels]]:
    """Each image that was seen with its labels, in the order of ids; some dozens at a time in memory."""
    columns = [decided.store.prompts.index(prompt) for prompt in decided.ontology.prompts]
    started = time.perf_counter()
    seen = (
        (sighting.image, replace(sighting.candidates, scores=sighting.candidates.scores[:, columns]))
        for sighting in decided.store.sightings(decided.images_root)
        if sighting.candidates is not None
    )
    while some := list(islice(seen, DECIDED_AT_ONCE)):
        asked = [(candidates, image.width, image.height) for image, candidates in some]
        for (image, _), labels in zip(some, decide_many(asked, decided.ontology, decided.config), strict=True):
            tally.states[labels.state] += 1
            tally.classes.update(labels.class_id.tolist())
            tally.seconds += time.perf_counter() - started
            yield image, labels
            started = time.perf_counter()


def _export(decided: _Decided, format_: str, out: Path, config: ExportConfig, tally: _Tally) -> DatasetSummary:
    root = decided.images_root
    if not root.is_dir():
        raise StoreError(f"the images folder {root} is not there any more; say where it is now (images=, --images)")
    writer = plugins.find("formats", format_).load_class()
    seen = decided.store.seen()
    hashes = {image.id: dhash for image, dhash in seen}
    records = [image for image, _ in seen]
    split = plan_splits(records, config.valid, seed=config.seed, group=config.group_by == "auto", hashes=hashes)
    stems = dataset_stems([image.id for image in records])
    rows, names = _labelled(decided, tally), decided.ontology.class_names
    return export_dataset(
        rows, names, writer, out, split=split, stems=stems, notes=split.notes, confidence_files=config.confidence_files
    )


def _class_counts(sightings: Sequence[Sighting], ontology: Ontology, config: DecideConfig) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for sighting in sightings:
        if sighting.candidates is not None:
            labels = decide(sighting.candidates, ontology, config, sighting.image.width, sighting.image.height)
            counts.update(ontology.class_names[class_id] for class_id in labels.class_id.tolist())
    return counts
