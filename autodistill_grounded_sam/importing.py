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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import NEVER, DecideConfig, RunConfig
from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.decisions import require_apart, write_splits
from autodistill_grounded_sam.errors import DatasetError, ImageReadError
from autodistill_grounded_sam.images import MAX_MEGAPIXELS, FailedImage, FoundImage, look_at, printable, read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.pipeline import Progress, RunSummary, decided_labels, redecide
from autodistill_grounded_sam.similar import dhash
from autodistill_grounded_sam.store.store import FailedLine, Folder, StoreWriter
from autodistill_grounded_sam.types import Candidates, DatasetImage, ImageRecord, Labels, Sighting, Status

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
    files = _files_of(rows, dataset, images)
    root = Path(os.path.commonpath([path.parent for path in files]))
    require_apart(root, out)
    row_of = dict(zip(files, rows, strict=True))
    if progress is not None:
        progress.message(f"reading {len(rows)} images below {root}")
    folder = _folder(root, row_of)
    own_names = dataset_class_names(dataset)
    added = _labels_to_add(add, own_names, {image.digest for image in folder.images}, notes)
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
    """A class a name, in the order of the dataset; what cannot be a class is refused before anything is written."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(f"{dataset} names the class {twice[0]!r} twice: give each class a name of its own")
    return Ontology.load({name: name for name in names})


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
    """Every image of the dataset, the labels that cannot be read and COCO's crowd regions left out."""
    faults: list[tuple[str, str, str]] = []
    rows = list(read_dataset(dataset, on_bad=lambda *fault: faults.append(fault)))
    if not rows:
        raise DatasetError(f"the dataset {dataset} holds no image that can be read")
    if faults:
        notes.append(f"{len(faults)} label(s) or image(s) could not be read and are left out, first {': '.join(faults[0])}")
    crowds = sum(int(row.crowd.sum()) for row in rows if row.crowd is not None)
    if crowds:
        notes.append(f"{crowds} crowd region(s) are left out: they are not single objects")
    return rows


def _folder(root: Path, files: Iterable[Path]) -> Folder:
    """The dataset's images below a folder, and why any of them cannot be used; other files there are not looked at."""
    names = [path.relative_to(root).as_posix() for path in files]
    found = [FoundImage(printable(name), root, "" if printable(name) == name else name) for name in names]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda image: look_at(image, MAX_MEGAPIXELS), found))
    failed = [FailedLine(one.id, one.reason, one.detail) for one in results if isinstance(one, FailedImage)]
    return Folder(root, [one for one in results if isinstance(one, ImageRecord)], failed)


def _files_of(rows: Sequence[DatasetImage], dataset: Path, images: Path | str | None) -> list[Path]:
    """The file of every image, absolute; all are looked for before anything is written."""
    found, missing = [], []
    for row in rows:
        places = [row.path, dataset.parent / "images" / row.name] if images is None else [Path(images) / row.name]
        path = next((place for place in places if place is not None and place.is_file()), None)
        if path is None:
            missing.append(row.name)
        else:
            found.append(Path(os.path.abspath(path)))  # noqa: PTH100 - links stay: the id is the name in the dataset
    if missing:
        count = f"{len(missing)} of {len(rows)} images"
        raise DatasetError(f"{count} of {dataset} are not there, first {missing[0]}: say where they are with --images")
    return found


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
    found = {}
    for image, labels in labelled:
        if image.digest in digests:
            kept = place_of[labels.class_id] >= 0
            mine = labels.select(kept) if kept.any() else Labels.nothing()
            found[image.digest] = replace(mine, class_id=place_of[mine.class_id])
    if not found:
        raise DatasetError(f"none of the dataset's {len(digests)} images was labelled in {run}; images are told by their bytes")
    if len(found) < len(digests):
        notes.append(f"{len(digests) - len(found)} image(s) of the dataset were not labelled in {run}: they stay incomplete")
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
    kept = np.ones(len(row.class_id), np.bool_) if row.crowd is None else ~row.crowd
    class_id, xyxy, score = row.class_id[kept], row.xyxy[kept], _scores(row)[kept]
    rle = None if row.rle is None else tuple(row.rle[place] for place in np.flatnonzero(kept))
    if added is not None and len(added):
        class_id, xyxy = np.concatenate([class_id, added.class_id]), np.concatenate([xyxy, added.xyxy])
        score = np.concatenate([score, added.score])
        rle = None if rle is None or added.rle is None else (*rle, *added.rle)
    scores = np.zeros((len(class_id), classes), np.float32)
    scores[np.arange(len(class_id)), class_id] = score
    return Sighting(image, Status.SEEN, Candidates(xyxy.astype(np.float32), scores, rle), dhash=fingerprint)


def _scores(row: DatasetImage) -> npt.NDArray[np.float32]:
    return np.ones(len(row.class_id), np.float32) if row.score is None else row.score


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
