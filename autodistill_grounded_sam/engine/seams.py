"""What several looks at one image saw, as one: the same object seen twice, and an object that every tile shows a part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.types import Candidates, Float32, Mask

Tile = tuple[int, int, int, int]  # x1, y1, x2, y2 in the image
Flags = npt.NDArray[np.bool_]

SAME_OBJECT_IOU = 0.7  # of two looks, as `decide` calls two labels duplicates: the border moves a little with the scale
SAME_CLASS_IOU = 0.55  # enough where both looks say the same of it, after weighted boxes fusion (arXiv:1910.13302)
LARGER = 2.0  # times the area of what lies in it: a whole, not the same object with a loose box
PART_INSIDE = 0.85  # of a part's area, as `decide` has it: so much in another object makes it that object's
EDGE_PX = 2.0  # a box that ends so near to a tile's inner edge is a part of something larger


@dataclass(frozen=True)
class Part:
    """What a tile shows of an object that its inner edge cuts: box in the image, scores (P,), and mask in the tile."""

    tile: Tile
    xyxy: Float32
    scores: Float32
    mask: Mask


def merge_looks(looks: Sequence[Candidates]) -> Candidates:
    """What several looks at one image saw, in one frame, as one: best first, each object once.

    Greedy, from the highest top score down: a box takes from each other look the one box left there that overlaps it most, if
    by an IoU of `SAME_CLASS_IOU` where both have the same best prompt, else of `SAME_OBJECT_IOU`; that one goes, and the scores
    become the element-wise maximum. Boxes of one look are never one candidate, not even by way of a third. The first look is
    the coarsest: its box yields to that of any other.
    """
    boxes, scores = np.concatenate([look.xyxy for look in looks]), np.concatenate([look.scores for look in looks])
    look_of = np.repeat(np.arange(len(looks)), [len(look) for look in looks])
    order = np.argsort(-scores.max(axis=1, initial=0), kind="stable")
    boxes, scores, look_of = boxes[order], scores[order], look_of[order]
    agreement = None
    if any(look.agreement is not None for look in looks):
        agreement = np.concatenate(
            [np.zeros(len(look), np.float32) if look.agreement is None else look.agreement for look in looks]
        )[order]
    best = scores.argmax(axis=1) if scores.shape[1] else np.zeros(len(boxes), np.intp)
    alive = np.ones(len(boxes), np.bool_)

    def partners(row: int, looks_in_it: Sequence[int]) -> npt.NDArray[np.intp]:
        left = row + 1 + np.flatnonzero(alive[row + 1 :] & ~np.isin(look_of[row + 1 :], looks_in_it))
        iou = box_iou(boxes[row], boxes[left])
        enough = iou >= np.where(best[left] == best[row], SAME_CLASS_IOU, SAME_OBJECT_IOU)
        closest = left[enough][np.argsort(-iou[enough], kind="stable")]
        return closest[np.unique(look_of[closest], return_index=True)[1]]

    for row in range(len(boxes)):
        if alive[row]:
            own = int(look_of[row])
            same = partners(row, [own])
            alive[same] = False
            if own == 0 and len(same):
                boxes[row] = boxes[same.min()]
                more = partners(row, [own, *look_of[same].tolist()])  # that only the better box reaches
                alive[more] = False
                same = np.concatenate([same, more])
            scores[row] = np.maximum(scores[row], scores[same].max(axis=0, initial=0))
    return Candidates(boxes[alive], scores[alive], agreement=None if agreement is None else agreement[alive])


def is_cut(xyxy: Float32, tile: Tile, width: int, height: int) -> Flags:
    """(n,) whether an inner edge of the tile cuts each box."""
    return np.asarray(_cut_edges(xyxy, tile, width, height).any(axis=1))


def _cut_edges(xyxy: Float32, tile: Tile, width: int, height: int) -> Flags:
    """(n, 4) whether the tile's left, top, right, bottom edge cuts each box; never an edge of the image itself."""
    inner = np.array([tile[0] > 0, tile[1] > 0, tile[2] < width, tile[3] < height])
    beyond = np.concatenate([xyxy[:, :2] - tile[:2], np.array(tile[2:], np.float32) - xyxy[:, 2:]], axis=1)
    return np.asarray((beyond < EDGE_PX) & inner)


def unexplained(parts: Candidates, found: Candidates) -> Candidates:
    """The parts in a tile that do not lie in an object that was found whole and scores at least half as high."""
    owner = _inside(parts, found) & (_best(found) >= _best(parts)[:, None] / 2)
    return parts.select(np.asarray(~owner.any(axis=1)))


def mistaken_parts(look: Candidates, whole: Candidates, tile: Tile) -> Flags:
    """(n,) which boxes of a tile are most likely a corner of something larger: they lie in an object that the tile cannot show
    whole and the whole look saw, at least as sure, and the whole look saw nothing like them, however faint."""
    boxes = whole.xyxy
    beyond = np.concatenate([boxes[:, :2] - tile[:2], np.array(tile[2:], np.float32) - boxes[:, 2:]], axis=1) < -EDGE_PX
    larger = whole.select(np.asarray(beyond.any(axis=1)))
    owned = (_inside(look, larger) & (_best(larger) >= _best(look)[:, None])).any(axis=1)
    seen = np.array([(box_iou(box, boxes) >= SAME_OBJECT_IOU).any() for box in look.xyxy], np.bool_)
    return np.asarray(owned & ~seen)


