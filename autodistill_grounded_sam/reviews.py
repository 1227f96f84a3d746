"""What a person decided about single labels: one JSON object a line of `run/reviews.jsonl`, appended and never changed.

    {"image": "cam1/a.jpg", "digest": "<sha256>", "xyxy": [12, 30, 80, 96], "class": "can", "verdict": "accepted", "time": "..."}

A later line about the same box and class of an image replaces an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autodistill_grounded_sam.errors import DatasetError

FILE = "reviews.jsonl"

Verdict = Literal["accepted", "rejected"]
_VERDICTS = ("accepted", "rejected")
_KEYS = ("image", "digest", "xyxy", "class", "verdict", "time")
HOW_TO_REVIEW = f"write a JSON object a line ({', '.join(_KEYS)}), or use reviews.append_reviews (docs/tune.md, From reviews)"


@dataclass(frozen=True)
class Review:
    """One decision: `xyxy` is the label's box in pixels of the upright image of these bytes (`digest`), `time` is ISO 8601."""

    image: str
    digest: str
    xyxy: tuple[float, float, float, float]
    class_name: str
    verdict: Verdict
    time: str

    def line(self) -> str:
        """This review as a line of the file."""
        values = (self.image, self.digest, list(self.xyxy), self.class_name, self.verdict, self.time)
        return json.dumps(dict(zip(_KEYS, values, strict=True)), ensure_ascii=False) + "\n"


def append_reviews(path: Path, reviews: Iterable[Review]) -> None:
    """Add reviews at the end of the file; half a line that a killed process left there goes first."""
    with path.open("ab") as file:
        file.truncate(len(_whole_lines(path)))
        file.writelines(review.line().encode() for review in reviews)


def read_reviews(path: Path) -> list[Review]:
    """The last decision about every label, in the order in which the labels were first met. A last line cut short is left out.

    Raises DatasetError for a file that is not there, or a line that is no review.
    """
    try:
        text = _whole_lines(path).decode()
    except OSError as error:
        raise DatasetError(f"there are no reviews in {path}: {error.strerror}; {HOW_TO_REVIEW}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); {HOW_TO_REVIEW}") from error
    last: dict[tuple[object, ...], Review] = {}
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a name may hold U+2028
        if line.strip():
            review = _review(line, f"{path}:{number}")
            last[review.image, review.digest, review.xyxy, review.class_name] = review
    return list(last.values())


def _whole_lines(path: Path) -> bytes:
    """The file up to its last line end: a process that was killed may have left half a line, even half a letter."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _review(line: str, where: str) -> Review:
    try:
        row: dict[str, Any] = json.loads(line)
        x1, y1, x2, y2 = (float(value) for value in row["xyxy"])
        texts = [str(row[key]) for key in ("image", "digest", "class", "verdict", "time")]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{where} is no review ({error!r}); a line holds {', '.join(_KEYS)}") from error
    image, digest, class_name, verdict, time = texts
    if verdict not in _VERDICTS:
        raise DatasetError(f"{where}: verdict must be accepted or rejected, got {verdict!r}")
    return Review(image, digest, (x1, y1, x2, y2), class_name, "accepted" if verdict == "accepted" else "rejected", time)
