"""A labelled dataset opened as a run: to be reviewed, completed and exported like one that this tool labelled.

The labels become the run's candidates, with score 1 where the dataset has none, and a decision that keeps them all: nothing is
cleaned, merged or thresholded. The store's records and the reviews stay the single truth; the dataset itself is not touched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from autodistill_grounded_sam.config import NEVER, DecideConfig, RunConfig
from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.decisions import require_apart, write_splits
from autodistill_grounded_sam.errors import DatasetError, ImageReadError
from autodistill_grounded_sam.export.writing import Written, masks_inside
from autodistill_grounded_sam.images import MAX_MEGAPIXELS, FailedImage, FoundImage, look_at, printable, read_image
from autodistill_grounded_sam.masks import areas, boxes_xyxy, encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology, sanitize
from autodistill_grounded_sam.pipeline import Progress, RunSummary, decided_labels, redecide
from autodistill_grounded_sam.similar import dhash
from autodistill_grounded_sam.store.parts import SCORE_FLOOR
from autodistill_grounded_sam.store.store import FailedLine, Folder, StoreWriter
from autodistill_grounded_sam.types import Candidates, DatasetImage, Float32, ImageRecord, Labels, Rle, Sighting, State, Status

AT_ONCE = 256  # images whose labels wait in memory for a part of the store


@dataclass(frozen=True)
class _Added:
    """The labels of another run, by image digest: of the classes that the dataset lacks."""

    class_names: tuple[str, ...] = ()
    labels: Mapping[str, Labels] | None = None  # class ids as in `class_names` of the whole import

    def of(self, image: ImageRecord) -> Labels | None:
        return None if self.labels is None else self.labels.get(image.digest)


def import_dataset(
    dataset: Path | str,
    out: Path | str,
    *,
    add: Path | str | None = None,
    images: Path | str | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Open a YOLO, COCO, VOC, LabelMe or CVAT dataset as the run `out/run`; nothing is exported yet.

    `add` names a run over the same images (told by their bytes): its labels, as they were decided last, are taken for the classes
    that the dataset does not have. `images` is where the images are, if not beside their labels. The dataset's own splits are
    kept by later exports. Run again after an interruption, it goes on. Raises DatasetError for a dataset that cannot be read,
    WrongRunError if `out` holds another import: labels that changed belong to a new run.
    """
    dataset, out = Path(dataset), Path(out)
    notes: list[str] = []
    rows = _read(dataset, notes)
    row_of = _files_of(rows, dataset, images, notes)
    root = Path(os.path.commonpath([path.parent for path in row_of]))
    require_apart(root, out)
    if progress is not None:
        progress.message(f"reading {len(rows)} images below {root}")
    folder = _folder(root, row_of)
    own_names = [name.strip() for name in dataset_class_names(dataset)]  # no class can have blanks around its name
    added = _labels_to_add(add, own_names, {image.digest for image in folder.images}, notes)
    if without := _without_masks(folder.images, row_of, added):
        notes.append(f"{without} added label(s) have no mask here: the dataset's own labels in their images are boxes")
    names = [*own_names, *added.class_names]
    words = _words(names, dataset)
    scored = added.labels is not None or any(row.score is not None for row in rows)
    labels = {"name": f"the labels of {dataset.name}", "sha256": _digest(rows, added), "scores": scored}
    identity = {"prompts": list(words.prompts), "detector": labels, "segmenter": None, "see": {}}
    seconds = RunConfig().part_seconds
    with StoreWriter(out / "run", identity, folder, batch_size=AT_ONCE, part_images=AT_ONCE, part_seconds=seconds) as store:
        if progress is not None:
            progress.total(len(store.todo))
        for window, some in enumerate(_in_windows(store.todo)):
            if (window, 0) not in store.done:
                store.add(window, 0, [_sighting(image, row_of[image.path], added.of(image), len(names)) for image in some])
            if progress is not None:
                progress.advance(len(some), Counter(names[k] for one in some for k in row_of[one.path].class_id.tolist()))
        store.note({"imported": str(dataset.absolute()), "added": None if add is None else str(Path(add).absolute())})
        write_splits(out / "run", {image.id: row_of[image.path].split for image in folder.images})
    summary = redecide(out / "run", keep_all(scored=scored), words)
    return replace(summary, looked_at=len(folder.images), notes=[*notes, *summary.notes])


