"""Which candidates are shown: a few of each class and of each reason, the same ones whenever the page of a run is written."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, ImageRecord, Labels, Reason, Rle

Box = tuple[float, float, float, float]
Draws = npt.NDArray[np.uint64]
NEIGHBOURS = 8  # other labels that are outlined beside the one that is shown; more would hide the picture


class Kind(str, Enum):
    """Why a candidate of a class is shown."""

    RANDOM = "random"  # drawn by digest: the only ones that stand for all
    BEST = "best"
    JUST_KEPT = "just kept"
    JUST_MISSED = "just missed"  # best of those that the threshold dropped
    DOUBTFUL = "doubtful"


@dataclass(frozen=True)
class Shape:
    """An object in the upright image: box in pixels, and mask if there is one."""

    xyxy: Box
    rle: Rle | None = None


@dataclass(frozen=True)
class Example:
    """One candidate that is shown, with the labels around it; `rival` is what a duplicate lost to.

    Without a `shape` the whole image is shown, as one without labels or one that waits for review.
    """

    image: ImageRecord
    shape: Shape | None = None
    class_id: int = -1
    score: float = float("nan")
    margin: float = float("nan")
    trust: float | None = None
    reason: Reason = Reason.KEPT
    rival: Shape | None = None
    neighbours: tuple[Shape, ...] = ()


@dataclass
class Shortlist:
    """The `size` examples of the lowest keys, lowest first; equal keys stand in the order of `draw`, which is never twice the
    same but for images of the same bytes, of which one is enough. An example is made only if it comes in."""

    size: int
    _held: list[tuple[float, int, Example]] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """What a key must not exceed to come in."""
        return self._held[-1][0] if len(self._held) >= self.size else float("inf")

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(example for _, _, example in self._held)

    def offer(self, key: float, draw: int, make: Callable[[], Example]) -> None:
        if (key, draw) in (held[:2] for held in self._held):
            return
        if self.size and (len(self._held) < self.size or (key, draw) < self._held[-1][:2]):
            insort(self._held, (key, draw, make()), key=lambda held: held[:2])
            del self._held[self.size :]


def draws_of(digests: list[str], counts: npt.NDArray[np.intp]) -> Draws:
    """A number for every candidate of some images (`counts` each): as good as drawn, and the same in every run.

    The digest's first 64 bits and the place of the candidate, mixed by the finaliser of SplitMix64.
    """
    starts = np.array([int(digest[:16], 16) for digest in digests], np.uint64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    mixed = np.repeat(starts, counts) + within.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    drawn: Draws = mixed ^ (mixed >> np.uint64(31))
    return drawn


def whole_example(image: ImageRecord, candidates: Candidates, labels: Labels, ontology: Ontology) -> Example:
    """The image with all its labels, and the best score of any of its candidates for any class."""
    shapes = tuple(_label_shape(labels, row) for row in range(len(labels)))
    best = score_classes(candidates.scores, ontology).score.max(initial=0.0)
    return Example(image, score=float(best), neighbours=shapes)


def example_of(image: ImageRecord, candidates: Candidates, labels: Labels, number: int) -> Example:
    """The candidate `number` of an image as it is drawn; class, scores and reason are for the caller to `replace`."""
    rows = np.flatnonzero(labels.candidate == number)
    own = _label_shape(labels, int(rows[0])) if len(rows) else _candidate_shape(candidates, number)
    lost_to = int(labels.rival[number]) if len(labels.rival) else -1
    trust = float(labels.trust[rows[0]]) if len(rows) and labels.trust is not None else None
    around = [row for row in range(len(labels)) if int(labels.candidate[row]) not in (number, lost_to)]
    near = sorted(around, key=lambda row: _distance(own.xyxy, labels.xyxy[row]))[:NEIGHBOURS]
    return Example(
        image,
        own,
        trust=trust,
        rival=_candidate_shape(candidates, lost_to) if lost_to >= 0 else None,
        neighbours=tuple(_label_shape(labels, row) for row in near),
    )


def _label_shape(labels: Labels, row: int) -> Shape:
    return Shape(_box(labels.xyxy[row]), None if labels.rle is None else labels.rle[row])


def _candidate_shape(candidates: Candidates, number: int) -> Shape:
    return Shape(_box(candidates.xyxy[number]), None if candidates.rle is None else candidates.rle[number])


def _box(xyxy: npt.NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = xyxy.tolist()
    return x1, y1, x2, y2


def _distance(first: Box, second: npt.NDArray[np.float32]) -> float:
    """Between the centres, squared."""
    dx = first[0] + first[2] - float(second[0] + second[2])
    dy = first[1] + first[3] - float(second[1] + second[3])
    return dx * dx + dy * dy
