"""Shares of a whole run (precision, missed objects) from a random sample of its images, with intervals that are honest.

What lies in one image is not independent, so images are what is drawn: the variance is that of a ratio of sums over images
(Cochran, Sampling Techniques, ch. 6), turned into the number of independent labels that would be as informative, and the
interval is Jeffreys' for so many (as Korn and Graubard do with Clopper-Pearson's, which covers more than it says). Where nothing
was wrong in the sample it still has a width, which a bootstrap over images would not give.

Precision has more to go by: the trust of every label of the run. Its mean, corrected by what it was wrong by in the sample,
varies only with that error (the difference estimator, Cochran ch. 7; prediction-powered inference): its intervals are narrower.
`benchmarks/quality_coverage.py` measures how often both hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.90
FITTED = 5  # numbers of a calibration that a sample pays for: an intercept and a weight for each of four facts


@dataclass(frozen=True)
class Share:
    """`value` with its interval `low`..`high`, nan where nothing was counted; `count` labels or objects in `images` images."""

    value: float
    low: float
    high: float
    count: int
    images: int


NOTHING = Share(float("nan"), float("nan"), float("nan"), 0, 0)


def share_of(part: npt.ArrayLike, whole: npt.ArrayLike, *, run_images: int | None = None, level: float = LEVEL) -> Share:
    """Sum of `part` over sum of `whole`, a number each for every sampled image, (n,).

    `run_images` is how many images the sample was drawn from: what is known for most of them is hardly uncertain.
    """
    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    count = float(wholes.sum())
    if not count:
        return NOTHING
    value = float(parts.sum()) / count
    unseen = 1.0 if run_images is None else 1 - len(wholes) / max(run_images, len(wholes))
    images = int((wholes > 0).sum())
    worth = count if images > 1 else 1.0
    variance = _ratio_variance(parts - value * wholes, wholes, level)
    if images > 1 and variance > 0:
        worth = min(worth, value * (1 - value) / variance)
    return _jeffreys(value, worth / unseen if unseen else np.inf, count, images, level)


def precision_of(
    right: Floats, labels: Floats, trust: Floats, spread: Floats, others: float, others_trust: float, *, level: float = LEVEL
) -> Share:
    """The share of right ones among the labels of n sampled images and the `others` labels of the run.

    Of each sampled image, (n,): how many `labels` it has and how many are `right`, the sum of their `trust` p (each by a
    calibration that never saw the image) and of its `spread` p (1 - p). `others_trust` is the sum of trust over the other labels.
    """
    count = float(labels.sum())
    if not count:
        return NOTHING
    error = float((right - trust).sum()) / count
    value = min(max((float(right.sum()) + others_trust + others * error) / (count + others), 0.0), 1.0)
    images = int((labels > 0).sum())
    sampled = _ratio_variance(right - trust - error * labels, labels, level) if images > 1 else 1.0
    # Where few errors were met, the sample shows less variance than trust itself expects.
    variance = max(sampled, float(spread.sum()) / count**2)
    variance *= len(labels) / max(1, len(labels) - FITTED)  # trust was fitted to this very sample
    variance *= others / (count + others)  # the sampled labels are known
    likely = (value * count + 0.5) / (count + 1)
    return _jeffreys(value, likely * (1 - likely) / variance if variance else np.inf, count, images, level)


def _ratio_variance(residual: Floats, wholes: Floats, level: float) -> float:
    """The variance of a ratio of sums over images, from the `residual` of each; widened as it is itself from few images."""
    from scipy.stats import norm, t

    images = int((wholes > 0).sum())
    if images < 2:
        return 0.0
    tail = (1 - level) / 2
    few = float((t.ppf(tail, images - 1) / norm.ppf(tail)) ** 2)
    return few * images / (images - 1) * float((residual**2).sum()) / float(wholes.sum()) ** 2


def _jeffreys(value: float, worth: float, count: float, images: int, level: float) -> Share:
    """The interval of a share seen in as many independent labels as this sample is `worth`."""
    from scipy.stats import beta

    if np.isinf(worth):
        return Share(value, value, value, int(count), images)
    tail = (1 - level) / 2
    low, high = (float(beta.ppf(q, value * worth + 0.5, (1 - value) * worth + 0.5)) for q in (tail, 1 - tail))
    return Share(value, min(low, value), max(high, value), int(count), images)
