"""`check`: labels of a dataset that are probably wrong, the surest first, by models that never saw them.

`check_dataset` is the whole story: read, predict (or take predictions), compare, write.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.check.evidence import PRIOR
from autodistill_grounded_sam.check.scenes import Scene
from autodistill_grounded_sam.check.suspicions import KINDS, Suspicion, suspicions_of
from autodistill_grounded_sam.cross_fitting import CrossFit, OnFigures, boxes_of, cross_fitted, write_coco
from autodistill_grounded_sam.datasets import dataset_class_names, is_yolo, read_dataset
from autodistill_grounded_sam.decisions import Decision
from autodistill_grounded_sam.errors import ConfigError, DatasetError, ImageReadError
from autodistill_grounded_sam.evaluate.matching import class_key, match_names
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.files import disk_errors, write_whole
from autodistill_grounded_sam.types import DatasetImage, Int32

FILE = "suspicions.jsonl"
SEEN = "predictions.json"  # what the folds saw: corrected labels can be checked against it at once
LIKELY = 0.5  # a suspicion from which a label is more likely wrong than right
FIRST = 10  # lines that are shown at once
_SHOWN = 3  # of names in a note


@dataclass(frozen=True)
class CheckResult:
    """`suspicions` are the lines of `file`, the surest first: all that speaks against a label of the `labels` in `images`.

    `likely` counts those by kind that are more likely wrong than right, `all_of` all of them.
    """

    dataset: Path
    file: Path
    images: int
    labels: int
    suspicions: Sequence[Mapping[str, Any]]
    likely: Mapping[str, int]
    all_of: Mapping[str, int]
    notes: Sequence[str] = ()


def check_dataset(
    dataset: Path | str,
    *,
    images: Path | str | None = None,
    out: Path | str | None = None,
    predictions: Path | str | None = None,
    ontology: Any = None,
    settings: CrossFit | None = None,
    progress: pipeline.Progress | None = None,
    on_figures: OnFigures | None = None,
) -> CheckResult:
    """Find suspicious labels in `dataset`: a YOLO dataset (its folder, or data.yaml), or a COCO json (or a folder of such).

    Models learn on all folds but one and predict on that one, after `settings`; `ontology` holds their prompts (by default the
    class names). `predictions` are taken instead if given: a dataset with scores, or a run, made by a model that never saw these
    labels. The list is `out/suspicions.jsonl` (`<dataset's folder>_check` by default); beside it lie the folds, which are not
    done again, and `predictions.json`, all that they saw. Raises DatasetError, ConfigError, OntologyError, and what
    `adapt_weights` and `UltralyticsTarget.train` raise.
    """
    dataset = Path(dataset)
    target = default_out(dataset) if out is None else Path(out)
    notes: list[str] = []
    names, rows = _labels_of(dataset, notes)
    if predictions is not None:
        if ontology is not None or settings is not None:
            raise ConfigError("with predictions nothing is learnt: leave the ontology and the settings of learning out")
        seen = _given(Path(predictions), rows, names, notes)
    else:
        rows = _readable(_with_files(rows, dataset, images), notes)
        seen = _learnt(rows, names, ontology, settings or CrossFit(), target / "folds", progress, on_figures)
    pairs = [(row, sight) for row, sight in zip(rows, seen, strict=True) if sight is not None]
    if not pairs:
        raise DatasetError(f"none of the images of {dataset} was looked at: there is nothing to compare its labels with")
    if len(pairs) < len(rows):
        left_out = [row.name for row, sight in zip(rows, seen, strict=True) if sight is None]
        notes.append(f"{len(left_out)} image(s) without predictions are left out: {_some(left_out)}")
    scenes = [Scene.of(row, sight, len(names)) for row, sight in pairs]
    lines = [_line(one, pairs[one.scene][0].name, names) for one in suspicions_of(scenes) if one.suspicion > PRIOR]
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
    if predictions is None:
        write_coco(target / SEEN, [replace(sight, name=row.name) for row, sight in pairs], names)
    write_whole(target / FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    every = Counter(line["kind"] for line in lines)
    likely = Counter(line["kind"] for line in lines if line["suspicion"] >= LIKELY)
    return CheckResult(
        dataset, target / FILE, len(pairs), sum(len(scene.xyxy) for scene in scenes), lines,
        {kind: likely[kind] for kind in KINDS}, {kind: every[kind] for kind in KINDS}, notes,
    )  # fmt: skip


def default_out(dataset: Path) -> Path:
    """`<folder of the dataset>_check`, beside that folder."""
    home = _home(dataset).resolve()
    return home.with_name(f"{home.name}_check")


def check_to_json(result: CheckResult) -> dict[str, Any]:
    """The result as plain data for `json.dumps`, with the `first` lines alone: the others are in the file."""
    facts = {**asdict(replace(result, suspicions=())), "dataset": str(result.dataset), "file": str(result.file)}
    del facts["suspicions"]
    return facts | {"first": list(result.suspicions[:FIRST])}


def _line(one: Suspicion, image: str, names: Sequence[str]) -> dict[str, Any]:
    """A line of the list; what its kind has not is None."""

    def box(xyxy: Any) -> list[float] | None:
        return None if xyxy is None else [round(float(value), 2) for value in xyxy]

    def name(class_id: int | None) -> str | None:
        return None if class_id is None else names[class_id]

    return {
        "image": image, "kind": one.kind, "suspicion": round(one.suspicion, 4), "label": one.row, "class": name(one.class_id),
        "xyxy": box(one.xyxy), "proposed_class": name(one.proposed_class), "proposed_xyxy": box(one.proposed_xyxy),
        "score": None if one.score is None else round(one.score, 4),
    }  # fmt: skip


def _labels_of(dataset: Path, notes: list[str]) -> tuple[list[str], list[DatasetImage]]:
    """The class names, those that differ in case or underscores as one, and the labelled images; YOLO's are named by their path
    in the dataset, since two splits may hold one file name."""
    if not dataset.exists():
        raise DatasetError(f"there is nothing at {dataset}; expected a YOLO dataset (a folder with data.yaml) or a COCO json")
    bad: Counter[str] = Counter()
    rows = list(read_dataset(dataset, on_bad=lambda image, reason, detail: bad.update([f"{reason} ({detail})"])))
    if bad:
        first = next(iter(bad))
        notes.append(f"{bad.total()} annotation(s) or image(s) of {dataset} cannot be used and are left out, for one: {first}")
    own_names = dataset_class_names(dataset)
    spelled = {class_key(name): name for name in reversed(own_names)}
    names = [name for name in own_names if spelled[class_key(name)] == name]
    names = list(dict.fromkeys(names))
    rows = [_renumbered(row, _numbers(own_names, names)) for row in rows]
    if is_yolo(dataset):
        home = _home(dataset).resolve()
        rows = [replace(row, name=_below(row.path, home)) for row in rows if row.path is not None]
    if not any(len(row.class_id) for row in rows):
        raise DatasetError(f"{dataset} holds no label to check")
    return names, rows


def _learnt(
    rows: Sequence[DatasetImage],
    names: Sequence[str],
    ontology: Any,
    settings: CrossFit,
    work: Path,
    progress: pipeline.Progress | None,
    on_figures: OnFigures | None,
) -> list[DatasetImage | None]:
    """What models that learnt the other folds see in each image."""
    words = Ontology.load({class_key(name): name for name in names} if ontology is None else ontology)
    to_words = _numbers(names, words.class_names)
    absent = [name for name, number in zip(names, to_words, strict=True) if number < 0]
    if absent:
        raise ConfigError(
            f"the ontology has no class {', '.join(map(repr, absent))} of the dataset; it names {', '.join(words.class_names)}"
        )
    if len(rows) < settings.folds:
        raise DatasetError(f"{len(rows)} image(s) cannot be dealt into {settings.folds} folds; label more, or give predictions")
    own = [_renumbered(row, to_words) for row in rows]
    seen = cross_fitted(own, words, settings, work, progress=progress, on_figures=on_figures)
    back = _numbers(words.class_names, names)
    return [None if sight is None else _renumbered(sight, back) for sight in seen]


def _given(source: Path, rows: Sequence[DatasetImage], names: Sequence[str], notes: list[str]) -> list[DatasetImage | None]:
    """The predictions of a run, or of a dataset with scores, for each image."""
    if not source.exists():
        raise DatasetError(f"there are no predictions at {source}; expected a run, or a dataset with scores (COCO or YOLO)")
    if any((folder / "run.json").is_file() for folder in (source, source / "run")):
        class_names, found = _of_run(source)
    else:
        class_names, found = dataset_class_names(source), list(read_dataset(source))
        without = [row.name for row in found if len(row.class_id) and row.score is None]
        if without:
            raise DatasetError(f"the predictions {source} need a score for every box; {_some(without)} has boxes without one")
    table = _numbers(class_names, names)
    strange = [name for name, number in zip(class_names, table, strict=True) if number < 0]
    if strange:
        notes.append(f"classes of the predictions that the dataset does not know are left out: {_some(strange)}")
    place_of = match_names([row.name for row in rows], [row.name for row in found])
    if not place_of:
        raise DatasetError(
            f"none of the {len(rows)} images of the dataset is in {source}: the dataset names {_some([r.name for r in rows])}, "
            f"the predictions {_some([row.name for row in found])}"
        )
    seen = [_renumbered(found[place_of[place]], table) if place in place_of else None for place in range(len(rows))]
    for row, sight in zip(rows, seen, strict=True):
        if sight is not None and (sight.width, sight.height) != (row.width, row.height):
            raise DatasetError(
                f"{row.name} is {row.width}x{row.height} in the dataset, but {sight.width}x{sight.height} in {source}: boxes of "
                "two frames cannot be compared"
            )
    return seen


def _of_run(run: Path) -> tuple[Sequence[str], list[DatasetImage]]:
    """Every candidate that a run stored, not only what was decided to be a label."""
    decision = Decision.untrusted(run, None, None)
    found = []
    for sighting in decision.store.sightings():
        if sighting.candidates is not None:
            image = sighting.image
            class_id, xyxy, score = boxes_of(sighting.candidates, decision.ontology)
            found.append(DatasetImage(None, image.id, "train", image.width, image.height, class_id, xyxy, None, score))
    return decision.ontology.class_names, found


def _with_files(rows: Sequence[DatasetImage], dataset: Path, images: Path | str | None) -> list[DatasetImage]:
    """Every image with the path of its file; all are looked for before a model learns."""
    found, missing = [], []
    for row in rows:
        places = [_home(dataset) / "images" / row.name] if images is None else [Path(images) / row.name]
        path = next((path for path in (row.path if images is None else None, *places) if path and path.is_file()), None)
        if path is None:
            missing.append(row.name)
        else:
            found.append(replace(row, path=path))
    if missing:
        raise DatasetError(
            f"{len(missing)} image(s) of {dataset} are not there: {_some(missing)}; say where they are with --images, or give "
            "--predictions, which need no image"
        )
    return found


def _readable(rows: Sequence[DatasetImage], notes: list[str]) -> list[DatasetImage]:
    """The images that can be read, of the size that the labels say."""
    kept, problems = [], []
    for row in rows:
        try:
            height, width = read_image(row.path).shape[:2]  # type: ignore[arg-type]  # `_with_files` found all
        except ImageReadError as error:
            problems.append(f"{row.name}: {error}")
            continue
        if (width, height) == (row.width, row.height):
            kept.append(row)
        else:
            problems.append(f"{row.name} is {width}x{height} upright, its labels are of {row.width}x{row.height}")
    if problems:
        notes.append(f"{len(problems)} image(s) are left out: {_some(problems)}")
    return kept


def _numbers(names: Sequence[str], among: Sequence[str]) -> Int32:
    """The class number in `among` of each of `names`, -1 for none."""
    place = {class_key(name): number for number, name in enumerate(among)}
    return np.array([place.get(class_key(name), -1) for name in names], np.int32)


def _renumbered(row: DatasetImage, table: Int32) -> DatasetImage:
    """The boxes of an image with their classes numbered by `table`; those of -1 are left out."""
    class_id = table[row.class_id] if len(row.class_id) else row.class_id
    kept = class_id >= 0
    return replace(
        row, class_id=class_id[kept], xyxy=row.xyxy[kept], rle=None,
        score=None if row.score is None else row.score[kept], crowd=None if row.crowd is None else row.crowd[kept],
    )  # fmt: skip


def _home(dataset: Path) -> Path:
    return dataset if dataset.is_dir() else dataset.parent


def _below(path: Path, home: Path) -> str:
    return path.resolve().relative_to(home).as_posix() if path.resolve().is_relative_to(home) else path.as_posix()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
