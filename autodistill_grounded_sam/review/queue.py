"""What to look at first: the labels most likely wrong, those of one image together where they are about as doubtful."""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, Float32, Int32, Labels

LEVELS = 10  # of doubt; within one, going on in the same image saves more than the exact order

_COLUMNS = ("image", "start", "label", "class_id", "xyxy")
Key = tuple[str, str, tuple[float, ...]]  # of a label: digest of its image, class, box
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Queue:
    """S stops, most doubtful first: the number of its `image` (S,), and `label`, `class_id` and `xyxy` of what is to be judged,
    of stop s from `start[s]` to `start[s + 1]`. An image without labels has one entry, of label -1: does it hold nothing?"""

    image: Int32
    start: Int32
    label: Int32
    class_id: Int32
    xyxy: Float32

    def __len__(self) -> int:
        return len(self.image)

    @staticmethod
    def of(image: Int32, label: Int32, class_id: Int32, xyxy: Float32, doubt: Float32) -> Queue:
        """The queue of entries (K,) in any order; `doubt` is from 0 to 1."""
        level = _levels(doubt)
        group = level * (int(image.max(initial=0)) + 1) + image
        _, of_group = np.unique(group, return_inverse=True)
        worst = np.zeros(int(of_group.max(initial=-1)) + 1, np.float32)
        np.maximum.at(worst, of_group, doubt)
        order = np.lexsort((label, -doubt, image, -worst[of_group], -level))
        first = np.flatnonzero(np.append(True, np.diff(group[order]) != 0)[: len(order)])
        start = np.append(first, len(order)).astype(np.int32)
        return Queue(image[order][first], start, label[order], class_id[order], xyxy[order])

    def save(self, path: Path, key: str) -> None:
        """Keep the queue; `key` says of what it is."""
        with path.open("wb") as file:
            np.savez(file, key=np.array(key), **{name: getattr(self, name) for name in _COLUMNS})

    @staticmethod
    def load(path: Path, key: str) -> Queue | None:
        """The queue that was kept, if there is one of this key."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                return Queue(*(kept[name] for name in _COLUMNS)) if str(kept["key"]) == key else None
        except (OSError, ValueError, KeyError, BadZipFile):  # none, or one that a killed process left half-written
            return None

    def entries(self, stop: int) -> slice:
        return slice(int(self.start[stop]), int(self.start[stop + 1]))


@dataclass
class Front(Generic[Entry]):
    """The first `size` entries of the queue, of images that come in the order of their numbers; no others are held or made."""

    size: int
    _held: list[tuple[tuple[int, float, int], tuple[Entry, ...]]] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, group in self._held for entry in group][: self.size]

    def offer(self, image: int, rows: Sequence[int], doubt: Float32, make: Callable[[int], Entry]) -> None:
        """Take in the labels `rows` of an image, whose `doubt` (len(rows),) is; `make` is called for those that come in."""
        levels = _levels(doubt)
        for level in sorted(set(levels.tolist()), reverse=True):
            own = np.flatnonzero(levels == level)
            key = (-level, -float(doubt[own].max()), image)
            if len(self._held) == self.size and key >= self._held[-1][0]:
                return
            worst_first = own[np.argsort(-doubt[own], kind="stable")][: self.size].tolist()
            insort(self._held, (key, tuple(make(rows[place]) for place in worst_first)), key=lambda held: held[0])
            del self._held[self.size :]


@dataclass(frozen=True)
class Doubts:
    """How likely each label is wrong, from 0 to 1: by its `trust` where `quality` wrote that, behind these and else by how near
    it is to what would have been decided otherwise."""

    ontology: Ontology
    config: DecideConfig
    trust: Mapping[Key, float]

    @staticmethod
    def of(ontology: Ontology, config: DecideConfig, measured: Path) -> Doubts:
        """`measured` is the queue that `quality` wrote, if it did."""
        lines = measured.read_text("utf-8").split("\n") if measured.exists() else []
        rows = [json.loads(line) for line in lines if line]
        return Doubts(ontology, config, {_key(row["digest"], row["class"], row["xyxy"]): row["trust"] for row in rows})

    def __call__(self, digest: str, candidates: Candidates, labels: Labels) -> Float32:
        """(m,) of the labels of the image of these bytes, (1,) of an image without labels: does it hold nothing?"""
        near: Float32 = doubts_of(candidates, labels, self.ontology, self.config) * np.float32(self._behind)
        if not self.trust or not len(labels):
            return near
        names = [self.ontology.class_names[class_id] for class_id in labels.class_id.tolist()]
        keys = (_key(digest, name, box) for name, box in zip(names, labels.xyxy.tolist(), strict=True))
        return np.array([1 - self.trust.get(key, 1 - own) for key, own in zip(keys, near.tolist(), strict=True)], np.float32)

    @cached_property
    def _behind(self) -> float:
        return 1 - max(self.trust.values(), default=0.0)


def doubts_of(candidates: Candidates, labels: Labels, ontology: Ontology, config: DecideConfig) -> Float32:
    """How near each label (m,) is to what would have been decided otherwise, by threshold or margin: 1 at it, 0 far from it.

    Of an image without labels one number: how near its best candidate came to being a label.
    """
    thresholds = ontology.thresholds(max(config.box_threshold, config.text_threshold))
    if len(labels):
        spare = np.minimum(labels.score - thresholds[labels.class_id], labels.margin)
        doubts: Float32 = 1 - np.clip(spare, 0, 1)
        return doubts
    if not len(candidates):
        return np.zeros(1, np.float32)
    scored = score_classes(candidates.scores, ontology)
    nearest: Float32 = np.clip(1 + (scored.score - thresholds[scored.class_id]).max(keepdims=True), 0, 1)
    return nearest


def _levels(doubt: Float32) -> npt.NDArray[np.int64]:
    return np.minimum((doubt * LEVELS).astype(np.int64), LEVELS - 1)


def _key(digest: str, name: str, xyxy: Sequence[float]) -> Key:
    return digest, name, tuple(round(edge, 2) for edge in xyxy)
