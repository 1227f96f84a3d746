"""The masks that the detector drew with its boxes, as a segmenter: `--segmenter detector`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import PluginError
from autodistill_grounded_sam.segment.cheap import UNRATED, refuse_guesses
from autodistill_grounded_sam.types import Candidates, RgbImage


class OwnMasks:
    """Hands on the masks of detectors that make them (SAM 3, or a plugin whose candidates have `rle`), after the protocol
    Segmenter. Raises PluginError for candidates without."""

    about: ClassVar = (
        About("detector", "masks of SAM 3 are those of transformers but for its enlarging (`tests/detect/test_sam3.py`)"),
    )

    def __init__(self, name: str = "detector", **settings: Any) -> None:
        refuse_guesses(name, settings)

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates as they are, with a `mask_score` that is the same for all where they have none."""
        return [self._with_score(found) for found in candidates]

    def _with_score(self, found: Candidates) -> Candidates:
        if found.rle is None:
            raise PluginError("the segmenter 'detector' hands on the detector's own masks, but it made none: name a segmenter")
        return replace(found, mask_score=np.full(len(found), UNRATED, np.float32)) if found.mask_score is None else found
