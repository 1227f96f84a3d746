"""Made-up images for the tests of this room: objects in a row, candidates on them with chosen scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autodistill_grounded_sam.evaluate.matching import Objects
from autodistill_grounded_sam.tune.trials import Example
from autodistill_grounded_sam.types import Candidates

SIDE = 10  # of every box; place k is the box from 20 k on


def objects(rows: Sequence[tuple[int, int]]) -> Objects:
    """Objects of (class, place)."""
    xyxy = np.array([[20 * place, 0, 20 * place + SIDE, SIDE] for _, place in rows], np.float32).reshape(-1, 4)
    class_id = np.array([class_id for class_id, _ in rows], np.int32)
    return Objects.of(class_id, xyxy)


def example(
    words: tuple[str, ...],
    seen: Sequence[tuple[int, Sequence[float]]],
    truth: Sequence[tuple[int, int]],
    rejected: Sequence[tuple[int, int]] | None = None,
    name: str = "a.png",
) -> Example:
    """Candidates of (place, a score for each word), objects and rejected labels of (class, place)."""
    xyxy = np.array([[20 * place, 0, 20 * place + SIDE, SIDE] for place, _ in seen], np.float32).reshape(-1, 4)
    scores = np.array([scores for _, scores in seen], np.float32).reshape(-1, len(words))
    said = None if rejected is None else objects(rejected)
    return Example(name, 400, 20, Candidates(xyxy, scores), words, objects(truth), said)
