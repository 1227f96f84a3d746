"""What to look at first: the labels most likely wrong, those of one image together where they are about as doubtful."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, Float32, Int32, Labels

LEVELS = 10  # of doubt; within one, going on in the same image saves more than the exact order

_COLUMNS = ("image", "start", "label", "class_id", "xyxy")


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
        level = np.minimum((doubt * LEVELS).astype(np.int64), LEVELS - 1)
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
