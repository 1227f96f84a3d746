"""Picking, measuring the pick on images that had no say in it, and how many images more a proof would take."""

from __future__ import annotations

import numpy as np
import pytest

from autodistill_grounded_sam.tune.choosing import (
    Fixed,
    Gain,
    cross_validated,
    gain_of,
    images_missing,
    images_to_prove,
    pick,
)
from autodistill_grounded_sam.tune.trials import THRESHOLDS, Curve


def curve(scores: list[list[tuple[float, bool]]], objects: list[int]) -> Curve:
    """Of the labels of each image, as (score, right)."""
    reach = [[(score >= THRESHOLDS - 1e-6, right) for score, right in image] for image in scores]
    labels = np.array([np.sum([r for r, _ in image], axis=0) for image in reach], np.float64)
    right = np.array([np.sum([r & is_right for r, is_right in image], axis=0) for image in reach], np.float64)
    return Curve(labels, right, np.array(objects, np.float64))


def noise(images: int, seed: int) -> Curve:
    """Labels whose score says nothing of whether they are right."""
    rng = np.random.default_rng(seed)
    return curve([[(float(rng.random()), bool(rng.random() < 0.5)) for _ in range(3)] for _ in range(images)], [2] * images)


def fixed(of: Curve, threshold: float) -> Fixed:
    at = int(np.searchsorted(THRESHOLDS, np.float32(threshold)))
    return Fixed(of.labels[:, at], of.right[:, at], of.objects)


def clean(images: int) -> Curve:
    """Right labels score 0.6 to 0.8, wrong ones 0.2 to 0.4."""
    rng = np.random.default_rng(5)
    return curve([[(rng.uniform(0.6, 0.8), True), (rng.uniform(0.2, 0.4), False)] for _ in range(images)], [1] * images)


def test_the_threshold_lies_in_the_gap() -> None:
    found = pick([clean(20)], np.arange(20))
    assert 0.42 <= found.threshold <= 0.58
    assert found.place == 0


def test_the_better_curve_is_picked_and_the_first_of_equals() -> None:
    assert pick([noise(20, 0), clean(20)], np.arange(20)).place == 1
    assert pick([clean(20), clean(20)], np.arange(20)).place == 0


def test_a_true_gain_is_proven() -> None:
    both = clean(20)
    gain, after = cross_validated([both], fixed(both, 0.15))
    assert gain.proven
    assert gain.before == pytest.approx(2 / 3)
    assert gain.after == pytest.approx(1)
    assert gain.low <= gain.gain <= gain.high
    assert after.right.sum() == 20


def test_the_best_of_many_lucky_curves_is_not_proven() -> None:
    """Thirty settings that are all worth the same: the best one looks better on the images that chose it, and on no others."""
    proven = 0
    for seed in range(20):
        curves = [noise(20, 100 * seed + k) for k in range(30)]
        proven += cross_validated(curves, fixed(curves[0], 0.05))[0].proven
    assert proven <= 3  # two of twenty are what 90 % on two sides lets through


def test_the_interval_is_that_of_images() -> None:
    """Four labels of one image are no more evidence than one."""
    one = clean(20)
    four = Curve(*(np.asarray(counts) * 4 for counts in (one.labels, one.right, one.objects)))
    first, second = (gain_of(fixed(some, 0.15), fixed(some, 0.7)) for some in (one, four))
    assert second.low == pytest.approx(first.low, abs=0.02)
    assert second.high == pytest.approx(first.high, abs=0.02)


@pytest.mark.parametrize(
    ("objects", "missing"),
    [([1] * 10, 0), ([2, 2, 2, 2, 2], 0), ([5, 5, 0, 0, 0, 0], 9), ([1, 1, 1, 1, 1], 5), ([0] * 10, 190)],
)
def test_how_many_images_more_before_anything_can_be_said(objects: list[int], missing: int) -> None:
    assert images_missing(np.array(objects, np.float64)) == missing


def test_how_many_images_more_would_prove_a_gain() -> None:
    def gain(low: float, high: float) -> Gain:
        return Gain(0.6, 0.7, 0.1, low, high, 0.7, 0.7)

    assert images_to_prove(gain(-0.1, 0.3), 20) == 60  # half the width takes four times the images
    assert images_to_prove(gain(0.0, 0.3), 20) == 25  # a gain that rests on few images has a crooked interval
