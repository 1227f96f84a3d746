"""Small objects in large images: look at the whole and at overlapping tiles (`seams` makes one of what they saw)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.engine.memory import OutOfMemoryError, Pieces
from autodistill_grounded_sam.engine.seams import (
    Part,
    Tile,
    is_cut,
    join_parts,
    merge_looks,
    mistaken_parts,
    parts_of_larger,
    seen_in,
    unexplained,
    with_partner,
)
from autodistill_grounded_sam.mask_runs import read_runs, write_rles
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.protocols import Detector, Segmenter
from autodistill_grounded_sam.types import Candidates, Float32, Mask, RgbImage, Rle

Which = Literal["auto", "all"]  # of the images that are larger than a tile

TILE_PX = 640  # side and overlap as supervision's InferenceSlicer has them, which autodistill's `sahi` used
TILE_OF_INPUT = 0.8  # the same for other inputs than Grounding DINO's 800 px: a tile is enlarged by a quarter
OVERLAP = 0.2
WIDER, WIDER_OVERLAP = 2, 0.5  # times a tile's side: a look that checks what only a tile saw, with as much again around it
TOO_SMALL = 1 / 16  # of a tile's side: what is smaller cannot be asked of a look at half the scale (25 of its 800 px)
# auto: tiles must show an object this much larger than the whole look does, and the whole look must have seen nothing, or
# something with a side below this share of a tile (docs/tiles.md).
ENLARGES, SMALL = 1.5, 0.5


class TiledDetector:
    """A detector that asks another one about the whole image and about each tile of it.

    What several looks saw is one candidate (`merge_looks`), so that repeats do not fill an image's `max_candidates`. What a
    tile's inner edge cuts is a part: it goes if a whole object accounts for it; else it is joined with parts in other tiles
    that show the same in the strip that both saw (`seams.join_parts`; by mask if there is a `segmenter`, else by box); what is
    still cut then is left out. What the whole look did not see at all is looked at again with more around it, and goes if
    that shows a part of something larger (`seams.parts_of_larger`), unless it is too small for that look. `which` of the images
    are tiled: `all` that are larger than a tile, or `auto`, those in which tiles are worth their time. `tile_px` None is what
    the detector's own input holds.
    """

    def __init__(
        self,
        detector: Detector,
        segmenter: Segmenter | None = None,
        tile_px: int | None = None,
        which: Which = "all",
    ) -> None:
        self._detector, self._segmenter, self._which = detector, segmenter, which
        self.tile_px = tile_px or natural_tile_px(detector)
        self._pieces, self._mask_pieces = Pieces(), Pieces()

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        whole = self._detector.detect(images, prompts)
        return [self._with_tiles(image, seen, prompts) for image, seen in zip(images, whole, strict=True)]

    def _with_tiles(self, image_rgb: RgbImage, whole: Candidates, prompts: Sequence[str]) -> Candidates:
        height, width = image_rgb.shape[:2]
        corners = list(tiles(width, height, self.tile_px))
        if not corners or (self._which == "auto" and not self._worth_it(whole, width, height)):
            return whole

        def ask(which: Sequence[int]) -> list[Candidates]:
            return self._detector.detect([_crop(image_rgb, corners[i]) for i in which], prompts)

        # a large image has more tiles than a GPU may hold, so they have a memory of their own
        answers = _all_of(self._pieces.ask(ask, range(len(corners))))
        looks = [replace(seen, xyxy=_moved(seen.xyxy, tile)) for tile, seen in zip(corners, answers, strict=True)]
        looks = [look.select(~mistaken_parts(look, whole, tile)) for look, tile in zip(looks, corners, strict=True)]
        cut = [is_cut(look.xyxy, tile, width, height) for tile, look in zip(corners, looks, strict=True)]
        found = merge_looks([whole, *(look.select(~of) for look, of in zip(looks, cut, strict=True))])
        parts = [unexplained(look.select(of), found) for look, of in zip(looks, cut, strict=True)]
        joined = self._joined(image_rgb, parts, corners, len(prompts))
        return self._checked(image_rgb, whole, merge_looks([found, joined]), prompts)

    def _checked(self, image_rgb: RgbImage, whole: Candidates, found: Candidates, prompts: Sequence[str]) -> Candidates:
        """The found ones without those that are parts of something larger to a wider look; only where the whole look saw
        nothing of them is there another one."""
        height, width = image_rgb.shape[:2]
        side_px = WIDER * self.tile_px
        frames: list[Tile] = [(0, 0, width, height), *tiles(width, height, side_px, WIDER_OVERLAP)]
        large_enough = (found.xyxy[:, 2:] - found.xyxy[:, :2]).max(axis=1) >= TOO_SMALL * self.tile_px
        alone = np.flatnonzero(~seen_in(found, whole) & large_enough)
        frame_of = _frame_of(found.xyxy[alone], frames, side_px)
        busy = np.unique(frame_of[frame_of > 0]).tolist()

        def ask(which: Sequence[int]) -> list[Candidates]:
            return self._detector.detect([_crop(image_rgb, frames[busy[k]]) for k in which], prompts)

        answers = dict(zip(busy, _all_of(self._pieces.ask(ask, range(len(busy)))), strict=True))
        stays = np.ones(len(found), np.bool_)
        for frame in np.unique(frame_of).tolist():
            rows, boxes, scores = alone[frame_of == frame], whole.xyxy, whole.scores
            if frame in answers:  # what one of both looks takes for a part, the other may have seen for itself
                boxes = np.concatenate([boxes, _moved(answers[frame].xyxy, frames[frame])])
                scores = np.concatenate([scores, answers[frame].scores])
            stays[rows] = ~parts_of_larger(found.select(rows), Candidates(boxes, scores))
        return found.select(stays)

    def _worth_it(self, whole: Candidates, width: int, height: int) -> bool:
        resize = getattr(self._detector, "resized_size", lambda *size: size)
        enlarged = resize(self.tile_px, self.tile_px)[0] / self.tile_px
        if enlarged * width < ENLARGES * resize(width, height)[0]:
            return False
        best = whole.scores.max(axis=1, initial=0)
        sure = best >= best.max(initial=0) / 2  # what scores far below the best is hardly an object
        sides = (whole.xyxy[sure, 2:] - whole.xyxy[sure, :2]).min(axis=1)
        return not len(whole) or bool((sides < SMALL * self.tile_px).any())

    def _joined(self, image_rgb: RgbImage, parts: Sequence[Candidates], corners: Sequence[Tile], prompts: int) -> Candidates:
        """Whole objects made of parts in several tiles."""
        busy = [(tile, part) for tile, part in zip(corners, with_partner(parts, corners), strict=True) if len(part)]
        pieces = [
            Part(tile, box, scores, mask)
            for (tile, part), masks in zip(busy, self._masks_of(image_rgb, busy), strict=True)
            for box, scores, mask in zip(part.xyxy, part.scores, masks, strict=True)
        ]
        return join_parts(pieces, prompts, image_rgb.shape[1], image_rgb.shape[0])

    def _masks_of(self, image_rgb: RgbImage, busy: Sequence[tuple[Tile, Candidates]]) -> list[list[Mask]]:
        """The mask (tile height, tile width) of each part; its box where there is no segmenter."""
        local = [Candidates(_moved(part.xyxy, tile, -1), part.scores) for tile, part in busy]
        segmenter = self._segmenter
        if segmenter is None:
            return [[_filled(box, tile) for box in part.xyxy] for (tile, _), part in zip(busy, local, strict=True)]

        def ask(which: Sequence[int]) -> list[Candidates]:
            return segmenter.segment([_crop(image_rgb, busy[k][0]) for k in which], [local[k] for k in which])

        return [[decode_mask(rle) for rle in one.rle or ()] for one in _all_of(self._mask_pieces.ask(ask, range(len(busy))))]


class TiledSegmenter:
    """A segmenter that is shown a small box in its tile, not in the whole of a large image, where few pixels are left of it.

    A box goes to the tile whose centre is nearest, if it lies in that and is at most half as long; any other is segmented in
    the whole image.
    """

    def __init__(self, segmenter: Segmenter, tile_px: int) -> None:
        self._segmenter, self._tile_px, self._pieces = segmenter, tile_px, Pieces()

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        return [self._one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _one(self, image_rgb: RgbImage, found: Candidates) -> Candidates:
        height, width = image_rgb.shape[:2]
        frames: list[Tile] = [(0, 0, width, height), *tiles(width, height, self._tile_px)]
        if len(frames) == 1 or not len(found):
            return self._segmenter.segment([image_rgb], [found])[0]
        frame_of = _frame_of(found.xyxy, frames, self._tile_px)
        busy = np.unique(frame_of).tolist()

        def ask(which: Sequence[int]) -> list[Candidates]:
            own = [found.select(frame_of == busy[k]) for k in which]
            local = [Candidates(_moved(one.xyxy, frames[busy[k]], -1), one.scores) for k, one in zip(which, own, strict=True)]
            return self._segmenter.segment([_crop(image_rgb, frames[busy[k]]) for k in which], local)

        rles: dict[int, Rle] = {}
        mask_score = np.zeros(len(found), np.float32)
        for k, answer in zip(busy, _all_of(self._pieces.ask(ask, range(len(busy)))), strict=True):
            rows = np.flatnonzero(frame_of == k)
            rles.update(zip(rows.tolist(), _pasted(answer.rle or (), frames[k], width, height), strict=True))
            mask_score[rows] = answer.mask_score
        return Candidates(found.xyxy, found.scores, tuple(rles[row] for row in range(len(found))), mask_score)


def tiles(width: int, height: int, tile_px: int = TILE_PX, overlap: float = OVERLAP) -> Iterator[Tile]:
    """Overlapping tiles, all of one size, that cover the image; none where it is not larger than one tile."""
    if max(width, height) <= tile_px:
        return
    for y1 in _starts(height, tile_px, overlap):
        for x1 in _starts(width, tile_px, overlap):
            yield x1, y1, min(x1 + tile_px, width), min(y1 + tile_px, height)


def natural_tile_px(detector: Detector) -> int:
    """The side of a tile that the detector's input shows a quarter larger; 640 where the detector does not tell its input."""
    resize = getattr(detector, "resized_size", None)
    return TILE_PX if resize is None else round(TILE_OF_INPUT * min(resize(TILE_PX, TILE_PX)))


