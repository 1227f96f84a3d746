"""Labels against a human reference: the entry of this room, and its figures as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.evaluate.average_precision import MAX_LABELS, average_precision
from autodistill_grounded_sam.evaluate.matching import Pair, join
from autodistill_grounded_sam.evaluate.operating_point import operating_point
from autodistill_grounded_sam.types import DatasetImage, Evaluation


def evaluate_labels(
    labels: Iterable[DatasetImage],
    class_names: Sequence[str],
    truth: Path,
    *,
    failed: Collection[str] = (),
    operating_score: float = 0.0,
    notes: Sequence[str] = (),
    command: str = "",
) -> Evaluation:
    """Measure labels against `truth` (a COCO json, or a YOLO dataset): AP over all of them, the operating point over those of
    `operating_score` up.

    `labels` are taken one image at a time, in any order; `class_names` belong to their class ids; `failed` names the images that
    could not be looked at, which are left out. A label without a score has score 1. A figure that cannot be is nan.
    Raises DatasetError if the reference holds no object, or if labels and reference do not fit one another.
    """
    joined = join(labels, class_names, truth, failed=failed)
    if all(pair.truth.crowd.all() for pair in joined.pairs):
        raise DatasetError(f"the reference {truth} holds no object in any image that was looked at; there is nothing to measure")
    box = average_precision(joined.pairs, joined.known, "box")
    why_no_masks = _why_no_masks(joined.pairs)
    mask = None if why_no_masks else average_precision(joined.pairs, joined.known, "mask").overall
    point = operating_point(joined, min_score=operating_score)
    per_class = {
        joined.class_names[place]: {"AP": box.per_class[place]["AP"], "AP50": box.per_class[place]["AP50"], **figures}
        for place, figures in enumerate(point.per_class)
    }
    more = [f"mask AP is left out: {why_no_masks}"] if why_no_masks else []
    return Evaluation(
        box.overall,
        mask,
        point.overall,
        per_class,
        point.confusion,
        (*notes, *joined.notes, *_crowded_notes(joined.pairs), *more),
        command,
    )


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain data for `json.dumps`, with None for a figure that cannot be."""
    return {
        "box": _plain(evaluation.box),
        "mask": None if evaluation.mask is None else _plain(evaluation.mask),
        "operating_point": _plain(evaluation.operating_point),
        "per_class": {name: _plain(figures) for name, figures in evaluation.per_class.items()},
        "confusion": {name: dict(counts) for name, counts in evaluation.confusion.items()},
        "notes": list(evaluation.notes),
        "command": evaluation.command,
    }


def _why_no_masks(pairs: Sequence[Pair]) -> str:
    sides = {"the reference": [pair.truth for pair in pairs], "the labels": [pair.labels for pair in pairs]}
    for side, images in sides.items():
        filled = [objects for objects in images if len(objects)]
        boxes_only = sum(objects.rle is None for objects in filled)
        if boxes_only:
            where = "boxes only" if boxes_only == len(filled) else f"objects without a mask in {boxes_only} image(s)"
            return f"{side} hold{'s' if side == 'the reference' else ''} {where}"
    return ""


def _crowded_notes(pairs: Sequence[Pair]) -> list[str]:
    """Where COCO's limit bites: AP stays below 1 there however good the labels are."""
    most = [max(Counter(pair.truth.class_id[~pair.truth.crowd].tolist()).values(), default=0) for pair in pairs]
    over = sum(count > MAX_LABELS for count in most)
    told = f"AP counts the best {MAX_LABELS} labels, as COCO does, and cannot reach 1"
    return [f"{over} image(s) of the reference hold more than {MAX_LABELS} objects of a class: {told}"] if over else []


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
