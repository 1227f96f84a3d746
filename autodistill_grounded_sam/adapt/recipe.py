"""How to learn, chosen from the data and the model: size of the input, number of queries, what is frozen, how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.ontology import Ontology

# An object needs a few cells of the finest feature map (8 px each for every known model) to be told from its neighbours. On blood
# cells AP50 of the smallest class came to 0.50 with objects of 15 px and to 0.79 with 24 (docs/adapt.md).
LEAST_OBJECT_PX = 24
# What tells kinds apart is smaller than the objects: for boards that differ by their print, AP50 was 0.69 at 160 px and 0.76 at
# 256, with objects of 50 px already at 160 (docs/real.md).
LEAST_SMALL_SIDE_PX = 256  # of a small model's input, where the images have as much to show
SMALL_MODEL = 20e6  # parameters: `mini` has 1.9 million, the smallest released Grounding DINO 172 million
LARGEST_SMALL_SIDE_PX = 480  # of a small model's input: beyond, minutes on a processor are too few to learn anything
SIDE_STEP_PX = 32  # the coarsest cell
SPARE_QUERIES = 1.5  # a query of its own for every object, and some that may be wrong
MOST_QUERIES = 900  # of every released model
HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 20
LEAST_TO_HOLD_OUT = 5  # of fewer images none can be spared: then nothing stops early, and no AP is told
FREEZE_BACKBONE_BELOW = 200  # images: fewer of them spoil what a large backbone has learnt from millions


@dataclass(frozen=True)
class Recipe:
    """Everything beside the data and the parent that the adapted weights depend on.

    Either `steps` or `minutes` is given: as many steps as fit into them, found out at the start. `frozen` are prefixes of
    parameter names. `turns` learns quarter turns as well. The learning rate is of everything but the backbone, which gets
    `backbone_share` of it.
    """

    shorter_side_px: int
    longer_side_px: int
    queries: int
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int = 4
    learning_rate: float = 5e-4
    backbone_share: float = 0.5
    frozen: tuple[str, ...] = ()
    turns: bool = False


def choose_recipe(examples: Sequence[Example], model: Any, trained_wh: tuple[int, int], **wishes: Any) -> Recipe:
    """The recipe for these examples; `trained_wh` are the (shorter, longer) sides that the model was trained at, `wishes` are
    fields of Recipe that the user has set (None: not)."""
    shorter, longer = trained_wh
    wanted = wishes.pop("shorter_side_px", None)
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL
    if wanted is not None:
        shorter = wanted
    elif small:
        shorter = max(shorter, min(LARGEST_SMALL_SIDE_PX, max(_side_for(examples), _least_side(examples))))
    longer = round(longer * shorter / trained_wh[0])
    chosen: dict[str, Any] = {
        "shorter_side_px": shorter,
        "longer_side_px": longer,
        "queries": _queries_for(examples, model.config.num_queries),
        "learning_rate": 5e-4 if small else 1e-4,
        "backbone_share": 0.5 if small else 0.1,
        "frozen": () if small else _frozen(len(examples)),
    }
    return Recipe(**(chosen | {name: value for name, value in wishes.items() if value is not None}))


def hold_out(examples: Sequence[Example], ontology: Ontology) -> tuple[list[Example], list[Example]]:
    """(to learn, held out): a fifth is held out, drawn by digest; never an image that a class cannot spare."""
    if len(examples) < LEAST_TO_HOLD_OUT:
        return list(examples), []
    wanted = min(MOST_HELD_OUT, max(1, round(len(examples) * HELD_OUT_SHARE)))
    left = np.array([[bool((example.class_id == k).any()) for k in range(len(ontology.classes))] for example in examples]).sum(0)
    held: list[str] = []
    for example in sorted(examples, key=lambda example: example.digest):
        own = np.unique(example.class_id)
        if len(held) < wanted and len(own) and (left[own] > 2).all():
            held.append(example.name)
            left[own] -= 1
    return [e for e in examples if e.name not in held], [e for e in examples if e.name in held]


def _side_for(examples: Sequence[Example]) -> int:
    """The shorter side at which the middle object of every class is at least `LEAST_OBJECT_PX` wide and high."""
    share_of: dict[int, list[float]] = {}
    for example in examples:
        sides = (example.xyxy[:, 2:] - example.xyxy[:, :2]).min(axis=1) / min(example.width, example.height)
        for class_id, share in zip(example.class_id.tolist(), sides.tolist(), strict=True):
            share_of.setdefault(class_id, []).append(share)
    least = min(float(np.median(shares)) for shares in share_of.values())
    return ceil(LEAST_OBJECT_PX / least / SIDE_STEP_PX) * SIDE_STEP_PX


def _least_side(examples: Sequence[Example]) -> int:
    """`LEAST_SMALL_SIDE_PX`, or the shorter side of the middle image if that is less: enlarged it shows no more."""
    shown = float(np.median([min(example.width, example.height) for example in examples]))
    return min(LEAST_SMALL_SIDE_PX, int(shown) // SIDE_STEP_PX * SIDE_STEP_PX)


def _queries_for(examples: Sequence[Example], now: int) -> int:
    """As many as the model has, or as the fullest image needs."""
    most = max(len(example.class_id) for example in examples)
    return min(MOST_QUERIES, max(now, ceil(most * SPARE_QUERIES / 10) * 10))


def _frozen(images: int) -> tuple[str, ...]:
    text = ("model.text_backbone.",)
    return text if images >= FREEZE_BACKBONE_BELOW else (*text, "model.backbone.")
