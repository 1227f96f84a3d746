"""Joins labels to a human reference: which image is which, which class is which, and what is on one side only.

An image is known by its relative POSIX path; else by its file name; else by the stem that an export gives it (`a/b.jpg` is
`a__b` there, and its suffix may change); else by the stem of its file name. Everything that cannot be joined becomes a note.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.images import dataset_stems
from autodistill_grounded_sam.types import DatasetImage, Float32, Int32, Rle

_SHOWN_NAMES = 3  # of images in a note or message
_WHOLE_PATH, _FILE_NAME, _EXPORT_STEM, _FILE_STEM = range(4)  # what an image is known by, the surest first


@dataclass(frozen=True)
class Objects:
    """n objects of one image, best score first, ties in an order of their own, so that the order in a file changes nothing.

    `class_id` (n,) indexes `Joined.class_names`; `xyxy` (n, 4) float32 pixels of the upright image; `score` (n,), 1 for people's;
    `crowd` (n,) marks COCO's crowd regions; `rle` n codes, or None if any object of the image is only a box; `row` (n,) is the
    place of each among the labels that the image was given with.
    """

    class_id: Int32
    xyxy: Float32
    score: Float32
    crowd: npt.NDArray[np.bool_]
    rle: tuple[Rle, ...] | None
    row: Int32

    @staticmethod
    def of(class_id: Int32, xyxy: Float32, score: Float32 | None = None) -> Objects:
        """Objects that are only boxes, in the order given; without `score` as sure as people's."""
        n = len(class_id)
        sure = np.ones(n, np.float32) if score is None else score
        return Objects(class_id, xyxy, sure, np.zeros(n, np.bool_), None, np.arange(n, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.class_id)

    def select(self, which: npt.NDArray[np.bool_]) -> Objects:
        """The objects where `which` (n,) holds."""
        rle = None if self.rle is None else tuple(self.rle[i] for i in np.flatnonzero(which))
        return Objects(self.class_id[which], self.xyxy[which], self.score[which], self.crowd[which], rle, self.row[which])


@dataclass(frozen=True)
class Pair:
    """One image of the reference: what people marked in it, and what was labelled. `source` is the labelled image's own name, ""
    where it was not labelled."""

    name: str
    width: int
    height: int
    truth: Objects
    labels: Objects
    source: str = ""


@dataclass(frozen=True)
class Joined:
    """Labels beside their reference. The first `known` of `class_names` are those of the reference, the others only labels'."""

    class_names: tuple[str, ...]
    known: int
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def join(
    labels: Iterable[DatasetImage],
    class_names: Sequence[str],
    truth: Path,
    *,
    failed: Collection[str] = (),
    only_labelled: bool = False,
) -> Joined:
    """Put labels beside the reference `truth`: a COCO json (or a folder with `train` and `valid`), or a YOLO dataset.

    `class_names` are those of the labels; `failed` names images that could not be looked at: they are left out. A reference
    image that was neither labelled nor failed counts with no label, or is left out too (`only_labelled`). Labels are taken one
    image at a time, and only those of reference images are kept. Raises DatasetError where names are ambiguous, nothing fits,
    sizes differ, or `truth` is empty.
    """
    references = list(read_dataset(truth))
    if not references:
        raise DatasetError(f"the reference {truth} holds no image; give the COCO json or YOLO dataset that people made")
    classes = _JointClasses(dataset_class_names(truth), class_names)
    rows, strangers = _wanted_rows(labels, references)
    names = [*(row.name for row in rows), *failed]
    place_of = match_names([row.name for row in references], names)
    if not place_of and (rows or strangers):
        raise DatasetError(
            f"none of the {len(references)} images of {truth} is among the labelled ones: it names {_some(references)}, the "
            f"labels are of {_some([*rows, *strangers])}; file_name must be the path below the images folder, or the file name"
        )
    pairs, missing, left_out = [], [], []
    for index, reference in enumerate(references):
        place = place_of.get(index)
        if place is not None and place >= len(rows):
            left_out.append(reference)
            continue
        if place is None:
            missing.append(reference)
            if only_labelled:
                continue
        pairs.append(_pair(reference, None if place is None else rows[place], classes, truth))
    used = set(place_of.values())
    strangers += [row.name for place, row in enumerate(rows) if place not in used]
    notes = [*classes.notes(pairs), *_image_notes(missing, left_out, strangers, only_labelled), *_label_notes(rows)]
    return Joined(classes.names, classes.known, tuple(pairs), tuple(notes))


def _wanted_rows(labels: Iterable[DatasetImage], references: Sequence[DatasetImage]) -> tuple[list[DatasetImage], list[str]]:
    """The labelled images that may be a reference's, and the names of all others: their labels are let go at once."""
    wanted = [set(keys) for keys in zip(*(_keys(reference.name) for reference in references), strict=True)]
    rows: list[DatasetImage] = []
    strangers: list[str] = []
    for row in labels:
        if any(key in wanted[level] for level, key in enumerate(_keys(row.name))):
            rows.append(row)
        else:
            strangers.append(row.name)
    return rows, strangers


def match_names(truth: Sequence[str], labelled: Sequence[str]) -> dict[int, int]:
    """Which image is which: place in `labelled` by place in `truth`. Raises DatasetError where a name could be two images."""
    place_of: dict[int, int] = {}
    used: set[int] = set()
    truth_keys, label_keys = [_keys(name) for name in truth], [_keys(name) for name in labelled]
    for level in range(4):
        ours, theirs = _grouped(label_keys, level), _grouped(truth_keys, level)
        for key, indices in theirs.items():
            places = ours.get(key, [])
            left = [index for index in indices if index not in place_of]
            free = [place for place in places if place not in used]
            if not left or not free:
                continue
            if len(indices) == len(places) == 1:
                place_of[left[0]] = free[0]
                used.add(free[0])
                continue
            # One file name in two different folders is two images; only a name that says no folder could be either.
            folderless = any("/" not in _keys(name)[_WHOLE_PATH] for name in _at(truth, left) + _at(labelled, free))
            if level in (_WHOLE_PATH, _EXPORT_STEM) or folderless:
                raise DatasetError(
                    f"which image is which? The reference names {_some(_at(truth, left))}, the labels are of "
                    f"{_some(_at(labelled, free))}; write the path below the images folder into file_name, each image once"
                )
    return place_of


def class_key(name: str) -> str:
    """What two names of one class have in common: case, underscores for spaces and doubled spaces do not count."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


class _JointClasses:
    """The classes of both sides under one numbering: the reference's first, then those that only the labels know."""

    def __init__(self, of_truth: Sequence[str], of_labels: Sequence[str]) -> None:
        first: dict[str, str] = {}
        for name in of_truth:
            first.setdefault(class_key(name), name)
        self.known = len(first)
        for name in of_labels:
            first.setdefault(class_key(name), name)
        number = {key: place for place, key in enumerate(first)}
        self.names = tuple(first.values())
        self.truth_id = np.array([number[class_key(name)] for name in of_truth], np.int32)
        self.label_id = np.array([number[class_key(name)] for name in of_labels], np.int32)
        self._sides = {"reference": of_truth, "labels": of_labels}

    def notes(self, pairs: Sequence[Pair]) -> list[str]:
        objects = Counter(class_id for pair in pairs for class_id in pair.truth.class_id[~pair.truth.crowd].tolist())
        labels = Counter(class_id for pair in pairs for class_id in pair.labels.class_id.tolist())
        unlabelled = [place for place in range(self.known) if place not in self.label_id]
        notes = []
        if unlabelled:
            told = self._counted(unlabelled, objects)
            notes.append(f"classes of the reference that the labels do not know, so all their objects count as missed: {told}")
        if self.known < len(self.names):
            told = self._counted(range(self.known, len(self.names)), labels)
            notes.append(f"classes of the labels that the reference does not know, left out of AP, precision and recall: {told}")
        for side, names in self._sides.items():
            spellings: dict[str, list[str]] = {}
            for name in names:
                spellings.setdefault(class_key(name), []).append(name)
            twins = ["/".join(several) for several in spellings.values() if len(several) > 1]
            if twins:
                notes.append(f"classes of the {side} that count as one: {', '.join(twins)}")
        return notes

    def _counted(self, places: Iterable[int], counts: Mapping[int, int]) -> str:
        return ", ".join(f"{self.names[place]} ({counts.get(place, 0)})" for place in places)


def _pair(reference: DatasetImage, row: DatasetImage | None, classes: _JointClasses, truth: Path) -> Pair:
    width, height = reference.width, reference.height
    if row is not None and (row.width, row.height) != (width, height):
        raise DatasetError(
            f"{reference.name} is {width}x{height} in {truth}, but {row.name} was labelled at {row.width}x{row.height}: boxes of "
            "two frames cannot be compared; a reference must be of the same file, upright (EXIF orientation applied)"
        )
    labels = _NOTHING if row is None else _objects(row, classes.label_id)
    return Pair(
        reference.name,
        width,
        height,
        _objects(reference, classes.truth_id),
        labels.select(~labels.crowd),
        "" if row is None else row.name,
    )


def _objects(row: DatasetImage, joint_id: Int32) -> Objects:
    n = len(row.class_id)
    score = np.ones(n, np.float32) if row.score is None else row.score
    crowd = np.zeros(n, np.bool_) if row.crowd is None else row.crowd
    class_id = joint_id[row.class_id] if n else np.zeros(0, np.int32)
    codes = [""] * n if row.rle is None else [code["counts"] for code in row.rle]
    order = sorted(range(n), key=lambda i: (-score[i], class_id[i], *row.xyxy[i].tolist(), codes[i], crowd[i]))
    rle = None if row.rle is None else tuple(row.rle[i] for i in order)
    return Objects(class_id[order], row.xyxy[order], score[order], crowd[order], rle, np.array(order, np.int32))


_NOTHING = Objects(
    np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.bool_), (), np.zeros(0, np.int32)
)


