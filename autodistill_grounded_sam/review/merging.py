"""Decisions that were made elsewhere, such as on a static page, taken into the reviews of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autodistill_grounded_sam.errors import DatasetError, RecordError
from autodistill_grounded_sam.mask_runs import read_runs
from autodistill_grounded_sam.reviews import Review, append_reviews, parse_review, read_all_reviews
from autodistill_grounded_sam.store.files import disk_errors


@dataclass(frozen=True)
class Merged:
    """How many lines were `added`, were `known` already, and are of images `elsewhere`; `faults` names each line that is none."""

    added: int
    known: int
    elsewhere: int
    faults: tuple[str, ...]


def merge(file: Path, incoming: Path, sizes_wh: Mapping[str, tuple[int, int]]) -> Merged:
    """Append the lines of `incoming` that `file` does not hold yet and that are of images of the run, whose sizes by digest are
    `sizes_wh`. Merging again adds nothing. Raises DatasetError if `incoming` cannot be read at all."""
    try:
        lines = incoming.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{incoming} cannot be read ({error}); it is the file that a review page downloads") from error
    known = {review.line() for review in read_all_reviews(file)} if file.exists() else set[str]()
    fresh: dict[str, Review] = {}
    again, elsewhere, faults = 0, 0, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            review = parse_review(line, f"{incoming}:{number}")
            if review.digest not in sizes_wh:
                elsewhere += 1
                continue
            check_review(review, *sizes_wh[review.digest], f"{incoming}:{number}")
        except DatasetError as error:
            faults.append(str(error))
            continue
        again += review.line() in known or review.line() in fresh
        fresh[review.line()] = review
    new = [review for line, review in fresh.items() if line not in known]
    if new:
        with disk_errors(file):
            append_reviews(file, new)
    return Merged(len(new), again, elsewhere, tuple(faults))


def check_review(review: Review, width: int, height: int, where: str) -> None:
    """Raise DatasetError unless boxes and mask fit an image of this size."""
    for box in (review.xyxy, review.to_xyxy):
        if box is not None and not (-1 <= box[0] < box[2] <= width + 1 and -1 <= box[1] < box[3] <= height + 1):
            raise DatasetError(f"{where}: the box {list(box)} is not one of an image of {width} x {height} pixels")
    if review.mask is None:
        return
    if review.mask["size"] != [height, width]:
        raise DatasetError(f"{where}: the mask is of {review.mask['size']} (height, width), the image {[height, width]}")
    try:
        read_runs([review.mask])
    except RecordError as error:
        raise DatasetError(f"{where}: {error}") from error
