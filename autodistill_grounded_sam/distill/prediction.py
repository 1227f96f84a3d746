"""What every kind of student answers to one image."""

from __future__ import annotations

from typing import NamedTuple

from autodistill_grounded_sam.types import Float32, Rle

MOST_OBJECTS = 100  # of an image, as COCO counts them


class StudentPrediction(NamedTuple):
    """What a student sees in one image, best first: `xyxy` (n, 4) pixels of the upright image, `rles` None for a box model."""

    image: str
    width: int
    height: int
    class_names: list[str]
    xyxy: Float32
    rles: list[Rle] | None
    scores: Float32
