"""From trials to choices: per class the words and the threshold, for all the duplicate settings, each where it is proven.

The measure is F1 at IoU 0.5. A choice is made on some images and measured on the others (cross-validation over images), beside
what the given settings reach on the very same ones; images are drawn again and again for the interval of the difference. Only
where that lies above 0 is anything changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.tune.trials import THRESHOLDS, Counts, Curve, f1

FOLDS = 10
DRAWS = 1000  # of images, for intervals
BAGS = 40  # of images, for a threshold: the median of what each calls best moves less than what all call best
LEVEL = 0.90
FEWEST_IMAGES, FEWEST_OBJECTS = 5, 10  # of a class: below either nothing can be proven
SMALL_GAIN = 0.005  # of F1; nobody should label more images for less

Verdict = Literal["changed", "kept", "refused"]


@dataclass(frozen=True)
class Fixed:
    """One class as it is decided with the given settings: labels kept, right ones and objects, (n,) each."""

    labels: Counts
    right: Counts
    objects: Counts


@dataclass(frozen=True)
class Gain:
    """F1 of the given settings and of those chosen, on images that had no say in the choice; the difference with its interval.

    `precision` and `recall` are those of the chosen ones.
    """

    before: float
    after: float
    gain: float
    low: float
    high: float
    precision: float
    recall: float

    @property
    def proven(self) -> bool:
        return self.low > 0


@dataclass(frozen=True)
class Pick:
    """What was picked from a list of curves: the place of the curve, and the threshold."""

    place: int
    threshold: float


def pick(curves: Sequence[Curve], images: npt.NDArray[np.intp]) -> Pick:
    """The curve and threshold of the best F1 on these images; of equal ones the first curve."""
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=BAGS).astype(np.float64)
    best, best_f1 = Pick(0, float(THRESHOLDS[0])), -1.0
    for place, curve in enumerate(curves):
        labels, right, objects = curve.labels[images], curve.right[images], curve.objects[images]
        bagged = f1(weights @ right, weights @ labels, (weights @ objects)[:, None])
        at = int(np.median([_middle_of_best(row) for row in bagged]))
        reached = float(f1(right[:, at].sum(), labels[:, at].sum(), objects.sum()))
        if reached > best_f1 + 1e-9:
            best, best_f1 = Pick(place, round(float(THRESHOLDS[at]), 2)), reached
    return best


def cross_validated(curves: Sequence[Curve], given: Fixed) -> tuple[Gain, Fixed]:
    """What picking from these curves is worth, on images left out of the pick; and the counts behind it."""
    n = len(given.objects)
    labels, right = np.zeros(n), np.zeros(n)
    fold = np.random.default_rng(0).permutation(n) % max(2, min(FOLDS, n))
    for number in np.unique(fold):
        out = fold == number
        chosen = pick(curves, np.flatnonzero(~out))
        at = int(np.searchsorted(THRESHOLDS, np.float32(chosen.threshold)))
        labels[out], right[out] = curves[chosen.place].labels[out, at], curves[chosen.place].right[out, at]
    after = Fixed(labels, right, given.objects)
    return gain_of(given, after), after


def gain_of(before: Fixed, after: Fixed) -> Gain:
    """The difference in F1 over the same images, with the interval that drawing images gives it."""
    n = len(before.objects)
    weights = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    drawn = [f1(weights @ one.right, weights @ one.labels, weights @ one.objects) for one in (before, after)]
    low, high = np.quantile(drawn[1] - drawn[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    old, new = (float(f1(one.right.sum(), one.labels.sum(), one.objects.sum())) for one in (before, after))
    right = float(after.right.sum())
    precision, recall = right / max(1.0, float(after.labels.sum())), right / max(1.0, float(after.objects.sum()))
    return Gain(old, new, new - old, float(low), float(high), precision, recall)


def images_missing(objects: Counts) -> int:
    """How many images more (of the same kind) a class needs before anything can be said of it; 0 if there are enough."""
    n, holding, total = len(objects), int((objects > 0).sum()), float(objects.sum())
    if holding >= FEWEST_IMAGES and total >= FEWEST_OBJECTS:
        return 0
    by_images, by_objects = FEWEST_IMAGES / max(holding, 0.5), FEWEST_OBJECTS / max(total, 0.5)
    return max(1, math.ceil(n * (max(by_images, by_objects) - 1)))


def images_to_prove(gain: Gain, images: int) -> int:
    """How many images more would prove a gain of this size: an interval narrows with the root of the images."""
    half_width = max(gain.gain - gain.low, (gain.high - gain.low) / 2)
    return max(1, math.ceil(images * ((half_width / max(gain.gain, 1e-6)) ** 2 - 1)))


def _middle_of_best(row: Counts) -> int:
    """The middle of the first stretch of thresholds that share the best F1."""
    best = np.flatnonzero(row >= row.max() - 1e-9)
    stretch = best[: int(np.argmax(np.append(np.diff(best) > 1, True))) + 1]
    return int(stretch[len(stretch) // 2])
