"""From the scores of prompts to a class with a score and a margin, and who is dropped for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, Float32, Int32


@dataclass(frozen=True)
class ClassScores:
    """What each of n candidates is: best class, its score, the margin over every other class and negative, the best negative."""

    class_id: Int32
    score: Float32
    margin: Float32
    negative: Float32

    def beaten_by_negative(self) -> npt.NDArray[np.bool_]:
        """(n,) True where a negative prompt scored higher than every class."""
        beaten: npt.NDArray[np.bool_] = self.negative > self.score
        return beaten

    def below_threshold(self, ontology: Ontology, config: DecideConfig) -> npt.NDArray[np.bool_]:
        """(n,) True where the score does not reach the threshold of its class, or the margin `config.min_margin`.

        A class of the ontology that names a threshold is held to that alone. All others must reach `box_threshold` and
        `text_threshold` both: the published plugin kept boxes above the first and then named them by the words above the
        second, so a box whose words stayed below it got an empty name. Here a box has one score, that of its prompt.
        """
        thresholds = ontology.thresholds(max(config.box_threshold, config.text_threshold))
        low: npt.NDArray[np.bool_] = (self.score < thresholds[self.class_id]) | (self.margin < np.float32(config.min_margin))
        return low


def require_prompts(candidates: Sequence[Candidates], ontology: Ontology) -> None:
    """Raise RecordError unless the scores are of as many prompts as the ontology asks."""
    asked = len(ontology.prompt_class)
    for own in candidates:
        if own.scores.shape[1] != asked:
            raise RecordError(
                f"the candidates hold scores of {own.scores.shape[1]} prompts, the ontology asks {asked}; "
                "a run can be decided only with an ontology of the very prompts it was made with"
            )


def score_classes(scores: Float32, ontology: Ontology) -> ClassScores:
    """Class score = the highest of the class's prompts; `scores` is (n, P), a column a prompt of the ontology.

    Where two classes score the same, the one that the user named first is taken, at a margin of 0.
    """
    prompt_class = ontology.prompt_class
    order = np.argsort(prompt_class, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(prompt_class[order]) != 0))
    best = np.zeros((len(scores), 1 + len(ontology.classes)), np.float32)  # column 0: the negatives
    best[:, prompt_class[order][first] + 1] = np.maximum.reduceat(scores[:, order], first, axis=1)
    row = np.arange(len(scores))
    class_id = best[:, 1:].argmax(axis=1).astype(np.int32)
    score = best[row, class_id + 1]
    negative = best[:, 0].copy()
    best[row, class_id + 1] = 0
    return ClassScores(class_id, score, score - best.max(axis=1), negative)
