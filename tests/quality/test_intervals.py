"""Intervals of shares: known cases, what must widen and narrow them, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta

from autodistill_grounded_sam.quality.intervals import share_of


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
