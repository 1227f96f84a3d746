"""The probability that a label is right (its `trust`), from what the models said about it; fitted to a few labelled images.

A ridge logistic regression on the facts of a label, and an offset a class that is held near 0 until many labels speak for it.
`docs/quality.md` compares it with isotonic regression of the score alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.quality.facts import AREA, FACTS, Floats
from autodistill_grounded_sam.types import Float32, Int32

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.integer[Any]]

RIDGE = 3.0  # on standardised facts: a prior of 0.6 units of log odds a standard deviation
FOLDS = 10
# One made-up right and one made-up wrong label of half weight each at the average of all facts (Jeffreys' prior): with no error
# among twenty labels the probability of a right one is 0.98, not 1.
PRIOR_WEIGHT = 0.5


@dataclass(frozen=True)
class Calibration:
    """Fitted weights: log odds = `intercept` + `offsets[class]` + `weights` @ ((facts - `mean`) / `scale`).

    There the area of a label stands as its distance from `areas[class]`, the middle one of its class (logarithms of both): what
    is far larger or smaller than its like is often two of them, or half of one.
    """

    intercept: float
    weights: tuple[float, ...]
    offsets: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    areas: tuple[float, ...]

    def trust(self, facts: Floats, class_id: Int32) -> Float32:
        """The probability (m,) that each label is right, from its `facts` (m, 9) and class (m,)."""
        facts = facts[:, : len(self.weights)]  # an older calibration knows fewer
        standard = (_beside_its_like(facts, class_id, np.array(self.areas)) - np.array(self.mean)) / np.array(self.scale)
        odds = self.intercept + np.array(self.offsets)[class_id] + standard @ np.array(self.weights)
        trust: Float32 = _sigmoid(odds).astype(np.float32)
        return trust

    def document(self) -> dict[str, Any]:
        """As plain data; `from_document` gives it back."""
        return {**asdict(self), "facts": list(FACTS)}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Calibration:
        names = ("weights", "offsets", "mean", "scale", "areas")
        rows = (tuple(float(value) for value in document[name]) for name in names)
        return Calibration(float(document["intercept"]), *rows)


def fit(facts: Floats, class_id: Int32, right: Flags, classes: int) -> Calibration:
    """The calibration of labels with `facts` (m, 9) and `class_id` (m,), of which those of `right` (m,) are right."""
    from scipy.optimize import minimize

    areas = _middle_areas(facts, class_id, classes)
    facts = _beside_its_like(facts, class_id, areas)
    mean = facts.mean(axis=0) if len(facts) else np.zeros(len(FACTS))
    spread = facts.std(axis=0) if len(facts) else np.zeros(len(FACTS))
    scale = np.where(spread > 1e-6, spread, 1.0)
    design = np.zeros((len(facts) + 2, 1 + len(FACTS) + classes))
    design[:, 0] = 1
    design[:-2, 1 : 1 + len(FACTS)] = (facts - mean) / scale
    design[np.arange(len(facts)), 1 + len(FACTS) + class_id] = 1
    target = np.append(right.astype(np.float64), [0.0, 1.0])
    weight = np.append(np.ones(len(facts)), [PRIOR_WEIGHT, PRIOR_WEIGHT])
    ridge = np.append(0.0, np.full(design.shape[1] - 1, RIDGE))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        odds = design @ parameters
        value = weight @ (np.logaddexp(0, odds) - target * odds) + ridge @ parameters**2 / 2
        return float(value), design.T @ (weight * (_sigmoid(odds) - target)) + ridge * parameters

    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x.tolist()
    weights, offsets = found[1 : 1 + len(FACTS)], found[1 + len(FACTS) :]
    return Calibration(found[0], tuple(weights), tuple(offsets), *(tuple(row.tolist()) for row in (mean, scale, areas)))


def cross_fit(
    facts: Floats, class_id: Int32, right: Flags, image: Places, classes: int, *, folds: int = FOLDS
) -> tuple[Float32, list[Calibration]]:
    """The trust (m,) of each label by a calibration that never saw its image, and these calibrations; `image` (m,) numbers the
    image of each.

    Labels of one image are not independent, so whole images are left out.
    """
    names, place = np.unique(image, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[place] % max(2, min(folds, len(names)))
    trust, calibrations = np.zeros(len(facts), np.float32), []
    for number in np.unique(fold):
        mine = fold == number
        calibrations.append(fit(facts[~mine], class_id[~mine], right[~mine], classes))
        trust[mine] = calibrations[-1].trust(facts[mine], class_id[mine])
    return trust, calibrations


def log_loss(trust: Float32, right: Flags) -> float:
    """Mean negative log likelihood of what came true, in nats; lower is better."""
    p = np.where(right, trust, 1 - trust.astype(np.float64)).clip(1e-6, 1)
    return float(-np.log(p).mean())


def _middle_areas(facts: Floats, class_id: Int32, classes: int) -> Floats:
    """The median logarithm of the area of each class, (C,); that of all labels for a class without one."""
    of_all = float(np.median(facts[:, AREA])) if len(facts) else 0.0
    mine = (facts[class_id == place, AREA] for place in range(classes))
    return np.array([np.median(area) if len(area) else of_all for area in mine])


def _beside_its_like(facts: Floats, class_id: Int32, areas: Floats) -> Floats:
    """The facts with the distance of each area from that of its class in its place."""
    beside: Floats = facts.copy()
    beside[:, AREA] = np.abs(facts[:, AREA] - areas[class_id])
    return beside


def _sigmoid(odds: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(odds), np.float64)
