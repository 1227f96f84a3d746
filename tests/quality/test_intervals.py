"""Intervals of shares: known cases, what must widen and narrow them, and how often they hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta

from autodistill_grounded_sam.quality.intervals import precision_of, share_of


def test_one_label_an_image_is_jeffreys_interval() -> None:
    part = np.array([1] * 16 + [0] * 4)
    share = share_of(part, np.ones(20))
    assert share.value == pytest.approx(0.8)
    # Errors one an image vary as independent ones do, but for the 20/19 of a sample variance and Student's t.
    assert share.low == pytest.approx(beta.ppf(0.05, 16.5, 4.5), abs=0.02)
    assert share.high == pytest.approx(beta.ppf(0.95, 16.5, 4.5), abs=0.02)
    assert (share.count, share.images) == (20, 20)


def test_nothing_wrong_has_a_width_all_the_same() -> None:
    share = share_of(np.full(20, 3), np.full(20, 3))
    assert share.value == share.high == 1
    assert share.low == pytest.approx(beta.ppf(0.05, 60.5, 0.5))


def test_errors_that_come_together_say_less() -> None:
    whole = np.full(20, 10)
    spread = share_of(np.full(20, 8), whole)
    together = share_of(np.array([10] * 16 + [0] * 4), whole)
    assert spread.value == together.value == pytest.approx(0.8)
    assert together.high - together.low > 2 * (spread.high - spread.low)


def test_a_sample_of_most_images_is_nearly_exact() -> None:
    part, whole = np.arange(20) % 5, np.full(20, 5)
    widths = [share.high - share.low for share in (share_of(part, whole, run_images=n) for n in (None, 25, 20))]
    assert widths[0] > widths[1] > widths[2] == 0


def test_nothing_to_count() -> None:
    share = share_of(np.zeros(5), np.zeros(5))
    assert math.isnan(share.value)
    assert (share.count, share.images) == (0, 0)


def test_one_image_says_next_to_nothing() -> None:
    share = share_of([0, 9, 0], [0, 10, 0])
    assert share.value == pytest.approx(0.9)
    assert share.low < 0.4


@pytest.mark.parametrize(("right", "size", "alike"), [(0.9, 5, 0.05), (0.7, 5, 0.3), (0.95, 15, 0.05), (0.8, 2, 0.1)])
@pytest.mark.parametrize("images", [20, 50])
def test_holds_nine_times_in_ten(right: float, size: int, alike: float, images: int) -> None:
    """Runs of 600 images whose labels are right with a probability that differs from image to image."""
    rng = np.random.default_rng(7)
    held = []
    for _ in range(400):
        part, whole = _run(rng, right, size, alike)
        drawn = rng.choice(600, images, replace=False)
        share = share_of(part[drawn], whole[drawn], run_images=600)
        held.append(share.low <= part.sum() / whole.sum() <= share.high)
    assert 0.85 <= np.mean(held) <= 0.95


def _run(rng: np.random.Generator, right: float, size: int, alike: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    whole = rng.poisson(size, 600)
    spread = 1 / alike - 1
    return rng.binomial(whole, rng.beta(right * spread, (1 - right) * spread, 600)), whole


def made_run(rng: np.random.Generator, telling: float) -> tuple[npt.NDArray[Any], ...]:
    """600 images with some five labels each: the image of each label, its trust, and if it is right; calibrated, and the more
    telling the further apart trust is."""
    image = np.repeat(np.arange(600), rng.poisson(5, 600))
    trust = 1 / (1 + np.exp(-(2 + telling * rng.normal(size=len(image)))))
    return image, trust, rng.random(len(image)) < trust


def by_image(image: npt.NDArray[Any], values: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.bincount(image, weights=values, minlength=600)[drawn]


@pytest.mark.parametrize("telling", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("bias", [0.0, -0.1])
def test_precision_by_trust_holds_and_is_narrower_the_more_trust_tells(telling: float, bias: float) -> None:
    """Also where trust is wrong by the same amount everywhere: the sample corrects it."""
    rng = np.random.default_rng(3)
    held, ours, plain = [], [], []
    for _ in range(300):
        image, trust, right = made_run(rng, telling)
        drawn = rng.choice(600, 40, replace=False)
        said = (trust + bias).clip(0.01, 0.99)
        labels, is_right = by_image(image, np.ones(len(image)), drawn), by_image(image, right, drawn)
        others = ~np.isin(image, drawn)
        share = precision_of(
            is_right, labels, by_image(image, said, drawn), by_image(image, said * (1 - said), drawn),
            float(others.sum()), float(said[others].sum()),
        )  # fmt: skip
        held.append(share.low <= right.mean() <= share.high)
        ours.append(share.high - share.low)
        direct = share_of(is_right, labels, run_images=600)
        plain.append(direct.high - direct.low)
    assert 0.85 <= np.mean(held) <= 0.97  # not 0.95: intervals pay for a fit to the sample (FITTED) that this trust never had
    if telling == 3 and not bias:
        assert np.mean(ours) < 0.8 * np.mean(plain)
    assert np.mean(ours) < (1.4 if bias else 1.25) * np.mean(plain)  # wrong trust is no help, and costs little


def test_precision_where_all_was_right_is_no_certainty() -> None:
    labels, trust = np.full(20, 3.0), np.full(20, 3 * 0.99)
    share = precision_of(labels, labels, trust, trust * 0.01, 1000.0, 990.0)
    assert share.value > 0.98
    assert share.low < 0.98
    nothing = precision_of(np.zeros(20), np.zeros(20), np.zeros(20), np.zeros(20), 9.0, 5.0)
    assert math.isnan(nothing.value)
