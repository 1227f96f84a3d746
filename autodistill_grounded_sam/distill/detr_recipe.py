"""How a detection transformer learns: the settings, without torch, so that they are checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How to learn. `lr` is the rate of all but the backbone, which learns at `backbone_share` of it; `mirror` shows pictures
    mirrored as well; without `val` the validation split is never looked at, and the last weights count as the best."""

    epochs: int
    batch: int
    seed: int
    lr: float = 1e-4
    backbone_share: float = 0.1
    weight_decay: float = 1e-4
    largest_gradient: float = 1.0
    mirror: bool = True
    val: bool = True
