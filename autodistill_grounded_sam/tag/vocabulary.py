"""A detector asked for a list of words, as a tagger: what it finds in an image are the image's tags."""

from __future__ import annotations

from collections.abc import Sequence

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.loading import Precision
from autodistill_grounded_sam.ontology import sanitize
from autodistill_grounded_sam.painting import ALL_PAIRS
from autodistill_grounded_sam.protocols import Detector, Tag
from autodistill_grounded_sam.types import RgbImage

OF_MINI = tuple(f"{colour} {shape}" for colour, shape in ALL_PAIRS)  # all that the mini detector knows
THRESHOLD = 0.35  # as of labels: what is tagged is what would be labelled


class Vocabulary:
    """Tagger on any detector. `words` is what it is asked for (all colours and shapes for `mini`), in any form of `sanitize`.

    `threshold` is the score of its best box that a word must reach. A detector finds what it is asked for and nothing else: what
    is not in the list is not discovered. Raises ConfigError without words, and what the detector raises.
    """

    about = (About("mini", "what is painted in scenes, of the 64 names it knows (`benchmarks/discover.py`)"),)

    def __init__(
        self,
        name: str = "mini",
        *,
        words: Sequence[str] | None = None,
        device: str = "cpu",
        offline: bool = False,
        precision: Precision = "float32",
        threshold: float = THRESHOLD,
    ) -> None:
        if words is None and name != "mini":
            raise ConfigError(f"{name} is a detector: as a tagger it needs words to ask for, give them (--words)")
        self._words = tuple(dict.fromkeys(sanitize(word) for word in (OF_MINI if words is None else words)))
        if not self._words:
            raise ConfigError(f"{name} as a tagger needs at least one word to ask for (--words)")
        settings = {"device": device, "offline": offline, "precision": precision, "floor": threshold}
        self._detector: Detector = plugins.load("detectors", name, **settings)
        self._threshold = threshold

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]:
        """The words of which some box scores at least the threshold, in their order, each with that box's score."""
        found = [candidates.scores.max(axis=0, initial=0) for candidates in self._detector.detect(images, self._words)]
        return [
            [Tag(word, float(score)) for word, score in zip(self._words, scores, strict=True) if score >= self._threshold]
            for scores in found
        ]