def _keys(name: str) -> tuple[str, str, str, str]:
    """What an image is known by, the surest first. Windows' separators and Unicode's two forms of an accent are made one."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return str(path), path.name, dataset_stems([str(path)])[str(path)], path.stem


def _grouped(keys: Sequence[tuple[str, str, str, str]], level: int) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for place, of_image in enumerate(keys):
        groups.setdefault(of_image[level], []).append(place)
    return groups


def _at(names: Sequence[str], places: Sequence[int]) -> list[str]:
    return [names[place] for place in places]


def _image_notes(
    missing: Sequence[DatasetImage], failed: Sequence[DatasetImage], strangers: Sequence[str], only_labelled: bool
) -> list[str]:
    notes = []
    if missing:
        fate = "are left out" if only_labelled else "their objects count as missed"
        notes.append(f"{len(missing)} image(s) of the reference were not labelled, {fate}: {_some(missing)}")
    if failed:
        notes.append(f"{len(failed)} image(s) of the reference could not be read by the run and are left out: {_some(failed)}")
    if strangers and not only_labelled:  # that few of the labelled images are in the reference is then what is meant
        notes.append(f"{len(strangers)} labelled image(s) are not in the reference and are left out: {_some(strangers)}")
    return notes


def _label_notes(rows: Sequence[DatasetImage]) -> list[str]:
    notes = []
    crowds = sum(int(row.crowd.sum()) for row in rows if row.crowd is not None)
    if crowds:
        notes.append(f"{crowds} crowd region(s) among the labels are left out: a crowd is no object")
    if any(len(row.class_id) and row.score is None for row in rows):
        notes.append("labels without scores: AP takes them all as equally sure (score 1), so it ranks nothing")
    return notes


def _some(images: Sequence[DatasetImage | str]) -> str:
    names = [repr(image if isinstance(image, str) else image.name) for image in images[:_SHOWN_NAMES]]
    return ", ".join(names) + (", ..." if len(images) > _SHOWN_NAMES else "")
