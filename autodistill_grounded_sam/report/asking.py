"""The labels that a person is asked about: pictures, and the lines that become `reviews.jsonl` with a verdict on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autodistill_grounded_sam.report.gallery import Shot
from autodistill_grounded_sam.report.samples import Example
from autodistill_grounded_sam.reviews import Review

SHOWN = 60  # five minutes of a person, and a megabyte of pictures
MOST_MASK_BYTES = 16_000  # of a code in a line, so that all lines are a megabyte at most; without one a label keeps its own mask


class Question(NamedTuple):
    """A picture, and the line of its verdict `accepted` (of an image without a label: `empty`), but for the time."""

    shot: Shot
    line: str


def questions(examples: Sequence[Example], shots: Sequence[Shot], class_names: Sequence[str]) -> list[Question]:
    """Those that have a picture: of what is not seen nothing can be said."""
    seen = [(example, shot) for example, shot in zip(examples, shots, strict=True) if shot.picture is not None]
    return [Question(_with_class(shot, example, class_names), _line(example, class_names)) for example, shot in seen]


def _with_class(shot: Shot, example: Example, class_names: Sequence[str]) -> Shot:
    return shot if example.shape is None else shot._replace(caption=f"{shot.caption} {class_names[example.class_id]}")


def _line(example: Example, class_names: Sequence[str]) -> str:
    image, shape = example.image, example.shape
    if shape is None:
        return Review(image.id, image.digest, None, "", "empty", "").line().rstrip("\n")  # its classes are in the page once
    x1, y1, x2, y2 = (round(edge, 2) for edge in shape.xyxy)  # as the review page and `quality` name a label
    name = class_names[example.class_id]
    mask = shape.rle if shape.rle is not None and len(shape.rle["counts"]) <= MOST_MASK_BYTES else None
    return Review(image.id, image.digest, (x1, y1, x2, y2), name, "accepted", "", mask=mask).line().rstrip("\n")