def seen_in(found: Candidates, look: Candidates) -> Flags:
    """(n,) which of the found ones a look of another scale saw as well, however faintly, and however rough its box."""
    return np.array([(box_iou(box, look.xyxy) >= SAME_CLASS_IOU).any() for box in found.xyxy], np.bool_)


def parts_of_larger(found: Candidates, wider: Candidates) -> Flags:
    """(n,) which of the found ones a wider look, with more around them, takes for a part: it saw nothing like them, but
    something `LARGER` that they lie in, at least half as sure."""
    larger = _area(wider) >= LARGER * _area(found)[:, None]
    owned = (_inside(found, wider) & larger & (_best(wider) >= _best(found)[:, None] / 2)).any(axis=1)
    return np.asarray(owned & ~seen_in(found, wider))


def _area(seen: Candidates) -> Float32:
    return np.asarray((seen.xyxy[:, 2:] - seen.xyxy[:, :2]).prod(axis=1))


def _inside(parts: Candidates, others: Candidates) -> Flags:
    """(n, m) whether each of the n parts lies in each of the m others, but for its border."""
    sides = np.minimum(parts.xyxy[:, None, 2:], others.xyxy[:, 2:]) - np.maximum(parts.xyxy[:, None, :2], others.xyxy[:, :2])
    return np.asarray(sides.clip(0).prod(axis=2) >= PART_INSIDE * _area(parts)[:, None])


def _best(seen: Candidates) -> Float32:
    return np.asarray(seen.scores.max(axis=1, initial=0))


def with_partner(parts: Sequence[Candidates], tiles: Sequence[Tile]) -> list[Candidates]:
    """The parts in each tile that touch one in another tile, each of the two as far as the other's edge; only those can
    be joined, so only those need a mask."""
    boxes = np.concatenate([part.xyxy for part in parts])
    tile_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    sides = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
    own = np.array(tiles, np.float32)[tile_of]
    beyond = (boxes[:, None, :2] < own[:, :2] + EDGE_PX).any(axis=2) | (boxes[:, None, 2:] > own[:, 2:] - EDGE_PX).any(axis=2)
    partner = ((sides > 0).all(axis=2) & beyond & beyond.T).any(axis=1)
    return [part.select(partner[tile_of == tile]) for tile, part in enumerate(parts)]


def join_parts(parts: Sequence[Part], prompts: int, width: int, height: int) -> Candidates:
    """Whole objects made of their parts: the box around them, and the highest of their scores for each prompt.

    Two parts are of one object if their masks agree, by an IoU of `SAME_OBJECT_IOU`, in the strip that both tiles saw: two
    objects that touch there do not. The surest pairs join first, and two parts in one tile never do. What is still cut when all
    are joined is left out.
    """
    pairs = [(agreement(a, b), i, i + 1 + k) for i, a in enumerate(parts) for k, b in enumerate(parts[i + 1 :])]
    group = list(range(len(parts)))
    for iou, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if iou < SAME_OBJECT_IOU:
            break
        tiles = [{part.tile for part, own in zip(parts, group, strict=True) if own == group[k]} for k in (i, j)]
        if group[i] != group[j] and not tiles[0] & tiles[1]:
            group = [group[i] if own == group[j] else own for own in group]
    joined = [[part for part, own in zip(parts, group, strict=True) if own == number] for number in sorted(set(group))]
    whole = [(around, some) for some in joined if (around := _around(some, width, height)) is not None]
    boxes = np.array([around for around, _ in whole], np.float32).reshape(-1, 4)
    scores = np.array([np.max([part.scores for part in some], axis=0) for _, some in whole], np.float32).reshape(-1, prompts)
    return Candidates(boxes, scores)


def agreement(first: Part, second: Part) -> float:
    """IoU of two masks in the strip that both tiles saw; 0 where there is none, or where neither shows anything in it."""
    x1, y1 = np.maximum(first.tile[:2], second.tile[:2])
    x2, y2 = np.minimum(first.tile[2:], second.tile[2:])
    if first.tile == second.tile or x1 >= x2 or y1 >= y2:
        return 0.0
    a, b = (part.mask[y1 - part.tile[1] : y2 - part.tile[1], x1 - part.tile[0] : x2 - part.tile[0]] for part in (first, second))
    return float((a & b).sum() / max((a | b).sum(), 1))


def box_iou(box_xyxy: Float32, others_xyxy: Float32) -> Float32:
    """(n,) of one box with n others."""
    sides = np.minimum(box_xyxy[2:], others_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    common = sides.clip(0).prod(axis=1)
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(axis=1)
    union = (box_xyxy[2:] - box_xyxy[:2]).prod() + areas - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def _around(parts: Sequence[Part], width: int, height: int) -> Float32 | None:
    """The box around all parts, or None if one of its sides is where tiles cut the object, and none shows it end there."""
    boxes = np.array([part.xyxy for part in parts], np.float32)
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    cut = np.concatenate([_cut_edges(part.xyxy[None], part.tile, width, height) for part in parts])
    ends = (np.abs(boxes - around) <= EDGE_PX) & ~cut
    return around if bool(ends.any(axis=0).all()) else None
