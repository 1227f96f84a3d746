"""Facts of labels, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.quality.facts import FACTS, facts_of
from autodistill_grounded_sam.types import Candidates, Labels, State

BOXES = np.array([[0, 0, 5, 5], [10, 5, 30, 15], [10, 5, 30, 14]], np.float32)


def label_of(place: int, score: float, *, rle: tuple | None = None) -> Labels:
    return Labels(
        State.LABELLED, np.zeros(1, np.int32), np.array([score], np.float32), np.array([0.4], np.float32), BOXES[[place]],
        np.array([place], np.int32), rle,
    )  # fmt: skip


def test_every_fact() -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[5:15, 10:20] = True
    codes = (encode_mask(mask),) * 3
    scores = np.array([[0.2, 0.1], [0.5, 0.1], [0.1, 0.3]], np.float32)
    candidates = Candidates(BOXES, scores, codes, np.array([0.3, 0.9, 0.2], np.float32))
    area = np.log(20 * 10 / (20 * 40))
    expected = [0.0, 0.4, 0.9, 0.5, area, 0.0, 0.3, 0.0, 0.0]  # the third candidate agrees, and says 0.3
    assert facts_of(candidates, label_of(1, 0.5, rle=codes[:1]), 40, 20)[0] == pytest.approx(expected, abs=1e-6)
    agreed = replace(candidates, agreement=np.array([0.2, 0.7, 0.1], np.float32))
    assert facts_of(agreed, label_of(1, 0.5, rle=codes[:1]), 40, 20)[0, -1] == pytest.approx(0.7)
    without_masks = Candidates(BOXES, scores)
    assert facts_of(without_masks, label_of(1, 0.5), 40, 20)[0] == pytest.approx([*expected[:2], 0, 0, *expected[4:]], abs=1e-6)
    corner = facts_of(without_masks, label_of(0, 0.2), 40, 20)[0]
    assert (corner[5], corner[6]) == (1.0, pytest.approx(0.0, abs=1e-6))


def test_no_label_has_no_facts() -> None:
    assert facts_of(Candidates(BOXES, np.zeros((3, 1), np.float32)), Labels.nothing(), 40, 20).shape == (0, len(FACTS))
