"""What a detector says to concepts: in which images it finds them, how sure, and which of them share their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.types import Candidates, Float32, Int32

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Look:
    """What a detector answered for one image of this size, one column of scores a prompt."""

    candidates: Candidates
    width: int
    height: int


@dataclass(frozen=True)
class Grounding:
    """The scores of C concepts, of one detector, over the images and over all its boxes (of which each is of one image).

    `best` (images, C) is the score of the best box, `area` (images, C) that box's share of the image (0 where there is none);
    `scores` (boxes, C) and `image` (boxes,) are those of every box.
    """

    best: Float32
    area: Float32
    scores: Float32
    image: Int32

    @staticmethod
    def of(looks: Sequence[Look], concept_of_prompt: Int32) -> Grounding:
        """A concept scores as the best of its prompts; every prompt is of one."""
        count = int(concept_of_prompt.max(initial=-1)) + 1
        best, area = np.zeros((2, len(looks), count), np.float32)
        rows: list[Float32] = [np.zeros((0, count), np.float32)]
        for place, look in enumerate(looks):
            found = look.candidates
            scores = np.zeros((len(found), count), np.float32)
            np.maximum.at(scores.T, concept_of_prompt, found.scores.T)
            rows.append(scores)
            if len(found):
                first = scores.argmax(axis=0)
                best[place] = scores.max(axis=0)
                sizes = (found.xyxy[:, 2:] - found.xyxy[:, :2]).prod(axis=1) / (look.width * look.height)
                area[place] = np.where(best[place] > 0, sizes[first], 0)
        image = np.repeat(np.arange(len(looks), dtype=np.int32), [len(row) for row in rows[1:]])
        return Grounding(best, area, np.concatenate(rows), image)

    def together(self, columns: Sequence[Sequence[int]]) -> Grounding:
        """The same with concepts joined or left out: each new one scores as the best of those that `columns` lists for it."""
        if not columns:
            return Grounding(self.best[:, :0], self.area[:, :0], self.scores[:, :0], self.image)
        firsts = [max(group, key=lambda column: float(self.best[:, column].sum())) for group in columns]
        best = np.stack([self.best[:, list(group)].max(axis=1) for group in columns], axis=1)
        scores = np.stack([self.scores[:, list(group)].max(axis=1, initial=0) for group in columns], axis=1)
        return Grounding(best, self.area[:, firsts], scores, self.image)

    def shares(self, threshold: float) -> npt.NDArray[np.float64]:
        """(C, C): of the boxes of the first concept at this threshold, the share that are boxes of the second too."""
        hits = (self.scores >= threshold).astype(np.float64)
        both = hits.T @ hits
        return np.asarray(both / np.maximum(np.diag(both), 1)[:, None])

    def counts(self, threshold: float) -> npt.NDArray[np.intp]:
        """(C,) boxes of each concept at this threshold."""
        return np.asarray((self.scores >= threshold).sum(axis=0))

    def named(self, threshold: float) -> Flags:
        """(boxes, C): which boxes are of this concept before all others, and at this threshold."""
        flags = np.zeros(self.scores.shape, np.bool_)
        if self.scores.size:
            first = self.scores.argmax(axis=1)
            flags[np.arange(len(first)), first] = self.scores[np.arange(len(first)), first] >= threshold
        return flags

    def images_of(self, boxes: Flags) -> frozenset[int]:
        """The images that hold one of these boxes."""
        return frozenset(int(place) for place in np.unique(self.image[boxes]))
