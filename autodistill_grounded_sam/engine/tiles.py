"""Small objects in large images: look at the whole and at overlapping tiles, and keep every box that no tile's edge cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autodistill_grounded_sam.engine.memory import OutOfMemoryError, Pieces
from autodistill_grounded_sam.protocols import Detector
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

TILE_PX = 640  # side and overlap as supervision's InferenceSlicer has them, which autodistill's `sahi` used
OVERLAP = 0.2
EDGE_PX = 2.0  # a box that ends so near to a tile's inner edge is a part of something larger
SAME_OBJECT_IOU = 0.7  # of boxes of two looks, as `decide` calls two labels duplicates: the border moves a little with the scale


class TiledDetector:
    """A detector that asks another one about the whole image and about each tile of it.

    What a tile's inner edge cuts is left out: with tiles that overlap, whatever is smaller than the overlap is whole in another
    tile, and whatever is larger is seen in the whole image. What several looks saw is one candidate (`merge_looks`), so that
    repeats do not fill an image's `max_candidates`.
    """

    def __init__(self, detector: Detector, tile_px: int = TILE_PX) -> None:
        self._detector = detector
        self._tile_px = tile_px
        self._pieces = Pieces()

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        whole = self._detector.detect(images, prompts)
        return [self._with_tiles(image, seen, prompts) for image, seen in zip(images, whole, strict=True)]

    def _with_tiles(self, image_rgb: RgbImage, whole: Candidates, prompts: Sequence[str]) -> Candidates:
        height, width = image_rgb.shape[:2]
        corners = list(tiles(width, height, self._tile_px))
        if not corners:
            return whole

        def ask(which: Sequence[int]) -> list[Candidates]:
            parts = [np.ascontiguousarray(image_rgb[y1:y2, x1:x2]) for x1, y1, x2, y2 in (corners[i] for i in which)]
            return self._detector.detect(parts, prompts)

        looks = [whole]
        # a large image has more tiles than a GPU may hold, so they have a memory of their own
        for corner, seen in zip(corners, self._pieces.ask(ask, range(len(corners))), strict=True):
            if isinstance(seen, OutOfMemoryError):
                raise seen
            boxes = (seen.xyxy + np.array([*corner[:2], *corner[:2]], np.float32)).astype(np.float32)
            uncut = ~_cut(boxes, corner, width, height)
            looks.append(Candidates(boxes[uncut], seen.scores[uncut]))
        return merge_looks(looks)


def merge_looks(looks: Sequence[Candidates]) -> Candidates:
    """What several looks at one image saw, in one frame, as one: best first, each object once.

    Greedy, from the highest top score down: a box takes from each other look the one box left there that overlaps it most, if
    by an IoU of `SAME_OBJECT_IOU`; that box goes, and the scores become the element-wise maximum. Boxes of one look are never
    one candidate, not even by way of a third.
    """
    boxes, scores = np.concatenate([look.xyxy for look in looks]), np.concatenate([look.scores for look in looks])
    look_of = np.repeat(np.arange(len(looks)), [len(look) for look in looks])
    order = np.argsort(-scores.max(axis=1, initial=0), kind="stable")
    boxes, scores, look_of = boxes[order], scores[order], look_of[order]
    alive = np.ones(len(boxes), np.bool_)
    for row in range(len(boxes)):
        if alive[row]:
            left = row + 1 + np.flatnonzero(alive[row + 1 :] & (look_of[row + 1 :] != look_of[row]))
            iou = _iou(boxes[row], boxes[left])
            left, iou = left[iou >= SAME_OBJECT_IOU], iou[iou >= SAME_OBJECT_IOU]
            closest = left[np.argsort(-iou, kind="stable")]
            same = closest[np.unique(look_of[closest], return_index=True)[1]]
            scores[row] = np.maximum(scores[row], scores[same].max(axis=0, initial=0))
            alive[same] = False
    return Candidates(boxes[alive], scores[alive])


def _iou(box_xyxy: Float32, others_xyxy: Float32) -> Float32:
    sides = np.minimum(box_xyxy[2:], others_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    common = sides.clip(0).prod(axis=1)
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(axis=1)
    union = (box_xyxy[2:] - box_xyxy[:2]).prod() + areas - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def tiles(width: int, height: int, tile_px: int = TILE_PX) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping tiles (x1, y1, x2, y2), all of one size, that cover the image; none where it is not larger than one tile."""
    if max(width, height) <= tile_px:
        return
    for y1 in _starts(height, tile_px):
        for x1 in _starts(width, tile_px):
            yield x1, y1, min(x1 + tile_px, width), min(y1 + tile_px, height)


def _starts(length: int, tile_px: int) -> list[int]:
    if length <= tile_px:
        return [0]
    steps = int(np.ceil((length - tile_px) / (tile_px * (1 - OVERLAP))))
    return [round(k * (length - tile_px) / steps) for k in range(steps + 1)]


def _cut(boxes: Float32, tile: tuple[int, int, int, int], width: int, height: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    x1, y1, x2, y2 = tile
    left = (boxes[:, 0] < x1 + EDGE_PX) & (x1 > 0)
    top = (boxes[:, 1] < y1 + EDGE_PX) & (y1 > 0)
    right = (boxes[:, 2] > x2 - EDGE_PX) & (x2 < width)
    bottom = (boxes[:, 3] > y2 - EDGE_PX) & (y2 < height)
    return np.asarray(left | top | right | bottom)