def _words(names: Sequence[str], dataset: Path) -> Ontology:
    """A class a name, in the order of the dataset; what cannot be a class is refused before anything is written.

    Nothing is asked of a model, so a name that cannot be a prompt of its own (`+`, or `cat` beside `Cat`) stands for a number.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(f"{dataset} names the class {twice[0]!r} twice: give each class a name of its own")
    asked = [sanitize(name) if any(map(str.isalnum, name)) else "" for name in names]
    counts = Counter(asked)
    numbers = (number for number in count(1) if f"class {number}" not in counts)
    prompts = [one if one and counts[one] == 1 else f"class {next(numbers)}" for one in asked]
    return Ontology(tuple(ClassSpec(name, (prompt,)) for name, prompt in zip(names, prompts, strict=True)))


def keep_all(*, scored: bool) -> DecideConfig:
    """The decision that changes nothing. Thresholds of 0 only where there are scores: else there is nothing to set them on."""
    usual = DecideConfig()
    return DecideConfig(
        box_threshold=0.0 if scored else usual.box_threshold,
        text_threshold=0.0 if scored else usual.text_threshold,
        duplicate_iou=NEVER,
        duplicate_containment=NEVER,
        island_fraction=0.0,
        hole_fraction=0.0,
        box_from="detector",
    )


def _read(dataset: Path, notes: list[str]) -> list[DatasetImage]:
    """Every image of the dataset with the labels that a run can hold; whatever is left out or made another is noted."""
    faults: list[tuple[str, str, str]] = []
    rows = list(read_dataset(dataset, on_bad=lambda *fault: faults.append(fault), test=True))
    if not rows:
        raise DatasetError(f"the dataset {dataset} holds no image that can be read")
    crowds = sum(int(row.crowd.sum()) for row in rows if row.crowd is not None)
    boxed: list[int] = []
    rows = [_usable(row, faults, boxed) for row in rows]
    if faults:
        notes.append(f"{len(faults)} label(s) or image(s) could not be read and are left out, first {': '.join(faults[0])}")
    if crowds:
        notes.append(f"{crowds} crowd region(s) are left out: they are not single objects")
    if sum(boxed):
        notes.append(f"{sum(boxed)} label(s) without a mask in images of masks: the mask of each is its box filled")
    if tests := sum(row.test for row in rows):
        notes.append(f"{tests} image(s) of a test split count as valid: a run has two sides")
    return rows


def _usable(row: DatasetImage, faults: list[tuple[str, str, str]], boxed: list[int]) -> DatasetImage:
    """The labels of one image that a run can hold: those with a box that has an area inside the image, and a score in 0..1.

    Crowd regions go. Where some have a mask, those that have none, or one of no pixel, get their box filled: `boxed` counts them.
    """
    count = len(row.class_id)
    rles = row.some_rle if row.rle is None else row.rle
    score = np.ones(count, np.float32) if row.score is None else row.score
    limits = np.array([row.width, row.height] * 2, np.float32)
    xyxy = row.xyxy.clip(0, limits)
    has_mask = np.zeros(count, np.bool_)
    if rles is not None:
        held = np.array([rle is not None for rle in rles], np.bool_)
        own = [rle for rle in rles if rle is not None]
        has_mask[held] = areas(own) > 0
        lost = has_mask[held] & ~(xyxy[held, 2:] > xyxy[held, :2]).all(axis=1)  # of a label with a mask the mask tells the box
        xyxy[np.flatnonzero(held)[lost]] = boxes_xyxy(own)[lost]
    good = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & (score >= 0) & (score <= 1)  # False for nan as well
    crowd = np.zeros(count, np.bool_) if row.crowd is None else row.crowd
    for place in np.flatnonzero(~good & ~crowd).tolist():
        what = f"label {place + 1}, box {row.xyxy[place].round(2).tolist()}, score {score[place]:g}"
        faults.append((row.name, "no object", f"{what}: a box needs an area inside the image, a score must be in 0..1"))
    kept = np.flatnonzero(good & ~crowd)
    masks: tuple[Rle, ...] | None = None if len(kept) else ()
    if rles is not None and (row.rle is not None or has_mask[kept].any()):
        nothing = encode_mask(np.zeros((row.height, row.width), np.bool_))
        kept_rles = [rle if has_mask[place] and (rle := rles[place]) is not None else nothing for place in kept.tolist()]
        boxed.append(int((~has_mask[kept]).sum()))
        masks = tuple(_boxes_filled(kept_rles, xyxy[kept], row.width, row.height))
    scores = None if row.score is None else score[kept]
    return replace(row, class_id=row.class_id[kept], xyxy=xyxy[kept], rle=masks, score=scores, crowd=None, some_rle=None)


def _boxes_filled(rles: Sequence[Rle], xyxy: Float32, width: int, height: int) -> list[Rle]:
    """The masks of an image, the box filled for those of no pixel."""
    return masks_inside(Written("train", "", width, height, [], xyxy.tolist(), list(rles)))


def _folder(root: Path, files: Iterable[Path]) -> Folder:
    """The dataset's images below a folder, and why any of them cannot be used; other files there are not looked at."""
    names = [path.relative_to(root).as_posix() for path in files]
    found = [FoundImage(printable(name), root, "" if printable(name) == name else name) for name in names]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda image: look_at(image, MAX_MEGAPIXELS), found))
    failed = [FailedLine(one.id, one.reason, one.detail) for one in results if isinstance(one, FailedImage)]
    return Folder(root, [one for one in results if isinstance(one, ImageRecord)], failed)


