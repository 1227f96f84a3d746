"""What the tests of the whole chain share: an ontology, candidates made for it, and what is decided of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import REASONS, Candidates, Labels, Mask, Reason

WIDTH, HEIGHT = 120, 90
ONTOLOGY = Ontology(
    (ClassSpec("car", ("car",)), ClassSpec("truck", ("truck",)), ClassSpec("wheel", ("wheel",))),
    negatives=("shadow",),
    exclusive=(("car", "truck"),),
)
KEPT, NEGATIVE, THRESHOLD, MASK, DUPLICATE, HERD, SIZE, REJECTED = REASONS
Box = tuple[float, float, float, float]


def scores(name: str = "car", score: float = 0.8, **others: float) -> list[float]:
    return [({name: score} | others).get(prompt, 0.0) for prompt in ONTOLOGY.prompts]


def rectangle(box: Box) -> Mask:
    x1, y1, x2, y2 = (int(value) for value in box)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def candidates(*seen: tuple[Box, list[float]], masks: bool | Sequence[Mask] = True) -> Candidates:
    boxes = np.array([box for box, _ in seen], np.float32).reshape(-1, 4)
    table = np.array([row for _, row in seen], np.float32).reshape(-1, len(ONTOLOGY.prompts))
    if masks is False:
        return Candidates(boxes, table)
    drawn = [rectangle(box) for box, _ in seen] if masks is True else masks
    return Candidates(boxes, table, tuple(encode_mask(mask) for mask in drawn), np.ones(len(boxes), np.float32))


def decided(seen: Candidates, ontology: Ontology = ONTOLOGY, **config: Any) -> Labels:
    return decide(seen, ontology, DecideConfig(**config), WIDTH, HEIGHT)


def reasons(labels: Labels) -> list[Reason]:
    return [REASONS[code] for code in labels.reasons]


A, B, C = (5, 5, 35, 35), (45, 5, 75, 35), (85, 5, 115, 35)
both_kinds = pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])


def limited(**limits: float) -> Ontology:
    return replace(ONTOLOGY, classes=(ClassSpec("car", ("car",), **limits), *ONTOLOGY.classes[1:]))


def random_candidates(seed: int, count: int, masks: bool = True) -> Candidates:
    """Boxes on a coarse grid, so that many are equal, lie in one another or jut out; masks with specks and pinholes."""
    rng = np.random.default_rng(seed)
    low = rng.integers(-1, 6, (count, 2)) * 15
    boxes = np.concatenate([low, low + rng.integers(1, 6, (count, 2)) * 15], axis=1).astype(np.float32)
    table = rng.permutation(count * 4).reshape(count, 4) / max(4 * count, 1)  # no two alike
    drawn = [rectangle(tuple(np.clip(box, 0, [WIDTH, HEIGHT] * 2))) for box in boxes.tolist()]
    drawn = [np.asarray(mask ^ (rng.random(mask.shape) < 0.002)) for mask in drawn]
    seen = [(tuple(box), row) for box, row in zip(boxes.tolist(), table.tolist(), strict=True)]
    return candidates(*seen, masks=drawn if masks else False)