def _starts(length: int, tile_px: int, overlap: float) -> list[int]:
    if length <= tile_px:
        return [0]
    steps = int(np.ceil((length - tile_px) / (tile_px * (1 - overlap))))
    return [round(k * (length - tile_px) / steps) for k in range(steps + 1)]


def _crop(image_rgb: RgbImage, tile: Tile) -> RgbImage:
    x1, y1, x2, y2 = tile
    return np.ascontiguousarray(image_rgb[y1:y2, x1:x2])


def _moved(xyxy: Float32, tile: Tile, sign: int = 1) -> Float32:
    """Boxes of a tile in the image, or with sign -1 the other way round."""
    return (xyxy + sign * np.array([*tile[:2], *tile[:2]], np.float32)).astype(np.float32)


def _filled(box_xyxy: Float32, tile: Tile) -> Mask:
    mask = np.zeros((tile[3] - tile[1], tile[2] - tile[0]), np.bool_)
    x1, y1, x2, y2 = box_xyxy.clip(0).round().astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def _frame_of(xyxy: Float32, frames: Sequence[Tile], tile_px: int) -> npt.NDArray[np.intp]:
    """(n,) which frame each box is segmented in: 0, the whole image, or the tile that it lies in, nearest to its centre."""
    if len(frames) == 1:
        return np.zeros(len(xyxy), np.intp)
    corners = np.array(frames[1:], np.float32).reshape(-1, 4)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    away = np.linalg.norm((xyxy[:, None, :2] + xyxy[:, None, 2:]) / 2 - centres, axis=2)
    inside = (xyxy[:, None, :2] >= corners[:, :2]).all(axis=2) & (xyxy[:, None, 2:] <= corners[:, 2:]).all(axis=2)
    small = (xyxy[:, 2:] - xyxy[:, :2]).max(axis=1) <= tile_px / 2
    reach = np.where(inside & small[:, None], away, np.inf)
    frame: npt.NDArray[np.intp] = np.where(np.isfinite(reach).any(axis=1), 1 + reach.argmin(axis=1), 0)
    return frame


def _pasted(rles: Sequence[Rle], frame: Tile, width: int, height: int) -> list[Rle]:
    """Masks of a part of an image as masks of the image, without ever making them dense."""
    runs = read_runs(rles)
    sizes = np.broadcast_to(np.array([height, width]), runs.sizes.shape)
    return write_rles(replace(runs, sizes=sizes, x=runs.x + frame[0], y1=runs.y1 + frame[1], y2=runs.y2 + frame[1]))


def _all_of(answers: Sequence[Candidates | OutOfMemoryError]) -> list[Candidates]:
    """The answers; raises the first that did not fit the memory even alone."""
    for answer in answers:
        if isinstance(answer, OutOfMemoryError):
            raise answer
    return [answer for answer in answers if isinstance(answer, Candidates)]