def _files_of(
    rows: Sequence[DatasetImage], dataset: Path, images: Path | str | None, notes: list[str]
) -> dict[Path, DatasetImage]:
    """Every image by its file, absolute; all are looked for before anything is written. Of a file that is listed twice the labels
    of the first entry are taken."""
    beside = dataset if dataset.is_dir() else dataset.parent
    found: dict[Path, DatasetImage] = {}
    missing, twice = [], []
    for row in rows:
        own = [] if row.path is None or images is not None else [row.path]
        folders = (beside, beside / "images") if images is None else (Path(images),)
        path = next((path for path in chain(own, _places(row.name, folders)) if path.is_file()), None)
        if path is None:
            missing.append(row.name)
            continue
        file = Path(os.path.abspath(path))  # noqa: PTH100 - links stay: the id is the name in the dataset
        if file in found:
            twice.append(row)
        found.setdefault(file, row)
    if missing:
        count = f"{len(missing)} of {len(rows)} images"
        raise DatasetError(f"{count} of {dataset} are not there, first {missing[0]}: say where they are with --images")
    if twice:
        labels = sum(len(row.class_id) for row in twice)
        notes.append(
            f"{len(twice)} image(s) are listed twice, first {twice[0].name}: {labels} label(s) of later entries are left out"
        )
    return found


