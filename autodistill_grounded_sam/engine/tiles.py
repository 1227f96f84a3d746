"""Small objects in large images: look at the whole and at overlapping tiles, and keep every box that no tile's edge cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autodistill_grounded_sam.protocols import Detector
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

TILE_PX = 640  # side and overlap as supervision's InferenceSlicer has them, which autodistill's `sahi` used
OVERLAP = 0.2
EDGE_PX = 2.0  # a box that ends so near to a tile's inner edge is a part of something larger


class TiledDetector:
    """A detector that asks another one about the whole image and about each tile of it.

    What a tile's inner edge cuts is left out: with tiles that overlap, whatever is smaller than the overlap is whole in another
    tile, and whatever is larger is seen in the whole image. The same object seen twice is left for `decide` to merge.
    """

    def __init__(self, detector: Detector, tile_px: int = TILE_PX) -> None:
        self._detector = detector
        self._tile_px = tile_px

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image, prompts) for image in images]

    def _detect_one(self, image_rgb: RgbImage, prompts: Sequence[str]) -> Candidates:
        found = [self._detector.detect([image_rgb], prompts)[0]]
        for x1, y1, x2, y2 in tiles(image_rgb.shape[1], image_rgb.shape[0], self._tile_px):
            seen = self._detector.detect([np.ascontiguousarray(image_rgb[y1:y2, x1:x2])], prompts)[0]
            boxes = (seen.xyxy + np.array([x1, y1, x1, y1], np.float32)).astype(np.float32)
            whole = ~_cut(boxes, (x1, y1, x2, y2), image_rgb.shape[1], image_rgb.shape[0])
            found.append(Candidates(boxes[whole], seen.scores[whole]))
        return Candidates(np.concatenate([f.xyxy for f in found]), np.concatenate([f.scores for f in found]))


def tiles(width: int, height: int, tile_px: int = TILE_PX) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping tiles (x1, y1, x2, y2) that cover the image; none where it is not larger than one tile."""
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
