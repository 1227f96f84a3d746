"""The main path: scan -> plan -> see -> decide -> export. The whole story on one screen, in `see` and `label`."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, SeeConfig
from autodistill_grounded_sam.decide.chain import decide, decide_many
from autodistill_grounded_sam.decisions import Decision, LastDecision, Tally, refuse_thresholds_without_scores, require_apart
from autodistill_grounded_sam.engine.planning import plan_batches
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.errors import ConfigError, GroundedSamError, NoImagesError, WrongRunError
from autodistill_grounded_sam.export.formats import check_place
from autodistill_grounded_sam.images import find_images, scan
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.places import is_remote, place
from autodistill_grounded_sam.run_setup import (
    batch_size_of,
    engine_of,
    identity_of,
    learnt_by,
    peak_memory_mb,
    planner_of,
    refuse_impossible,
    session_note,
    worker_spec,
    worker_type_of,
)
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.store import FailedLine, Folder, Store, StoreWriter, find_run
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, RgbImage, Sighting, State

logger = logging.getLogger(__name__)

SAID_SECONDS = 10.0  # between two messages about listing a large folder


class Progress(Protocol):
    """What long work tells about itself; the CLI shows it, the library is silent."""

    def total(self, images: int) -> None: ...

    def advance(self, images: int, counts: Mapping[str, int]) -> None: ...  # `counts` labels by class, of these images

    def message(self, text: str) -> None: ...


@dataclass(frozen=True)
class RunSummary:
    """What became of a folder. `images` counts by state, `looked_at` those that this call showed to the models (the others
    were in the store), `stages` are seconds; `images_per_second` is of those that were looked at, `share_in_models` that of the
    time they took (0 where workers of a cluster looked). `peak_memory_mb` is of this process so far, without a GPU's; None where
    the system does not tell."""

    out: Path
    run: Path
    images: Mapping[str, int]
    per_class: Mapping[str, int]
    failed: Sequence[FailedLine] = ()
    looked_at: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    datasets: Sequence[DatasetSummary] = ()
    notes: Sequence[str] = ()
    report: Path | None = None
    peak_memory_mb: float | None = None

    @property
    def labels(self) -> int:
        return sum(self.per_class.values())

    @property
    def images_per_second(self) -> float:
        return self.looked_at / self.stages["see"] if self.looked_at and self.stages.get("see") else 0.0

    @property
    def share_in_models(self) -> float:
        spent = self.stages.get("detect", 0.0) + self.stages.get("segment", 0.0)
        return spent / self.stages["see"] if self.looked_at and self.stages.get("see") else 0.0


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
    target = default_out(images) if out is None else Path(out)
    require_apart(place(images), target)
    find_images(images, extension=extension)  # a wrong folder is told before anything is written
    _check_formats(target, config)
    with RunLock(target / "run"):
        seen = see(images, words, target, config, extension=extension, progress=progress)
        if progress is not None:
            progress.message("deciding, and writing the dataset")
        decided = redecide(seen.run, config.decide, words, export=config.export, report_follows=config.run.report)
        told = time.perf_counter()
        report, why_not = _report(seen.run) if config.run.report else (None, [])
    return replace(
        decided,
        looked_at=seen.looked_at,
        stages={**seen.stages, **decided.stages, **({"report": time.perf_counter() - told} if report else {})},
        notes=[*seen.notes, *decided.notes, *why_not],
        report=report,
        peak_memory_mb=peak_memory_mb(),
        seconds=time.perf_counter() - started,
    )


def see(
    images: Path | str,
    ontology: Any,
    out: Path | str,
    config: LabelConfig | None = None,
    *,
    extension: str | None = None,
    only: Callable[[Sequence[ImageRecord]], Sequence[ImageRecord]] | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """The costly half: show every image that the store does not know yet to the models, and write down what they saw.

    `only` picks among the images of the folder; the others are not looked at and not listed in the run.
    """
    config, words = config or LabelConfig(), Ontology.load(ontology)
    started, run = time.perf_counter(), Path(out) / "run"
    require_apart(place(images), Path(out))
    identity = identity_of(config, words)  # missing weights are told before a large folder is read
    refuse_thresholds_without_scores(identity, config.decide, words)
    refuse_impossible(config, words)
    # Libraries that are loaded among the records of a million images keep their memory from being given back.
    import cv2  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    folder = _listed(place(images), config.see, extension, progress)
    if only is not None:
        folder = Folder(folder.root, only(folder.images))
    _require_same_folder(folder, run)
    stages = {"scan": time.perf_counter() - started}
    writer = StoreWriter(
        run,
        identity,
        folder,
        batch_size=batch_size_of(config, run),
        part_images=config.run.part_images,
        part_seconds=config.run.part_seconds,
    )
    with writer as store:
        groups = store.info.get("prompt_groups", [list(group) for group in words.prompt_groups])
        store.note({"prompt_groups": groups, "learnt_from": learnt_by(config)})
        notes: list[str] = []
        looked_at = 0 if store.finished else _look(store, config, words, progress, stages, notes)
        store.note(session_note(store, config, looked_at, stages))
    failed = Store(run).failed()
    if len(failed) == len(folder.images) + len(folder.failed):
        counts = ", ".join(f"{count} {reason}" for reason, count in Counter(line.reason for line in failed).most_common())
        raise NoImagesError(f"none of the {len(failed)} images in {images} could be used: {counts}; see {run / 'failed.jsonl'}")
    return RunSummary(Path(out), run, {}, {}, failed, looked_at, time.perf_counter() - started, stages, notes=notes)


def redecide(
    run: Path | str,
    config: DecideConfig | None = None,
    ontology: Any = None,
    *,
    export: ExportConfig | None = None,
    images: Path | str | None = None,
    report_follows: bool = False,
) -> RunSummary:
    """The cheap half: decide anew from what was seen, without a model; with `export` the dataset is written as well.

    `config` and `ontology` left out are those used last (`last_settings`); an ontology may name any of the prompts that the
    run asked for. The format that was written first lies in the output folder itself, any other in a folder of its name in it.
    `images` says where the images folder is now, if it moved. `notes` of the summary says where a dataset on disk is older,
    and the report, unless `report_follows`.
    """
    started, run = time.perf_counter(), find_run(Path(run))
    with RunLock(run):
        decision, tally = Decision.of(run, config, ontology, images), Tally()
        formats = tuple(dict.fromkeys(export.formats)) if export is not None else ()
        out, datasets = decision.store.run.parent, []
        for place, name in enumerate(formats):
            target = decision.last.place(out, name, formats[0])
            datasets.append(decision.export(name, target, export or ExportConfig(), Tally() if place else tally))
        if not formats:
            for _ in decision.labelled(tally):
                pass
        written = decision.remember(export, formats)
        notes = [*decision.notes(tally, export, written), *([] if report_follows else decision.note_on_report(export))]
    failed, seconds = decision.store.failed(), time.perf_counter() - started
    states = {state.value: tally.states[state] for state in State} | {State.FAILED.value: len(failed)}
    per_class = {name: tally.classes[class_id] for class_id, name in enumerate(decision.ontology.class_names)}
    stages = {"decide": tally.seconds, "export": seconds - tally.seconds}
    return RunSummary(out, decision.store.run, states, per_class, failed, 0, seconds, stages, datasets, notes)


def export_run(
    run: Path | str,
    format: str,  # noqa: A002 - the word of the command line
    out: Path | str,
    config: ExportConfig | None = None,
    *,
    images: Path | str | None = None,
) -> DatasetSummary:
    """Write the labels as they were decided last into another folder or format; `images` as in `redecide`."""
    run = find_run(Path(run))
    with RunLock(run):
        decision = Decision.of(run, None, None, images)
        return decision.export(format, Path(out), config or decision.last.export, Tally())


def last_settings(run: Path | str) -> tuple[DecideConfig, ExportConfig]:
    """The thresholds, and the formats and split, that were used last in this run."""
    last = LastDecision.of(Store(Path(run)))
    return last.decide, last.export


def decided_labels(run: Path | str, images: Path | str | None = None) -> tuple[Ontology, Iterator[tuple[ImageRecord, Labels]]]:
    """The labels as they were decided last: the ontology, and each image that was seen with its labels, in the order of ids."""
    decision = Decision.of(run, None, None, images)
    return decision.ontology, decision.labelled(Tally())


def build_worker(config: LabelConfig, ontology: Ontology) -> SeeWorker:
    """A worker for images that belong to no run: `look_at_one` shows it one."""
    refuse_impossible(config, ontology)
    return worker_type_of(config)(worker_spec(config, ontology))


def look_at_one(image_rgb: RgbImage, worker: SeeWorker, ontology: Ontology, config: DecideConfig) -> Labels:
    """The labels of one upright RGB image, by a worker that was built for the prompts of this ontology."""
    return decide(worker.look_at(image_rgb), ontology, config, image_rgb.shape[1], image_rgb.shape[0])


def _report(run: Path) -> tuple[Path | None, list[str]]:
    """The page of the run, or why there is none: a picture of the labels must never cost the labels."""
    try:
        from autodistill_grounded_sam.reporting import write_report  # here: nobody else needs its template engine

        return write_report(run).path, []
    except Exception as error:  # whatever it is, hours of looking and the dataset are whole
        logger.warning("no report was written", exc_info=not isinstance(error, GroundedSamError))
        return None, [f"no report was written: {error}; `grounded-sam report {run.parent}` tries again"]


def default_out(images: Path | str) -> Path:
    """Where autodistill puts the dataset of a folder: beside it, `_labeled` after its name."""
    if is_remote(images):
        raise ConfigError(f"the images are at {images}: say where the dataset goes on this machine (output folder, --out)")
    folder = Path(os.path.abspath(images))  # noqa: PTH100 - not resolve(): beside a link, not beside what it points to
    return folder.with_name(f"{folder.name}_labeled")


def _check_formats(out: Path, config: LabelConfig) -> None:
    """What a writer would refuse is refused now, not after hours of looking."""
    last = LastDecision.of(Store(out)) if (out / "run" / "run.json").is_file() else LastDecision()
    for name in dict.fromkeys(config.export.formats):
        writer = plugins.find("formats", name).load_class()
        check_place(writer, last.place(out, name, config.export.formats[0]), has_masks=config.see.masks != "none")


def _listed(images: Path, config: SeeConfig, extension: str | None, progress: Progress | None) -> Folder:
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if progress is not None and time.monotonic() - said > SAID_SECONDS:
            said = time.monotonic()
            progress.message(f"listing {images}: {done} of {total} files")

    if progress is not None:
        progress.message(f"listing {images}")
    scanned = scan(images, extension=extension, max_megapixels=config.max_megapixels, progress=tell)
    return Folder(images, scanned.images, [FailedLine(failed.id, failed.reason, failed.detail) for failed in scanned.failed])


def _require_same_folder(folder: Folder, run: Path) -> None:
    """A run goes on with its own images, wherever they are now; raises WrongRunError for a folder that shares none with it."""
    if not (run / "images.parquet").is_file():
        return
    store = Store(run)
    digests = set(store.digests().values())
    if digests and not any(image.digest in digests for image in folder.images):
        raise WrongRunError(
            f"{run} holds the {len(digests)} images of {store.images_root}, and none of them is in {folder.root}: "
            "give another --out, or the dataset would be replaced"
        )


def _look(
    store: StoreWriter,
    config: LabelConfig,
    ontology: Ontology,
    progress: Progress | None,
    stages: dict[str, float],
    notes: list[str],
) -> int:
    """Plan, leave out what is done, and look at the rest; the number of images looked at. Fills `stages` and `notes`."""
    worker_type, spec = worker_type_of(config), worker_spec(config, ontology, store.info["prompt_groups"])
    if progress is not None:
        segmenter = "" if config.see.masks == "none" else f" and {config.see.segmenter}"
        progress.message(f"loading {config.see.detector}{segmenter}")
    started = time.perf_counter()
    worker = planner_of(config, worker_type, spec)
    stages["load"] = time.perf_counter() - started
    plan = plan_batches(store.todo, store.batch_size, store.part_images, worker.resized_size)
    left = [batch for batch in plan if (batch.window, batch.number) not in store.done]
    by_first = {batch.images[0].id: batch for batch in left}
    count = sum(len(batch.images) for batch in left)
    logger.info("%d of %d images are left to look at", count, len(store.todo))
    if progress is not None:
        progress.total(count)
    started = time.perf_counter()
    full = 0
    for sightings in engine_of(config, worker).run(worker_type, spec, (batch.images for batch in left)):
        batch = by_first[sightings[0].image.id]
        store.add(batch.window, batch.number, sightings)
        full += sum(one.candidates is not None and len(one.candidates) == config.see.max_candidates for one in sightings)
        if progress is not None:
            progress.advance(len(sightings), _class_counts(sightings, ontology, config.decide))
    stages["see"] = time.perf_counter() - started
    stages.update(worker.seconds)
    if full:
        notes.append(f"{full} images hold max_candidates={config.see.max_candidates} candidates: weaker ones may be left out")
    return count


def _class_counts(sightings: Sequence[Sighting], ontology: Ontology, config: DecideConfig) -> Mapping[str, int]:
    seen = [(one.candidates, one.image.width, one.image.height) for one in sightings if one.candidates is not None]
    decided = decide_many(seen, ontology, config)
    return Counter(ontology.class_names[class_id] for labels in decided for class_id in labels.class_id.tolist())
