"""The labelled images to learn from: read, checked, and put into the classes of the ontology. What is bad is listed, not learnt.

Annotations are taken to be complete: where a class has no label in an image, the detector learns that it is not there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import DatasetError, ImageReadError, OntologyError
from autodistill_grounded_sam.evaluate.matching import class_key
from autodistill_grounded_sam.images import find_images, read_image
from autodistill_grounded_sam.ontology import Ontology, sanitize
from autodistill_grounded_sam.types import DatasetImage, Float32, Int32, Rle

FEW_IMAGES = 3  # of a class: with fewer the detector has seen no variety of it


@dataclass(frozen=True)
class Example:
    """One labelled image. `class_id` (n,) indexes the ontology's classes, `xyxy` (n, 4) float32 pixels of the upright image;
    `rle` n codes, or None where any label is only a box; `digest` the sha256 of the file."""

    name: str
    path: Path
    digest: str
    width: int
    height: int
    class_id: Int32
    xyxy: Float32
    rle: tuple[Rle, ...] | None = None

    @property
    def shares(self) -> Float32:
        """The boxes as shares of width and height, (n, 4) float32."""
        shares: Float32 = (self.xyxy / np.array([self.width, self.height] * 2)).astype(np.float32)
        return shares


@dataclass(frozen=True)
class Fault:
    """An annotation, or all of one image, that was left out: which one, `reason` in a few words for counting, and a sentence."""

    image: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Labelled:
    """Images sorted by name, what was left out, and what to expect of classes with little to learn from."""

    examples: tuple[Example, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of everything that is learnt: files, classes, boxes and masks."""
        total = hashlib.sha256()
        for example in self.examples:
            total.update(example.digest.encode() + example.class_id.tobytes() + example.xyxy.tobytes())
            total.update("".join(str(code["counts"]) for code in example.rle or ()).encode())
        return total.hexdigest()


def read_labelled(images: Path, annotations: Path, ontology: Ontology) -> Labelled:
    """Read a labelled dataset (of any kind that `datasets` knows) with its images, found below `images` or beside it.

    A class of the annotations belongs to the class of the ontology of the same name, else to the one with a prompt of that text.
    Raises DatasetError where nothing can be learnt, or where the file is not in the form it claims.
    """
    names = dataset_class_names(annotations)
    classes = _class_ids(names, ontology)
    files = _Files(images)
    faults: list[Fault] = []

    def leave_out(image: str, reason: str, detail: str) -> None:
        faults.append(Fault(image, reason, detail))

    examples = []
    for row in read_dataset(annotations, on_bad=leave_out):
        example = _example(row, files, names, classes, faults)
        if example is not None:
            examples.append(example)
    examples.sort(key=lambda example: example.name)
    if not any(len(example.class_id) for example in examples):
        counted = ", ".join(f"{count} x {reason}" for reason, count in Counter(fault.reason for fault in faults).most_common())
        first = f"; the first, {faults[0].image}: {faults[0].detail}" if faults else ""
        raise DatasetError(
            f"{annotations} holds no label to learn from ({counted or 'no annotation at all'}{first}); its classes are "
            f"{', '.join(names)}, the ontology's {', '.join(ontology.class_names)}: they are joined by name, or by a prompt of "
            "that text"
        )
    return Labelled(tuple(examples), tuple(faults), tuple(_warnings(examples, ontology)))


def _class_ids(names: Sequence[str], ontology: Ontology) -> list[int]:
    """The ontology's class id of each class of the annotations, -1 where it has none."""
    by_name = {class_key(name): place for place, name in enumerate(ontology.class_names)}
    by_prompt = {prompt: int(class_id) for prompt, class_id in zip(ontology.prompts, ontology.prompt_class, strict=True)}

    def of(name: str) -> int:
        try:
            return by_name.get(class_key(name), by_prompt.get(sanitize(name), -1))
        except OntologyError:  # a name without a letter is no prompt
            return -1

    return [of(name) for name in names]


class _Files:
    """Where the images are: by the name below the folder, else by the file name where only one file bears it."""

    def __init__(self, folder: Path) -> None:
        found = find_images(folder).images
        self._by_id = {image.id: image.path for image in found}
        count = Counter(path.name for path in self._by_id.values())
        self._by_file = {path.name: path for path in self._by_id.values() if count[path.name] == 1}

    def find(self, row: DatasetImage) -> Path | None:
        own = row.path if row.path is not None and row.path.is_file() else None
        return self._by_id.get(row.name) or self._by_file.get(Path(row.name).name) or own


def _example(
    row: DatasetImage, files: _Files, names: Sequence[str], classes: Sequence[int], faults: list[Fault]
) -> Example | None:
    path = files.find(row)
    if path is None:
        faults.append(Fault(row.name, "unknown image", "no such file in the images folder or beside the annotations"))
        return None
    try:
        height, width = read_image(path).shape[:2]
    except ImageReadError as error:
        faults.append(Fault(row.name, f"image: {error.reason}", error.detail))
        return None
    if (width, height) != (row.width, row.height):
        told = (
            f"the annotations say {row.width}x{row.height}, the upright image is {width}x{height}: its boxes are of another frame"
        )
        faults.append(Fault(row.name, "another size", told))
        return None
    size = np.array([width, height] * 2, np.float32)
    clipped = row.xyxy.clip(0, size)
    kept = []
    for place, label in enumerate(row.class_id):
        problem = _problem(row, place, clipped[place], names[label], classes[label])
        if problem:
            faults.append(Fault(row.name, *problem))
        else:
            kept.append(place)
    own = np.array([classes[label] for label in row.class_id[kept]], np.int32)
    rle = None if row.rle is None else tuple(row.rle[place] for place in kept)
    return Example(row.name, path, hashlib.sha256(path.read_bytes()).hexdigest(), width, height, own, clipped[kept], rle)


def _problem(row: DatasetImage, place: int, clipped: Float32, name: str, class_id: int) -> tuple[str, str] | None:
    """Why a label cannot be learnt, or None. A box that reaches over the edge is cut there and learnt."""
    box = row.xyxy[place]
    said = f"the {name!r} box {[round(float(value), 1) for value in box]} of an image {row.width}x{row.height}"
    if class_id < 0:
        return "class not in the ontology", f"{name!r} is no class and no prompt of the ontology"
    if row.crowd is not None and row.crowd[place]:
        return "crowd region", f"{said} marks many objects at once"
    if not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        return "no area", said
    sides = clipped[2:] - clipped[:2]  # a box that is itself thinner than a pixel may be an object; what has no side left is none
    if (sides <= 0).any() or ((sides < 1).any() and (box[2:] - box[:2] >= 1).all()):
        return "outside the image", said
    return None


def _warnings(examples: Sequence[Example], ontology: Ontology) -> Iterator[str]:
    for class_id, name in enumerate(ontology.class_names):
        images = sum(bool((example.class_id == class_id).any()) for example in examples)
        if images == 0:
            yield f"class {name!r} has no label: it is not asked while learning, so expect it to be found no better, or worse"
        elif images < FEW_IMAGES:
            yield (
                f"class {name!r} is in {images} image(s): expect it to be found where it looks as it does there, and missed or "
                f"confused elsewhere; label it in {FEW_IMAGES} or more"
            )
