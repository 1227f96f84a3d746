"""What one setting does to the labelled images: for each class and threshold, how many labels are kept and how many are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide_many
from autodistill_grounded_sam.evaluate.judging import Judged, judge
from autodistill_grounded_sam.evaluate.matching import Objects, Pair
from autodistill_grounded_sam.evaluate.operating_point import match_boxes
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, Labels

Counts = npt.NDArray[np.float64]

THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.01), 2).astype(np.float32)
THRESHOLDS.setflags(write=False)


@dataclass(frozen=True)
class Example:
    """One labelled image: what the models saw (a column of scores for each word of `words`) and what a person said.

    `truth` are its objects, numbered by the classes of the ontology. With `rejected` (labels that a person refused) nothing is
    known of what was neither accepted nor rejected, so that a label there counts neither as right nor as wrong.
    """

    name: str
    width: int
    height: int
    candidates: Candidates
    words: tuple[str, ...]
    truth: Objects
    rejected: Objects | None = None


@dataclass(frozen=True)
class Curve:
    """One class under one setting: labels kept and right ones (n, T) by the T `THRESHOLDS`, objects (n,), of n images."""

    labels: Counts
    right: Counts
    objects: Counts


def try_out(examples: Sequence[Example], ontology: Ontology, config: DecideConfig, place: int, *, least: float = 0.0) -> Curve:
    """Decide the examples with every threshold of the class at `place` at once: what is kept at a higher one is the better part
    of what is kept at the lowest, since a label never loses to a worse one (but where worse ones show it to be a herd). All other
    classes keep their thresholds: a label of theirs that will be dropped must not take one of this class with it. A threshold
    below `least` stands for `least`.
    """
    opened = replace(ontology.classes[place], box_threshold=least)
    classes = tuple(opened if own == place else spec for own, spec in enumerate(ontology.classes))
    judged = _judged(examples, replace(ontology, classes=classes), config)
    labels, right = np.zeros((len(examples), len(THRESHOLDS))), np.zeros((len(examples), len(THRESHOLDS)))
    for row, one in enumerate(judged):
        mine = one.class_id == place
        reached = one.score[mine, None] >= THRESHOLDS[None, :]
        labels[row], right[row] = reached.sum(axis=0), reached[one.right[mine]].sum(axis=0)
    return Curve(labels, right, np.array([one.objects[place] for one in judged], np.float64))


def as_decided(examples: Sequence[Example], ontology: Ontology, config: DecideConfig) -> tuple[Counts, Counts]:
    """Labels kept and right ones, (n, C) each, by the thresholds of the ontology and of the config."""
    labels, right = np.zeros((len(examples), len(ontology.classes))), np.zeros((len(examples), len(ontology.classes)))
    for place, one in enumerate(_judged(examples, ontology, config)):
        np.add.at(labels[place], one.class_id, 1)
        np.add.at(right[place], one.class_id[one.right], 1)
    return labels, right


def f1(right: Counts, labels: Counts, objects: Counts) -> Counts:
    """2 right / (labels + objects), elementwise; 0 where there is neither."""
    return np.asarray(2 * right / np.maximum(labels + objects, 1))


def _judged(examples: Sequence[Example], ontology: Ontology, config: DecideConfig) -> list[Judged]:
    seen = [(_columns(example, ontology), example.width, example.height) for example in examples]
    decided = decide_many(seen, ontology, config)
    return [_judge(example, labels, len(ontology.classes)) for example, labels in zip(examples, decided, strict=True)]


def _columns(example: Example, ontology: Ontology) -> Candidates:
    columns = [example.words.index(word) for word in ontology.prompts]
    return replace(example.candidates, scores=example.candidates.scores[:, columns])


def _judge(example: Example, labels: Labels, classes: int) -> Judged:
    found = Objects.of(labels.class_id, labels.xyxy, labels.score)
    judged = judge(Pair(example.name, example.width, example.height, example.truth, found), classes)
    if example.rejected is None:
        return judged
    wrong = match_boxes(found, example.rejected, within_class=True).truth_of >= 0
    known = judged.right | wrong[judged.row]
    return Judged(judged.row[known], judged.class_id[known], judged.score[known], judged.right[known], judged.objects)
