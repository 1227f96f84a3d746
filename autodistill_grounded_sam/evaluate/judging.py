"""Which labels of an image are right, and which of its objects were found: what calibration and tuning learn from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.evaluate.matching import Pair
from autodistill_grounded_sam.evaluate.operating_point import match_boxes
from autodistill_grounded_sam.types import Float32, Int32


class Judged(NamedTuple):
    """The k labels of one image on which the reference has a say, best first, and its objects.

    `row` (k,) are their places among the labels given, `class_id` (k,) and `objects` (C,), objects by class, are numbered by the
    reference; `right` (k,) says which match an object of their class, one each.
    """

    row: Int32
    class_id: Int32
    score: Float32
    right: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


def judge(pair: Pair, known: int) -> Judged:
    """Judge the labels of the first `known` classes; those that a crowd region excuses are neither right nor wrong."""
    labels = pair.labels.select(pair.labels.class_id < known)
    matches = match_boxes(labels, pair.truth, within_class=True)
    said = labels.select(~matches.excused)
    right = matches.truth_of[~matches.excused] >= 0
    objects = np.bincount(pair.truth.class_id[~pair.truth.crowd], minlength=known)
    return Judged(said.row, said.class_id, said.score, right, objects)
