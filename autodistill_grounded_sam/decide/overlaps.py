"""Several boxes on one thing, one box on several things: duplicates and herds.

One object inside another of its kind can be the same object again, a part of it, or one of a herd. The order and the rules:

1. `same` pairs (IoU): the worse is a duplicate. Members of a herd are counted only after that, so none is counted twice.
2. Herds go before containment is judged. A herd often scores higher than its members and would take them all with it.
3. `contained` pairs: the worse is a duplicate, with two exceptions where both stay, because they are most likely two objects:
   a small better one inside a far larger worse one (too few for a herd, and a part does not disprove its whole), and, in
   runs without masks, any far smaller one: the box of a child before an adult lies inside the adult's box, its mask
   does not lie inside the adult's mask. "Far" is less than a quarter of the area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam import masks
from autodistill_grounded_sam.types import Float32, Int32, Rle

Flags = npt.NDArray[np.bool_]

# On six human-annotated sets (9,492 objects) a box-only containment rule without this exception would delete 20 true objects,
# with it 4, and those sit among touching cell nuclei.
SAME_OBJECT_AREA = 0.25
MEMBER_AREA = 0.5  # a member covers less than half of its herd; two that cover more are one object seen twice


@dataclass(frozen=True)
class Overlaps:
    """Pairs among k candidates that stand best first. `same` (k, k): IoU reaches the limit; `inside` (k, k): row lies in column.

    `area` (k,) in pixels. Pairs that nothing forbids to be two objects (different classes, not exclusive) are False in both.
    """

    same: Flags
    inside: Flags
    area: npt.NDArray[np.float64]
    of_masks: bool


def measure_overlaps(
    xyxy: Float32,
    area: npt.NDArray[np.float64],
    rles: Sequence[Rle] | None,
    comparable: Flags,
    iou_limit: float,
    containment_limit: float,
) -> Overlaps:
    """Compare masks, or boxes where `rles` is None; `xyxy` are the tight boxes, `comparable` (k, k) the pairs to look at.

    The box of two masks' intersection bounds the intersection, so most pairs are settled without touching a mask.
    """
    k = len(xyxy)
    size = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:]) - np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    shared = np.clip(size, 0, None).prod(axis=2, dtype=np.float64)
    smaller = np.minimum(area[:, None], area[None, :])
    smaller = np.maximum(smaller, np.finfo(np.float64).tiny)
    # A little less than the limit: a product of floats may lie above the whole number that it stands for.
    pairs = comparable & (shared > 0) & (shared >= 0.999999 * min(iou_limit, containment_limit) * smaller)
    np.fill_diagonal(pairs, False)
    if not pairs.any():
        return Overlaps(pairs, pairs, area, rles is not None)
    # Both as float32, like the answers of `masks`: 7 of 10 pixels reach a limit of 0.7 in runs with and without masks.
    iou, containment = np.zeros((k, k), np.float32), np.zeros((k, k), np.float32)
    if rles is None:
        iou[:] = shared / np.maximum(area[:, None] + area[None, :] - shared, smaller)
        containment[:] = shared / smaller
    else:
        some = np.flatnonzero(pairs.any(axis=1))
        codes = [rles[int(i)] for i in some]
        iou[np.ix_(some, some)], containment[np.ix_(some, some)] = masks.iou_and_containment(codes, codes)
    pairs &= iou > 0
    within = pairs & (containment >= containment_limit) & (area[:, None] <= area[None, :])
    return Overlaps(pairs & (iou >= iou_limit), within, area, rles is not None)


def suppress(worse_goes: Flags, alive: Flags) -> tuple[Flags, Int32]:
    """Greedy, best first: whoever still stands takes out the later ones that it is paired with in `worse_goes` (k, k).

    Returns who still stands, (k,), and whom each one that fell lost to, (k,) int32 with -1 for none.
    """
    alive, rival = alive.copy(), np.full(len(alive), -1, np.int32)
    for i in np.flatnonzero(worse_goes.any(axis=1)):
        if alive[i]:
            fallen = worse_goes[i] & alive
            fallen[: i + 1] = False
            alive[fallen] = False
            rival[fallen] = i
    return alive, rival


def find_herds(overlaps: Overlaps, class_id: Int32, alive: Flags, members: int) -> Flags:
    """(k,) True for one box around at least `members` standing smaller ones of its own class that do not lie in one another.

    Smallest first, so that a herd inside a herd is not counted as one of its members.
    """
    own = alive[:, None] & alive[None, :] & (class_id[:, None] == class_id[None, :])
    contained = overlaps.inside & own & (overlaps.area[:, None] < MEMBER_AREA * overlaps.area[None, :])
    touching = overlaps.same | overlaps.inside | overlaps.inside.T
    herds = np.zeros(len(alive), np.bool_)
    crowded = np.flatnonzero(contained.sum(axis=0) >= members)
    for herd in crowded[np.argsort(overlaps.area[crowded], kind="stable")]:
        distinct: list[int] = []
        for i in np.flatnonzero(contained[:, herd] & ~herds):
            if not touching[i, distinct].any():
                distinct.append(int(i))
        herds[herd] = len(distinct) >= members
    return herds


def one_object(overlaps: Overlaps) -> Flags:
    """(k, k) symmetric: pairs of which one lies in the other and which are one object, by rule 3 above."""
    alike = overlaps.area[:, None] >= SAME_OBJECT_AREA * overlaps.area[None, :]
    better_is_larger = np.tri(len(overlaps.area), k=-1, dtype=np.bool_)  # row lies in column, and comes after it
    holds: Flags = overlaps.inside & (alike | (better_is_larger & overlaps.of_masks))
    one: Flags = holds | holds.T
    return one
