"""Several boxes on one thing, one box on several things: duplicates and herds, in many images at once.

One object inside another of its kind can be the same object again, a part of it, or one of a herd. The order and the rules:

1. `same` pairs (IoU): the worse is a duplicate. Members of a herd are counted only after that, so none is counted twice.
2. Herds go before containment is judged. A herd often scores higher than its members and would take them all with it.
3. `contained` pairs: the worse is a duplicate, with two exceptions where both stay, because they are most likely two objects:
   a small better one inside a far larger worse one (too few for a herd, and a part does not disprove its whole), and, in
   runs without masks, any far smaller one: the box of a child before an adult lies inside the adult's box, its mask
   does not lie inside the adult's mask. "Far" is less than a quarter of the area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.mask_runs import Runs
from autodistill_grounded_sam.types import Float32, Int32

Flags = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]  # of candidates: those of an image lie together, best first

# On six human-annotated sets (9,492 objects) a box-only containment rule without this exception would delete 20 true objects,
# with it 4, and those sit among touching cell nuclei.
SAME_OBJECT_AREA = 0.25
MEMBER_AREA = 0.5  # a member covers less than half of its herd; two that cover more are one object seen twice


@dataclass(frozen=True)
class Overlaps:
    """The p pairs that overlap enough to matter: `first` (p,) is better than `second` (p,), in order of the two.

    `same`: IoU reaches the limit; `first_inside`: the first lies in the second; `second_inside`: the other way round.
    """

    first: Places
    second: Places
    same: Flags
    first_inside: Flags
    second_inside: Flags


def pairs_of(image: Places) -> tuple[Places, Places]:
    """Every pair within an image, better one first; `image` (k,) is the sorted number of the image that each lies in."""
    after = np.searchsorted(image, image, "right") - np.arange(len(image)) - 1
    first = np.repeat(np.arange(len(image)), after)
    return first, np.arange(len(first)) + np.repeat(np.arange(len(image)) + 1 - (np.cumsum(after) - after), after)


def measure_overlaps(
    pairs: tuple[Places, Places],
    xyxy: Float32,
    area: Float64,
    runs: Runs,
    mask: Places,
    iou_limit: float,
    containment_limit: float,
) -> Overlaps:
    """Compare masks, or boxes where there are none, in these pairs of k candidates.

    `xyxy` (k, 4) are the tight boxes, `area` (k,) the pixels, `mask` (k,) the place of each one's mask in `runs`, or -1. The box
    of two masks' intersection bounds the intersection, so most pairs are settled without touching a mask.
    """
    first, second = pairs
    size = np.minimum(xyxy[first, 2:], xyxy[second, 2:]) - np.maximum(xyxy[first, :2], xyxy[second, :2])
    shared = np.clip(size, 0, None).prod(axis=1, dtype=np.float64)
    smaller = np.maximum(np.minimum(area[first], area[second]), np.finfo(np.float64).tiny)
    # A little less than the limit: a product of floats may lie above the whole number that it stands for.
    near = (shared > 0) & (shared >= 0.999999 * min(iou_limit, containment_limit) * smaller)
    first, second, shared, smaller = first[near], second[near], shared[near], smaller[near]
    masked = mask[first] >= 0
    shared[masked] = runs.shared(mask[first[masked]], mask[second[masked]])
    # As float32: 7 of 10 pixels reach a limit of 0.7.
    iou = (shared / np.maximum(area[first] + area[second] - shared, smaller)).astype(np.float32)
    same, within = (iou >= iou_limit) & (iou > 0), ((shared / smaller).astype(np.float32) >= containment_limit) & (iou > 0)
    first_inside, second_inside = within & (area[first] <= area[second]), within & (area[second] <= area[first])
    some = same | within
    return Overlaps(first[some], second[some], same[some], first_inside[some], second_inside[some])


def suppress(overlaps: Overlaps, goes: Flags, alive: Flags) -> tuple[Flags, Int32]:
    """Greedy, best first: whoever still stands takes out the worse ones that it is paired with where `goes` (p,) is True.

    Returns who still stands, (k,), and whom each one that fell lost to, (k,) int32 with -1 for none.
    """
    alive, rival = alive.copy(), np.full(len(alive), -1, np.int32)
    for better, worse in zip(overlaps.first[goes].tolist(), overlaps.second[goes].tolist(), strict=True):
        if alive[better] and alive[worse]:
            alive[worse] = False
            rival[worse] = better
    return alive, rival


def find_herds(overlaps: Overlaps, class_id: Int32, area: Float64, alive: Flags, members: int) -> Flags:
    """(k,) True for one box around at least `members` standing smaller ones of its own class that do not lie in one another.

    Smallest first, so that a herd inside a herd is not counted as one of its members.
    """
    first, second = overlaps.first, overlaps.second
    inner = np.concatenate([first[overlaps.first_inside], second[overlaps.second_inside]])
    outer = np.concatenate([second[overlaps.first_inside], first[overlaps.second_inside]])
    own = alive[inner] & alive[outer] & (class_id[inner] == class_id[outer]) & (area[inner] < MEMBER_AREA * area[outer])
    inner, outer = inner[own], outer[own]
    herds = np.zeros(len(alive), np.bool_)
    crowded = np.flatnonzero(np.bincount(outer, minlength=len(alive)) >= members)
    if not len(crowded):
        return herds
    touching = set(zip(first.tolist(), second.tolist(), strict=True))
    for herd in crowded[np.argsort(area[crowded], kind="stable")]:
        distinct: list[int] = []
        for i in np.sort(inner[outer == herd]).tolist():
            if not herds[i] and not any((other, i) in touching for other in distinct):
                distinct.append(i)
        herds[herd] = len(distinct) >= members
    return herds


def one_object(overlaps: Overlaps, area: Float64, mask: Places) -> Flags:
    """(p,) pairs of which one lies in the other and which are one object, by rule 3 above; `mask` (k,) is -1 for a box."""
    first, second = overlaps.first, overlaps.second
    first_is_one = area[first] >= SAME_OBJECT_AREA * area[second]
    second_is_one = (area[second] >= SAME_OBJECT_AREA * area[first]) | (mask[second] >= 0)  # a worse part of a better whole
    one: Flags = (overlaps.first_inside & first_is_one) | (overlaps.second_inside & second_is_one)
    return one
