"""A share (precision, missed objects) of a whole run from a random sample of its images, with an interval that is honest.

What lies in one image is not independent, so images are what is drawn: the variance is that of a ratio of sums over images
(Cochran, Sampling Techniques, ch. 6), turned into the number of independent labels that would be as informative, and the
interval is Jeffreys' for so many (as Korn and Graubard do with Clopper-Pearson's, which covers more than it says). Where nothing
was wrong in the sample the interval still has a width, which a bootstrap over images would not give.
`benchmarks/quality_coverage.py` measures how often it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.90


@dataclass(frozen=True)
class Share:
    """`value` with its interval `low`..`high`, nan where nothing was counted; `count` labels or objects in `images` images."""

    value: float
    low: float
    high: float
    count: int
    images: int


def share_of(part: npt.ArrayLike, whole: npt.ArrayLike, *, run_images: int | None = None, level: float = LEVEL) -> Share:
    """Sum of `part` over sum of `whole`, a number each for every sampled image, (n,).

    `run_images` is how many images the sample was drawn from: what is known for most of them is hardly uncertain.
    """
    from scipy.stats import beta, norm, t

    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    count, images = float(wholes.sum()), int((wholes > 0).sum())
    if not count:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    value = float(parts.sum()) / count
    unseen = 1.0 if run_images is None else 1 - len(wholes) / max(run_images, len(wholes))
    if not unseen:
        return Share(value, value, value, int(count), images)
    tail = (1 - level) / 2
    worth = count if images > 1 else 1.0
    variance = images / max(1, images - 1) * float(((parts - value * wholes) ** 2).sum()) / count**2
    if images > 1 and variance > 0:
        from_few_images = float((norm.ppf(tail) / t.ppf(tail, images - 1)) ** 2)  # as the variance itself is
        worth = min(worth, from_few_images * value * (1 - value) / variance)
    worth /= unseen
    low, high = (float(beta.ppf(q, value * worth + 0.5, (1 - value) * worth + 0.5)) for q in (tail, 1 - tail))
    return Share(value, min(low, value), max(high, value), int(count), images)
