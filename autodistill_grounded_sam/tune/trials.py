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
class Outcome:
    """Of n images, C classes and the T `THRESHOLDS`: labels kept and right ones (n, C, T), objects (n, C)."""

    labels: Counts
    right: Counts
    objects: Counts


def try_out(examples: Sequence[Example], ontology: Ontology, config: DecideConfig) -> Outcome:
    """Decide the examples with every threshold at once: what is kept at a higher threshold is the better part of what is kept at
    the lowest, since a label never loses to a worse one (but where worse ones show it to be a herd)."""
    open_config = config.model_copy(update={"box_threshold": 0.0, "text_threshold": 0.0})
    open_ontology = replace(ontology, classes=tuple(replace(spec, box_threshold=None) for spec in ontology.classes))
    judged = _judged(examples, open_ontology, open_config)
    n, classes = len(examples), len(ontology.classes)
    labels, right = np.zeros((n, classes, len(THRESHOLDS))), np.zeros((n, classes, len(THRESHOLDS)))
    for place, one in enumerate(judged):
        reached = one.score[:, None] >= THRESHOLDS[None, :]
        np.add.at(labels[place], one.class_id, reached)
        np.add.at(right[place], one.class_id[one.right], reached[one.right])
    return Outcome(labels, right, np.array([one.objects for one in judged], np.float64).reshape(n, classes))


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
    n = len(labels)
    found = Objects(labels.class_id, labels.xyxy, labels.score, np.zeros(n, np.bool_), None, np.arange(n, dtype=np.int32))
    judged = judge(Pair(example.name, example.width, example.height, example.truth, found), classes)
    if example.rejected is None:
        return judged
    wrong = match_boxes(found, example.rejected, within_class=True).truth_of >= 0
    known = judged.right | wrong[judged.row]
    return Judged(judged.row[known], judged.class_id[known], judged.score[known], judged.right[known], judged.objects)
