"""Predictions for every image of a labelled dataset by a model that never saw its labels: K folds, one model each.

`cross_fitted` is the whole story. A fold that is done leaves a COCO json with scores, and is not done again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import pipeline, plugins
from autodistill_grounded_sam.adapting import adapt_weights
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.decisions import require_apart
from autodistill_grounded_sam.distill.students import predict_folder
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.files import write_json, write_whole
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.types import Candidates, DatasetImage, ImageRecord

logger = logging.getLogger(__name__)

FLOOR = 0.05  # predictions below it say nothing: neither that an object is there, nor that a label is right
VALIDATED = 4  # ultralytics wants a validation split; nothing is chosen by it

OnFigures = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class CrossFit:
    """How the folds learn. `student` is a target of `distill` (`yolov8n.yaml`), None for the `detector` adapted to the labels;
    `length` is its epochs, or the steps of the adaptation (None: what `distill` and `adapt` take). `side_px` is of the input."""

    folds: int = 2
    detector: str = "mini"
    student: str | None = None
    length: int | None = None
    side_px: int | None = None
    turns: bool = False
    seed: int = 0
    device: str = "auto"
    offline: bool = False

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds must be 2 or more, so that no model judges what it learnt from; got {self.folds}")


def fold_of(rows: Sequence[DatasetImage], folds: int) -> list[int]:
    """The fold of each image: images of one rarest class are dealt evenly, in the order of a digest of their names."""
    counts = Counter(class_id for row in rows for class_id in row.class_id.tolist())

    def key(place: int) -> tuple[int, int, str]:
        rarest = min(set(rows[place].class_id.tolist()), key=lambda k: (counts[k], k), default=-1)
        return counts[rarest], rarest, hashlib.sha256(rows[place].name.encode()).hexdigest()

    fold = [0] * len(rows)
    for number, place in enumerate(sorted(range(len(rows)), key=key)):
        fold[place] = number % folds
    return fold


def cross_fitted(
    rows: Sequence[DatasetImage],
    words: Ontology,
    settings: CrossFit,
    work: Path,
    *,
    progress: pipeline.Progress | None = None,
    on_figures: OnFigures | None = None,
) -> list[DatasetImage | None]:
    """What the folds' models see in each of the `rows`, in their order, with scores; None for an image that could not be seen.

    `class_id` of both numbers `words`' classes. Every row has a `path` that can be read. All files lie below `work`, in a folder
    of these labels and settings.
    """
    require_apart(_root(rows), work)
    home = work / _digest(rows, words, settings)
    seen: dict[Path, DatasetImage] = {}
    fold = fold_of(rows, settings.folds)
    for number in range(settings.folds):
        place = home / f"fold-{number}"
        file = place / "predictions.json"
        if not file.is_file():
            if progress is not None:
                progress.message(f"fold {number + 1} of {settings.folds}: learning from the others")
            place.mkdir(parents=True, exist_ok=True)
            learn = [row for row, other in zip(rows, fold, strict=True) if other != number]
            mine = [row for row, own in zip(rows, fold, strict=True) if own == number]
            fit = _adapted if settings.student is None else _student
            write_coco(file, fit(learn, mine, words, settings, place, progress, on_figures), words.class_names)
        seen |= {Path(row.name): row for row in read_coco(file)}
    return [seen.get(_path(row)) for row in rows]


def write_coco(file: Path, rows: Sequence[DatasetImage], names: Sequence[str]) -> None:
    """Boxes (with their scores, where there are any) as a COCO json."""
    annotations: list[dict[str, Any]] = []
    for image_id, row in enumerate(rows):
        for place, (x1, y1, x2, y2) in enumerate(row.xyxy.astype(float).tolist()):
            annotation = {
                "id": len(annotations), "image_id": image_id, "category_id": int(row.class_id[place]),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(row.crowd is not None and bool(row.crowd[place])),
            }  # fmt: skip
            annotations.append(annotation if row.score is None else annotation | {"score": float(row.score[place])})
    images = [{"id": number, "file_name": row.name, "width": row.width, "height": row.height} for number, row in enumerate(rows)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    write_json(file, {"images": images, "annotations": annotations, "categories": categories})


def boxes_of(candidates: Candidates, words: Ontology) -> tuple[Any, Any, Any]:
    """`class_id`, `xyxy` and `score` of every candidate once for each class that it may be, by the best prompt of the class."""
    by_class = np.zeros((len(candidates), len(words.class_names)), np.float32)
    for prompt, class_id in enumerate(words.prompt_class.tolist()):
        if class_id >= 0:
            by_class[:, class_id] = np.maximum(by_class[:, class_id], candidates.scores[:, prompt])
    box, class_id = np.nonzero(by_class >= FLOOR)
    return class_id.astype(np.int32), candidates.xyxy[box], by_class[box, class_id]


def _adapted(
    learn: Sequence[DatasetImage],
    mine: Sequence[DatasetImage],
    words: Ontology,
    settings: CrossFit,
    place: Path,
    progress: pipeline.Progress | None,
    on_figures: OnFigures | None,
) -> list[DatasetImage]:
    """Adapt the detector to the labels of other folds, and look at this one."""
    root = _root([*learn, *mine])
    labels = place / "learnt.json"
    write_coco(labels, [replace(row, name=str(_path(row))) for row in learn], words.class_names)
    weights = adapt_weights(
        root, labels, words, place / "weights", detector=settings.detector, steps=settings.length, seed=settings.seed,
        turns=settings.turns, shorter_side_px=settings.side_px, device=settings.device, offline=settings.offline,
        on_look=on_figures,
    ).weights  # fmt: skip
    config = LabelConfig(
        see=SeeConfig(detector=str(weights), masks="none", floor=FLOOR),
        run=RunConfig(device=settings.device, offline=settings.offline),
    )
    wanted = {_path(row) for row in mine}

    def only(found: Sequence[ImageRecord]) -> list[ImageRecord]:
        return [image for image in found if image.path.resolve() in wanted]

    run = pipeline.see(root, words, place / "seen", config, only=only, progress=progress).run
    seen = {
        sighting.image.path.resolve(): boxes_of(sighting.candidates, words)
        for sighting in Store(run).sightings()
        if sighting.candidates is not None
    }
    return [_row(row, *seen[_path(row)]) for row in mine if _path(row) in seen]


def _student(
    learn: Sequence[DatasetImage],
    mine: Sequence[DatasetImage],
    words: Ontology,
    settings: CrossFit,
    place: Path,
    progress: pipeline.Progress | None,
    on_figures: OnFigures | None,
) -> list[DatasetImage]:
    """Train a student on the labels of other folds, and let it predict on this one."""
    length = {} if settings.length is None else {"epochs": settings.length}
    side = {} if settings.side_px is None else {"imgsz": settings.side_px}
    target = plugins.load("targets", str(settings.student), offline=settings.offline or None)
    trained = target.train(
        _yolo_boxes(place / "learnt", learn, words.class_names), out=place / "student", **length, **side, val=False,
        seed=settings.seed, device=settings.device, on_epoch=on_figures,
    )  # fmt: skip
    names = words.class_names
    seen = predict_folder(trained.weights, [_path(row) for row in mine], confidence=FLOOR / 5, device=settings.device)
    return [
        _row(row, np.array([names.index(name) for name in one.class_names], np.int32), one.xyxy, one.scores)
        for row, one in zip(mine, seen, strict=True)
    ]


def _yolo_boxes(folder: Path, rows: Sequence[DatasetImage], names: Sequence[str]) -> Path:
    """A YOLO dataset of boxes that points at the images where they are: numbered links, since names may come twice."""
    import yaml

    for split, own in (("train", rows), ("valid", rows[:VALIDATED])):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(own):
            link = folder / split / "images" / f"{number:06}{_path(row).suffix.lower()}"
            if not link.exists():
                link.symlink_to(_path(row))
            low, high = row.xyxy[:, :2], row.xyxy[:, 2:]
            shares = np.concatenate([(low + high) / 2, high - low], axis=1) / np.array([row.width, row.height] * 2)
            lines = [
                f"{class_id} " + " ".join(f"{value:.6f}" for value in box) + "\n"
                for class_id, box in zip(row.class_id.tolist(), shares.clip(0, 1).tolist(), strict=True)
            ]
            write_whole(folder / split / "labels" / f"{number:06}.txt", "".join(lines).encode())
    content = {"path": str(folder.resolve()), "train": "train/images", "val": "valid/images", "names": list(names)}
    write_whole(folder / "data.yaml", yaml.safe_dump(content).encode())
    return folder


def _row(row: DatasetImage, class_id: Any, xyxy: Any, score: Any) -> DatasetImage:
    return DatasetImage(row.path, str(_path(row)), row.split, row.width, row.height, class_id, xyxy, None, score)


def _path(row: DatasetImage) -> Path:
    if row.path is None:
        raise ConfigError(f"the file of {row.name} is not known; say where the images are")
    return row.path.resolve()


def _root(rows: Sequence[DatasetImage]) -> Path:
    """The folder below which all files are."""
    return Path(os.path.commonpath([_path(row).parent for row in rows]))


def _digest(rows: Sequence[DatasetImage], words: Ontology, settings: CrossFit) -> str:
    """Of all that the predictions come from; the images by name and size."""
    total = hashlib.sha256(repr((words.document(), sorted(asdict(settings).items()))).encode())
    for row in rows:
        total.update(repr((row.name, row.width, row.height)).encode() + row.class_id.tobytes() + row.xyxy.tobytes())
    return total.hexdigest()[:12]
