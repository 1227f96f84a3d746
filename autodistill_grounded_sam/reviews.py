"""What a person decided: one JSON object a line of `run/reviews.jsonl`, appended and never changed.

    {"image": "cam1/a.jpg", "digest": "<sha256>", "xyxy": [12, 30, 80, 96], "class": "can", "verdict": "accepted", "time": "..."}

`xyxy` and `class` name a label, and with `digest` are its key: of the lines of one key the one with the latest `time` counts, so
lines may be merged in any order. Verdicts:

    accepted    the label is right                     rejected   there is no such object
    corrected   there is an object, of `to_class` (or the same class) at `to_xyxy` (or the same place)
    added       an object that no label was made for   withdrawn  nothing is decided any more
    complete    the image (`xyxy` and `class` are null) holds what was accepted, corrected or added, and nothing else of `classes`
    empty       the image holds nothing of `classes`; what was said of its labels before is void

`mask`, a COCO run-length code, is that of the object of an accepted, corrected or added line. `docs/review.md` is for those who
write such lines themselves.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast, get_args

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.types import Rle

FILE = "reviews.jsonl"

Verdict = Literal["accepted", "rejected", "corrected", "added", "withdrawn", "complete", "empty"]
Box = tuple[float, float, float, float]
Key = tuple[str, Box | None, str]
OF_IMAGES = ("complete", "empty")
_STANDING = ("accepted", "corrected", "added")
_KEYS = ("image", "digest", "xyxy", "class", "verdict", "time")
HOW_TO_REVIEW = f"`grounded-sam review RUN` writes it, or write a JSON object a line ({', '.join(_KEYS)}; docs/review.md)"


@dataclass(frozen=True)
class Review:
    """One decision: `xyxy` is the label's box in pixels of the upright image of these bytes (`digest`), `time` is ISO 8601.

    Of a whole image `xyxy` is None and `class_name` empty; `classes` are those that it was confirmed for, none standing for all.
    """

    image: str
    digest: str
    xyxy: Box | None
    class_name: str
    verdict: Verdict
    time: str
    to_xyxy: Box | None = None
    to_class: str = ""
    mask: Rle | None = None
    classes: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.digest, self.xyxy, self.class_name

    @property
    def when(self) -> datetime:
        return _when(self.time)

    @property
    def stands(self) -> tuple[Box, str] | None:
        """Box and class of the object that is there by this decision, or None."""
        if self.xyxy is None or self.verdict not in _STANDING:
            return None
        return self.to_xyxy or self.xyxy, self.to_class or self.class_name

    def line(self) -> str:
        """This review as a line of the file."""
        box = None if self.xyxy is None else list(self.xyxy)
        values = (self.image, self.digest, box, self.class_name or None, self.verdict, self.time)
        more: dict[str, Any] = {
            "to_xyxy": self.to_xyxy and list(self.to_xyxy), "to_class": self.to_class, "mask": self.mask,
            "classes": list(self.classes),
        }  # fmt: skip
        given = {name: value for name, value in more.items() if value}
        return json.dumps({**dict(zip(_KEYS, values, strict=True)), **given}, ensure_ascii=False) + "\n"


def append_reviews(path: Path, reviews: Iterable[Review]) -> None:
    """Add reviews at the end of the file and see them onto the disk; half a line that a killed process left there goes first.

    Raises OSError where the disk refuses.
    """
    with path.open("a+b", buffering=0) as file:  # one write: whoever reads meanwhile sees all of the lines or none
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(len(_whole_lines(path)))
        lines = "".join(review.line() for review in reviews).encode()
        if file.write(lines) != len(lines):
            raise OSError(errno.ENOSPC, "the disk took only a part of a decision", str(path))
        os.fsync(file.fileno())


def read_reviews(path: Path) -> list[Review]:
    """What stands of all that was decided, see `standing`; raises DatasetError as `read_all_reviews` does."""
    return standing(read_all_reviews(path))


def read_all_reviews(path: Path) -> list[Review]:
    """Every line of the file. A last line cut short is left out.

    Raises DatasetError for a file that is not there, or a line that is no review.
    """
    try:
        text = _whole_lines(path).decode()
    except OSError as error:
        raise DatasetError(f"there are no reviews in {path}: {error.strerror}; {HOW_TO_REVIEW}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); {HOW_TO_REVIEW}") from error
    lines = enumerate(text.split("\n"), 1)  # not splitlines: a name may hold U+2028
    return [parse_review(line, f"{path}:{number}") for number, line in lines if line.strip()]


def standing(reviews: Iterable[Review]) -> list[Review]:
    """The last decision of every key, in the order in which the keys were first met, without what was withdrawn."""
    last: dict[Key, Review] = {}
    of_image: dict[str, set[Key]] = {}
    for review in sorted(reviews, key=lambda review: review.when):
        keys = of_image.setdefault(review.digest, set())
        if review.verdict == "empty":
            for key in keys:
                last.pop(key, None)
        keys.add(review.key)
        last[review.key] = review
    return [review for review in last.values() if review.verdict != "withdrawn"]


def parse_review(line: str, where: str) -> Review:
    """The review of a line; raises DatasetError, which names `where` it stood, for what is none."""
    try:
        row: dict[str, Any] = dict(json.loads(line))
        whole = row["xyxy"] is None
        xyxy, to_xyxy = None if whole else _box(row["xyxy"]), _box(row["to_xyxy"]) if row.get("to_xyxy") else None
        image, digest, verdict, time = (_text(row[key]) for key in ("image", "digest", "verdict", "time"))
        class_name = "" if whole else _text(row["class"])
        to_class, classes = str(row.get("to_class") or ""), tuple(_text(name) for name in row.get("classes") or ())
        mask = _mask(row["mask"]) if row.get("mask") else None
        _when(time)
    except (ValueError, TypeError, KeyError) as error:
        wrong = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{where} is no review: {wrong}; a line holds {', '.join(_KEYS)}") from error
    if verdict not in get_args(Verdict):
        raise DatasetError(f"{where}: verdict must be one of {', '.join(get_args(Verdict))}, got {verdict!r}")
    if verdict != "withdrawn" and whole != (verdict in OF_IMAGES):
        raise DatasetError(f"{where}: {' and '.join(OF_IMAGES)} are of an image (xyxy null), any other verdict is of a box")
    return Review(image, digest, xyxy, class_name, cast(Verdict, verdict), time, to_xyxy, to_class, mask, classes)


def _whole_lines(path: Path) -> bytes:
    """The file up to its last line end: a process that was killed may have left half a line, even half a letter."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _box(value: Any) -> Box:
    corners = [float(number) for number in value] if isinstance(value, list) else []
    if len(corners) != 4 or not all(map(math.isfinite, corners)) or corners[0] > corners[2] or corners[1] > corners[3]:
        raise ValueError(f"a box is x1, y1, x2, y2 in pixels, got {value}")
    return corners[0], corners[1], corners[2], corners[3]


def _when(time: str) -> datetime:
    """A time in UTC, which is what one without a zone is taken for."""
    when = datetime.fromisoformat(time.replace("Z", "+00:00"))
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _mask(value: Any) -> Rle:
    height, width = (int(number) for number in value["size"])
    return Rle(size=[height, width], counts=_text(value["counts"]))
