"""Trust: it learns what tells right from wrong, stays sober with little to learn from, and never judges an image it has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autodistill_grounded_sam.quality.calibration import Calibration, cross_fit, fit, log_loss
from autodistill_grounded_sam.quality.facts import AREA, FACTS


def made_up(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels whose log odds of being right are 1 + 2 x first fact + class offset (0 or -1.5); the other facts are noise."""
    rng = np.random.default_rng(seed)
    facts, class_id = rng.normal(size=(count, len(FACTS))), rng.integers(0, 2, count).astype(np.int32)
    facts[:, AREA] = 0
    odds = 1 + 2 * facts[:, 0] - 1.5 * class_id
    return facts, class_id, rng.random(count) < 1 / (1 + np.exp(-odds))


def test_learns_what_tells_right_from_wrong() -> None:
    calibration = fit(*made_up(4000), 2)
    facts, class_id, right = made_up(4000, seed=1)
    trust = calibration.trust(facts, class_id)
    for low in np.arange(0, 1, 0.2):
        some = (trust >= low) & (trust < low + 0.2)
        assert right[some].mean() == pytest.approx(trust[some].mean(), abs=0.06)
    assert calibration.weights[0] == pytest.approx(2, abs=0.3)
    assert np.abs(calibration.weights[1:]).max() < 0.2
    assert calibration.offsets[1] < calibration.offsets[0]


def test_few_labels_beat_their_bare_share() -> None:
    facts, class_id, right = made_up(5000, seed=2)
    losses = {"trust": [], "share": []}
    for seed in range(10):
        known = np.random.default_rng(seed).choice(5000, 60, replace=False)
        losses["trust"].append(log_loss(fit(facts[known], class_id[known], right[known], 2).trust(facts, class_id), right))
        losses["share"].append(log_loss(np.full(5000, right[known].mean(), np.float32), right))
    assert np.mean(losses["trust"]) < 0.85 * np.mean(losses["share"])


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_no_certainty(right: bool) -> None:
    facts, class_id, _ = made_up(20)
    trust = fit(facts, class_id, np.full(20, right), 2).trust(facts, class_id)
    sure = trust if right else 1 - trust
    assert (sure > 0.8).all()
    assert (sure < 0.999).all()


def test_no_label_at_all() -> None:
    empty = np.zeros((0, len(FACTS)))
    calibration = fit(empty, np.zeros(0, np.int32), np.zeros(0, np.bool_), 3)
    assert calibration.trust(np.zeros((1, len(FACTS))), np.array([2], np.int32)) == pytest.approx(0.5)


def test_a_fact_that_never_varies_is_no_division_by_zero() -> None:
    facts, class_id, right = made_up(50)
    facts[:, 2:] = 0
    assert np.isfinite(fit(facts, class_id, right, 2).trust(facts, class_id)).all()


def test_written_and_read_back() -> None:
    facts, class_id, right = made_up(50)
    calibration = fit(facts, class_id, right, 2)
    again = Calibration.from_document(json.loads(json.dumps(calibration.document())))
    assert again == calibration


def test_cross_fitting_leaves_out_whole_images() -> None:
    """Facts that give away the image, not the truth: who has seen the image would be sure, who has not cannot be."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(30), 10)
    right = np.repeat(rng.random(30) < 0.5, 10)
    facts = rng.normal(size=(30, len(FACTS)))[image]
    class_id = np.zeros(300, np.int32)
    trust, _ = cross_fit(facts, class_id, right, image, 1)
    assert log_loss(trust, right) > 0.6
    assert log_loss(fit(facts, class_id, right, 1).trust(facts, class_id), right) < log_loss(trust, right)


def test_a_label_unlike_its_class_in_size_is_doubted() -> None:
    """Labels twice as large as their like are wrong, whatever that size is; the areas themselves tell nothing."""
    rng = np.random.default_rng(0)
    class_id = rng.integers(0, 2, 400).astype(np.int32)
    odd = rng.random(400) < 0.2
    facts = np.zeros((400, len(FACTS)))
    facts[:, AREA] = np.where(class_id == 1, -2.0, -5.0) + rng.normal(0, 0.1, 400) + odd * rng.choice([-1.0, 1.0], 400)
    trust = fit(facts, class_id, ~odd, 2).trust(facts, class_id)
    assert trust[odd].max() < 0.5 < trust[~odd].min()
