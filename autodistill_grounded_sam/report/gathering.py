"""One pass over the labels of a run: counts, histograms, maps, and the few candidates that are shown. Memory does not grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from math import prod

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.decide.scores import score_classes
from autodistill_grounded_sam.masks import boxes_xyxy
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.report.samples import Draws, Example, Kind, Shortlist, draws_of, example_of, whole_example
from autodistill_grounded_sam.types import REASONS, Candidates, Float32, ImageRecord, Labels, Reason, Split, State

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TAKEN_AT_ONCE = 64  # images; numpy's calls cost as much for one as for all of them
SCORE_BINS = 50
MAP_CELLS = 24  # a side of the maps
SIZE_DECADES = 2.0  # the map of sizes begins at a hundredth of the image's side
SMALL_PX, MEDIUM_PX = 32**2, 96**2  # COCO's bounds of area; here of boxes
NEAR_THRESHOLD = 0.05
CONTESTED_MARGIN = 0.05
WHOLE_IMAGE = 0.8  # of the image's area
MOST_COUNTED = 100  # objects an image, from there on counted as one
SHOWN_IMAGES = 8  # without labels, and waiting for review
SHOWN_DROPPED = 6  # of each reason


@dataclass
class Gathered:
    """What the page tells of C classes. Arrays begin with an axis of the classes; scores are in `SCORE_BINS` bins of 0..1.

    `scores` (C, reasons, bins) counts all candidates by what became of them; `margins` (C, bins), `where` and `sizes`
    (C, cells, cells; rows are y, or height), `areas` (C, 3: small, medium, large) and the rest count labels. `where` counts
    how many boxes cover a cell. `best` is the highest score of any candidate, 0 without one.
    """

    scores: Ints
    margins: Ints
    where: Ints
    sizes: Ints
    areas: Ints
    images_with: Ints
    near_threshold: Ints
    contested: Ints
    whole_image: Ints
    sides: Ints  # (C, 2) labels in train and valid; of images that wait for review in neither
    best: Float32
    objects: Counter[int] = field(default_factory=Counter)  # labels an image -> images
    states: Counter[State] = field(default_factory=Counter)
    smallest_wh: tuple[int, int] = (0, 0)
    largest_wh: tuple[int, int] = (0, 0)
    examples: Mapping[Kind, tuple[tuple[Example, ...], ...]] = field(default_factory=dict)  # by class
    dropped: Mapping[Reason, tuple[Example, ...]] = field(default_factory=dict)
    whole: Mapping[State, tuple[Example, ...]] = field(default_factory=dict)  # empty images, and those in review

    @staticmethod
    def nothing(classes: int) -> Gathered:
        def zeros(*shape: int) -> Ints:
            return np.zeros((classes, *shape), np.int64)

        return Gathered(
            zeros(len(REASONS), SCORE_BINS), zeros(SCORE_BINS), zeros(MAP_CELLS, MAP_CELLS), zeros(MAP_CELLS, MAP_CELLS),
            zeros(3), zeros(), zeros(), zeros(), zeros(), zeros(2), np.zeros(classes, np.float32),
        )  # fmt: skip

    @property
    def labels(self) -> Ints:
        """Labels of each class, (C,)."""
        counts: Ints = self.scores[:, _KEPT].sum(axis=1)
        return counts

    @property
    def images(self) -> int:
        return self.states.total()


_KEPT = REASONS.index(Reason.KEPT)
_LOW = REASONS.index(Reason.THRESHOLD)


class Gatherer:
    """Takes in image after image, in any order; `result` ends it. `shown` is how many candidates of each class and kind are
    kept to be shown; `thresholds` (C,) are those that the labels were decided with."""

    def __init__(self, ontology: Ontology, thresholds: Float32, shown: int) -> None:
        self._ontology, self._thresholds = ontology, thresholds
        classes = len(ontology.classes)
        self._all = Gathered.nothing(classes)
        self._corners = np.zeros((classes, MAP_CELLS + 1, MAP_CELLS + 1), np.int64)  # `where` as differences
        self._chosen = {kind: [Shortlist(2 * shown) for _ in range(classes)] for kind in Kind}  # some come in several
        self._dropped = {reason: Shortlist(SHOWN_DROPPED) for reason in REASONS}
        self._whole = {state: Shortlist(SHOWN_IMAGES) for state in (State.EMPTY, State.REVIEW)}
        self._waiting: list[tuple[ImageRecord, Candidates, Labels, Split]] = []

    def add(self, image: ImageRecord, candidates: Candidates, labels: Labels, split: Split) -> None:
        self._waiting.append((image, candidates, labels, split))
        if len(self._waiting) == TAKEN_AT_ONCE:
            self._take()

    def result(self) -> Gathered:
        if self._waiting:
            self._take()
        self._all.where = self._corners.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]
        return replace(
            self._all,
            examples={kind: tuple(one.examples for one in of_class) for kind, of_class in self._chosen.items()},
            dropped={reason: one.examples for reason, one in self._dropped.items() if reason is not Reason.KEPT},
            whole={state: one.examples for state, one in self._whole.items()},
        )

    def _take(self) -> None:
        """Count what waits, and choose from it."""
        waiting, self._waiting = self._waiting, []
        block = _Block(waiting, self._ontology)
        self._count_images(block)
        self._count_candidates(block)
        self._count_labels(block)
        self._choose(block)

    def _count_images(self, block: _Block) -> None:
        for (image, candidates, labels, _), draw in zip(block.images, block.image_draws.tolist(), strict=True):
            self._all.states[labels.state] += 1
            self._all.objects[min(len(labels), MOST_COUNTED)] += 1
            if labels.state in self._whole:
                self._whole[labels.state].offer(
                    float(draw), draw, partial(whole_example, image, candidates, labels, self._ontology)
                )
        sizes = [(image.width, image.height) for image, *_ in block.images]
        known = [self._all.smallest_wh] if self._all.smallest_wh != (0, 0) else []
        self._all.smallest_wh = min([*known, *sizes], key=prod)
        self._all.largest_wh = max([self._all.largest_wh, *sizes], key=prod)

    def _count_candidates(self, block: _Block) -> None:
        class_id, score = block.scored.class_id, block.scored.score
        bins = np.minimum((score * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        np.add.at(self._all.scores, (class_id, block.reasons, bins), 1)
        np.maximum.at(self._all.best, class_id, score)

    def _count_labels(self, block: _Block) -> None:
        own, kept = block.scored.class_id[block.kept], self._all
        margin, score = block.scored.margin[block.kept], block.scored.score[block.kept]
        np.add.at(kept.margins, (own, np.clip((margin * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)), 1)
        np.add.at(kept.near_threshold, own[score < self._thresholds[own] + NEAR_THRESHOLD], 1)
        np.add.at(kept.contested, own[margin < CONTESTED_MARGIN], 1)
        both = np.unique(np.stack([block.image[block.kept], own]), axis=1)
        np.add.at(kept.images_with, both[1], 1)
        sides = np.array([split == "valid" for *_, split in block.images], np.int64)[block.image[block.kept]]
        waits = np.array([labels.state is State.REVIEW for _, _, labels, _ in block.images], np.bool_)[block.image[block.kept]]
        np.add.at(kept.sides, (own[~waits], sides[~waits]), 1)
        xyxy, size_wh = block.kept_xyxy, block.sizes_wh[block.image[block.kept]]
        sides_px = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
        area = sides_px.prod(axis=1, dtype=np.float64)
        np.add.at(kept.areas, (own, np.searchsorted([SMALL_PX, MEDIUM_PX], area, side="right")), 1)
        np.add.at(kept.whole_image, own[area > WHOLE_IMAGE * size_wh.prod(axis=1)], 1)
        share = np.log10(np.maximum(sides_px / size_wh, 1e-9)) / SIZE_DECADES + 1
        cell = np.clip((share * MAP_CELLS).astype(np.int64), 0, MAP_CELLS - 1)
        np.add.at(kept.sizes, (own, cell[:, 1], cell[:, 0]), 1)
        low = np.clip(np.floor(xyxy[:, :2] / size_wh * MAP_CELLS).astype(np.int64), 0, MAP_CELLS - 1)
        high = np.clip(np.ceil(xyxy[:, 2:] / size_wh * MAP_CELLS).astype(np.int64), low + 1, MAP_CELLS)
        for x, y, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
            np.add.at(self._corners, (own, y[:, 1], x[:, 0]), sign)

    def _choose(self, block: _Block) -> None:
        score, low = block.scored.score, block.reasons == _LOW
        trust = block.trust
        worth = score if trust is None else trust
        doubt = block.agreement() if trust is None else trust
        drawn = block.draws.astype(np.float64)
        of_class = block.scored.class_id.astype(np.int64)
        for kind, which, key in (
            (Kind.RANDOM, block.kept, drawn),
            (Kind.BEST, block.kept, -worth),
            (Kind.JUST_KEPT, block.kept, score - self._thresholds[of_class]),
            (Kind.JUST_MISSED, low, self._thresholds[of_class] - score),
            (Kind.DOUBTFUL, block.kept, doubt),
        ):
            self._offer(block, np.flatnonzero(which), key, of_class, self._chosen[kind])
        dropped = np.flatnonzero(block.reasons != _KEPT)
        lists = [self._dropped[reason] for reason in REASONS]
        self._offer(block, dropped, drawn, block.reasons.astype(np.int64), lists)

    def _offer(
        self, block: _Block, places: npt.NDArray[np.intp], key: npt.NDArray[np.floating], group: Ints, lists: list[Shortlist]
    ) -> None:
        """Offer the candidates at `places` to the list of their group, at most one of each image: the one of the lowest key."""
        limits = np.array([one.limit for one in lists])
        places = places[key[places] <= limits[group[places]]]
        order = places[np.lexsort((block.draws[places], key[places], group[places]))]
        for number, mine in groupby(order.tolist(), key=group.__getitem__):
            taken: set[int] = set()
            for place in mine:
                if len(taken) == lists[number].size:
                    break
                image = int(block.image[place])
                if image not in taken:
                    taken.add(image)
                    lists[number].offer(float(key[place]), int(block.draws[place]), partial(block.example, place))


class _Block:
    """Some images with their n candidates in a row: `image` (n,) numbers the image of each, `kept` (n,) says if it is a label."""

    def __init__(self, images: list[tuple[ImageRecord, Candidates, Labels, Split]], ontology: Ontology) -> None:
        self.images = images
        self.scored = score_classes(np.concatenate([candidates.scores for _, candidates, _, _ in images]), ontology)
        self.reasons = np.concatenate([labels.reasons for _, _, labels, _ in images])
        counts = np.array([len(candidates) for _, candidates, _, _ in images], np.intp)
        digests = [image.digest for image, *_ in images]
        self.start = np.cumsum(counts) - counts
        self.image = np.repeat(np.arange(len(images)), counts)
        self.draws: Draws = draws_of(digests, counts)
        self.image_draws: Draws = draws_of(digests, np.ones(len(images), np.intp))
        self.sizes_wh = np.array([(image.width, image.height) for image, *_ in images], np.float64)
        own = [labels.candidate for _, _, labels, _ in images]
        self._rows = np.concatenate([rows + start for rows, start in zip(own, self.start, strict=True)])
        self.kept: Flags = np.zeros(len(self.image), np.bool_)
        self.kept[self._rows] = True

    @property
    def kept_xyxy(self) -> Float32:
        """The boxes of the labels, in the order of their candidates, (m, 4)."""
        boxes = np.concatenate([labels.xyxy for _, _, labels, _ in self.images])
        ordered: Float32 = boxes[np.argsort(self._rows)]
        return ordered

    @property
    def trust(self) -> Float32 | None:
        """(n,), nan where a candidate is no label; None for a run without a calibration."""
        if any(labels.trust is None for _, _, labels, _ in self.images):
            return None
        return self._by_candidate(np.concatenate([labels.trust for _, _, labels, _ in self.images if labels.trust is not None]))

    def agreement(self) -> Float32:
        """(n,) How sure a label is without anybody's judgement, nan where a candidate is none: the least of its margin over its
        score (1: nothing else was thought of) and the IoU of the detector's box and the box of the mask."""
        boxes, of_masks = [], []
        for _, candidates, labels, _ in self.images:
            boxes.append(candidates.xyxy[labels.candidate])
            of_masks.append(boxes[-1] if labels.rle is None else boxes_xyxy(labels.rle))
        share = self.scored.margin[self._rows] / np.maximum(self.scored.score[self._rows], np.float32(1e-6))
        return self._by_candidate(np.minimum(share, _iou(np.concatenate(boxes), np.concatenate(of_masks))))

    def example(self, place: int) -> Example:
        number = int(self.image[place])
        image, candidates, labels, _ = self.images[number]
        return replace(
            example_of(image, candidates, labels, place - int(self.start[number])),
            class_id=int(self.scored.class_id[place]),
            score=float(self.scored.score[place]),
            margin=float(self.scored.margin[place]),
            reason=REASONS[self.reasons[place]],
        )

    def _by_candidate(self, of_labels: npt.NDArray[np.floating]) -> Float32:
        values = np.full(len(self.image), np.nan, np.float32)
        values[self._rows] = of_labels
        return values


def _iou(first: Float32, second: Float32) -> Float32:
    """Of each pair of boxes, (m,)."""
    sides = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    iou: Float32 = shared / np.maximum(areas[0] + areas[1] - shared, np.float32(1e-9))
    return iou