def _places(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Where an image may lie: below a folder as it is written, then with fewer and fewer of its own folders, which may be those
    of another machine, Windows' too."""
    yield from (folder / name for folder in folders)
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
    for start in range(len(parts)):
        yield from (folder.joinpath(*parts[start:]) for folder in folders)


def _labels_to_add(run: Path | str | None, own: Sequence[str], digests: set[str], notes: list[str]) -> _Added:
    """What a run labelled in the dataset's images, of the classes that the dataset lacks."""
    if run is None:
        return _Added()
    ontology, labelled = decided_labels(run)
    missing = [name for name in ontology.class_names if name not in own]
    if not missing:
        raise DatasetError(f"the dataset has all classes of {run} already ({', '.join(ontology.class_names)}): nothing to add")
    if len(missing) < len(ontology.class_names):
        same = [name for name in ontology.class_names if name in own]
        notes.append(f"labels of {', '.join(same)} in {run} are left out: the dataset has its own")
    place_of = np.array([len(own) + missing.index(name) if name in missing else -1 for name in ontology.class_names], np.int32)
    found, waiting = {}, 0
    for image, labels in labelled:
        if image.digest in digests:
            waiting += labels.state is State.REVIEW
            kept = place_of[labels.class_id] >= 0
            mine = labels.select(kept) if kept.any() else Labels.nothing()
            found[image.digest] = replace(mine, class_id=place_of[mine.class_id])
    if not found:
        raise DatasetError(f"none of the dataset's {len(digests)} images was labelled in {run}; images are told by their bytes")
    if len(found) < len(digests):
        notes.append(f"{len(digests) - len(found)} image(s) of the dataset were not labelled in {run}: they stay incomplete")
    if waiting:
        notes.append(f"{waiting} image(s) wait for review in {run}: their labels are taken as they are; review them there first")
    return _Added(tuple(missing), found)


def _sighting(image: ImageRecord, row: DatasetImage, added: Labels | None, classes: int) -> Sighting:
    """The labels of one image as candidates: each scores for its own class alone."""
    if (row.width, row.height) != (image.width, image.height):
        detail = f"the image is {image.width}x{image.height} upright, its labels are of {row.width}x{row.height}"
        return Sighting(image, Status.FAILED, None, "labels_do_not_fit", detail)
    try:
        fingerprint = dhash(read_image(image))
    except ImageReadError as error:
        return Sighting(image, Status.FAILED, None, error.reason, error.detail)
    class_id, xyxy, rle = row.class_id, row.xyxy, row.rle
    score = np.ones(len(row.class_id), np.float32) if row.score is None else row.score
    if added is not None and len(added):
        class_id, xyxy = np.concatenate([class_id, added.class_id]), np.concatenate([xyxy, added.xyxy])
        score = np.concatenate([score, added.score])
        rle = _joined_masks(row, added)
    scores = np.zeros((len(class_id), classes), np.float32)
    # A score below the floor is not stored, and a label without any score would be one of the first class.
    scores[np.arange(len(class_id)), class_id] = np.maximum(score, SCORE_FLOOR)
    return Sighting(image, Status.SEEN, Candidates(xyxy.astype(np.float32), scores, rle), dhash=fingerprint)


def _joined_masks(row: DatasetImage, added: Labels) -> tuple[Rle, ...] | None:
    """Those of the dataset as they are; boxes that a run adds to them are filled. Beside boxes the added have no mask."""
    if row.rle is None:
        return None
    if added.rle is not None or not row.rle:
        return None if added.rle is None else (*row.rle, *added.rle)
    nothing = encode_mask(np.zeros((row.height, row.width), np.bool_))
    return (*row.rle, *_boxes_filled([nothing] * len(added), added.xyxy, row.width, row.height))


def _without_masks(images: Iterable[ImageRecord], row_of: Mapping[Path, DatasetImage], added: _Added) -> int:
    """How many added labels lose their mask beside boxes."""
    extra = ((added.of(image), row_of[image.path].rle) for image in images)
    return sum(len(labels) for labels, own in extra if labels is not None and labels.rle is not None and own is None)


def _in_windows(images: Sequence[ImageRecord]) -> Iterator[Sequence[ImageRecord]]:
    return (images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE))


def _digest(rows: Sequence[DatasetImage], added: _Added) -> str:
    """Of all labels, so that a run is known to be of these and no others."""
    digest = hashlib.sha256()

    def take(name: str, labels: Any) -> None:
        masks = None if labels.rle is None else [rle["counts"] for rle in labels.rle]
        score = None if labels.score is None else labels.score.tolist()
        facts = [name, labels.class_id.tolist(), labels.xyxy.tolist(), score, masks]
        digest.update(json.dumps(facts).encode())

    for row in rows:
        take(row.name, row)
    for name, labels in sorted((added.labels or {}).items()):
        take(name, labels)
    return digest.hexdigest()
