"""The numbers of a page: what stands in its tables and sentences, and the charts beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml
from markupsafe import Markup

from autodistill_grounded_sam.report import charts
from autodistill_grounded_sam.report.charts import Layer
from autodistill_grounded_sam.report.facts import Judged, RunFacts, Student
from autodistill_grounded_sam.report.gathering import SIZE_DECADES, Gathered
from autodistill_grounded_sam.types import REASONS, Reason, State

WHY: Mapping[Reason, str] = {
    Reason.NEGATIVE: "a negative prompt scored higher than every class",
    Reason.THRESHOLD: "scored below the threshold of its class",
    Reason.MASK: "nothing was left of its mask after cleaning, or it never had one",
    Reason.SIZE: "outside the size limits of its class",
    Reason.HERD: "one box around several of its kind",
    Reason.DUPLICATE: "a better candidate covers the same object (blue, dashed)",
}
TOLD_FAILED = 40  # by name; failed.jsonl has them all
OBJECT_BINS = 24
_KEPT = REASONS.index(Reason.KEPT)
_LOW = REASONS.index(Reason.THRESHOLD)


class ClassRow(NamedTuple):
    """A class in words, numbers and small charts. `precision` and `missed` are shares of `quality`, or None."""

    id: int
    name: str
    prompts: Sequence[str]
    labels: int
    bar: Markup
    images: int
    image_share: float
    areas: Sequence[float]  # shares of small, medium, large
    threshold: float
    spark: Markup
    scores: Markup
    where: Markup
    precision: Mapping[str, Any] | None
    missed: Mapping[str, Any] | None


class Fate(NamedTuple):
    reason: Reason
    why: str
    candidates: int
    share: float
    bar: Markup


def headline(run: RunFacts, gathered: Gathered) -> dict[str, Any]:
    """The numbers at the top of the page."""
    labels, images = int(gathered.labels.sum()), gathered.images
    small, large = gathered.smallest_wh, gathered.largest_wh
    sizes = "{} × {}".format(*small) if small == large else "{} × {} to {} × {}".format(*small, *large)
    identity = run.info.get("identity", {})
    return {
        "images": images,
        "labels": labels,
        "classes": len(run.ontology.classes),
        "found": int((gathered.labels > 0).sum()),
        "candidates": int(gathered.scores.sum()),
        "median": _median(gathered.objects),
        "states": {state.value: gathered.states[state] for state in State},
        "failed": len(run.failed),
        "sizes": f"{sizes} pixels",
        "train": int(gathered.sides[:, 0].sum()),
        "valid": int(gathered.sides[:, 1].sum()),
        "detector": _model_name(identity.get("detector")),
        "segmenter": _model_name(identity.get("segmenter")),
        "ended": (run.info.get("sessions") or [{}])[-1].get("ended", "")[:10],
    }


def class_rows(run: RunFacts, gathered: Gathered, quality: Mapping[str, Any] | None) -> list[ClassRow]:
    """In the order of the ontology."""
    thresholds, most = run.ontology.thresholds(_default_threshold(run)), max(int(gathered.labels.max(initial=0)), 1)
    rows, of_class = [], (quality or {}).get("per_class", {})
    for place, spec in enumerate(run.ontology.classes):
        labels, threshold = int(gathered.labels[place]), float(thresholds[place])
        layers = _score_layers(gathered.scores[place])
        told = f"Scores of {spec.name}: {labels:,} labels above the threshold {threshold:g}"
        measured = of_class.get(spec.name, {})
        areas = gathered.areas[place]
        rows.append(
            ClassRow(
                place, spec.name, spec.prompts, labels, charts.bar(labels / most), int(gathered.images_with[place]),
                float(gathered.images_with[place]) / max(gathered.images, 1), (areas / max(areas.sum(), 1)).tolist(), threshold,
                charts.spark(layers, told, threshold),
                charts.histogram(layers, (0, 1), told, mark=threshold, ticks=(0, 0.5, 1), size=(220, 96)),
                charts.where(gathered.where[place], f"Where {spec.name} lies in the images", _aspect(gathered)),
                measured.get("precision"), measured.get("missed"),
            )
        )  # fmt: skip
    return rows


def overall_charts(run: RunFacts, gathered: Gathered) -> dict[str, Any]:
    """Objects an image, scores, margins, positions and sizes of all labels."""
    most, threshold = max([*gathered.objects, 1]), _default_threshold(run)
    step = -(-(most + 1) // OBJECT_BINS)  # labels a bin
    objects = np.zeros(-(-(most + 1) // step), np.int64)
    for count, images in gathered.objects.items():
        objects[count // step] += images
    half = 0.5 if step == 1 else 0.0  # one number a bar: it stands below the middle of it
    labels, areas = int(gathered.labels.sum()), gathered.areas.sum(axis=0)
    shares = (areas / max(int(areas.sum()), 1)).tolist()
    return {
        "objects": charts.histogram(
            [Layer("kept", objects)],
            (-half, len(objects) * step - half),
            f"Objects an image: {_median(gathered.objects)} in the middle one, {most} at most",
            ticks=sorted({0, most // 2, most}),
        ),
        "scores": charts.histogram(
            _score_layers(gathered.scores.sum(axis=0)),
            (0, 1),
            f"Scores of all candidates: {labels:,} became labels",
            mark=threshold,
            ticks=(0, 0.5, 1),
        ),
        "margins": charts.histogram(
            [Layer("kept", gathered.margins.sum(axis=0))],
            (0, 1),
            "Margin of the labels over the next class",
            mark=run.decide.min_margin or None,
            ticks=(0, 0.5, 1),
        ),
        "where": charts.where(
            gathered.where.sum(axis=0), "How often each part of the images is covered by a box", _aspect(gathered)
        ),
        "sizes": charts.sizes(gathered.sizes.sum(axis=0), "Widths and heights of the labels, by powers of ten", SIZE_DECADES),
        "areas": [
            (name, int(count), share, charts.bar(share, width=180))
            for name, count, share in zip(("small", "medium", "large"), areas, shares, strict=True)
        ],
    }


def fates(gathered: Gathered) -> list[Fate]:
    """What became of the candidates, in the order in which `decide` asks."""
    counts = gathered.scores.sum(axis=(0, 2))
    total = max(int(counts.sum()), 1)
    return [
        Fate(reason, why, int(count), float(count) / total, charts.bar(float(count) / total, "low", 180))
        for reason, why in WHY.items()
        for count in [counts[REASONS.index(reason)]]
    ]


def set_aside(failed: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    reasons = Counter(reason for _, reason, _ in failed)
    return {"reasons": reasons.most_common(), "lines": failed[:TOLD_FAILED], "more": max(0, len(failed) - TOLD_FAILED)}


def quality_rows(quality: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A line a class and one for all: precision and missed objects with their 90 % intervals."""
    if quality is None:
        return []
    rows = [*quality["per_class"].items(), ("all classes", quality["overall"])]
    said = {"precision": "Precision", "missed": "Missed"}
    return [{"name": name, **{key: _share(row[key], f"{said[key]} of {name}") for key in said}} for name, row in rows]


def student_charts(students: Sequence[Student]) -> list[tuple[str, Markup]]:
    return [
        (
            student.name,
            charts.curves(list(student.curves.items()), student.epochs, f"{student.name}: agreement with the teacher by epoch"),
        )
        for student in students
        if student.curves
    ]


def judged_rows(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """The first one (the teacher) against each other one, by class: AP50 of boxes on the same reference."""
    if len(judged) < 2:
        return None
    teacher, *others = judged
    rows = []
    for other in others:
        pairs = [("all classes", _ap50(teacher.figures.get("box")), _ap50(other.figures.get("box")))]
        names = [name for name in teacher.figures["per_class"] if name in other.figures["per_class"]]
        pairs += [(name, *(_ap50(one.figures["per_class"][name]) for one in (teacher, other))) for name in names]
        lines = [
            (name, first, second, charts.dumbbell(first, second, f"AP50 of {name}: {first:.2f} and {second:.2f}"))
            for name, first, second in pairs
            if first is not None and second is not None
        ]
        rows.append((other.name, lines))
    return {"teacher": teacher.name, "rows": rows}


def how_to_repeat(run: RunFacts) -> dict[str, Any]:
    info = run.info
    session = (info.get("sessions") or [{}])[-1]
    identity = info.get("identity", {})
    models = [(role, identity[role]) for role in ("detector", "segmenter") if identity.get(role)]
    return {
        "models": [(role, model.get("name", ""), model.get("sha256") or "") for role, model in models],
        "versions": sorted(session.get("versions", {}).items()),
        "seconds": [(stage, seconds) for stage, seconds in session.get("seconds", {}).items() if seconds],
        "settings": sorted({**identity.get("see", {}), **run.decide.model_dump(mode="json")}.items()),
        "ontology": yaml.safe_dump(run.ontology.document(), sort_keys=False, allow_unicode=True, width=100),
        "folder": info.get("images", ""),
        "device": session.get("device", ""),
    }


def _score_layers(scores: charts.Numbers) -> list[Layer]:
    """Of (reasons, bins): labels, what was above the threshold and still dropped, what was below it."""
    kept, low = scores[_KEPT], scores[_LOW]
    return [Layer("kept", kept), Layer("lost", scores.sum(axis=0) - kept - low), Layer("low", low)]


def _share(share: Mapping[str, Any], label: str) -> dict[str, Any]:
    value, low, high = share["value"], share["low"], share["high"]
    if value is None:
        return {"text": "–", "between": "", "count": share["count"], "chart": Markup("")}
    chart = charts.interval(value, low, high, f"{label}: {value:.3f}, between {low:.3f} and {high:.3f}")
    return {"text": f"{value:.3f}", "between": f"{low:.3f} – {high:.3f}", "count": share["count"], "chart": chart}


def _default_threshold(run: RunFacts) -> float:
    return max(run.decide.box_threshold, run.decide.text_threshold)


def _aspect(gathered: Gathered) -> float:
    """Of the maps: the images', if the largest and the smallest have the same, else square."""
    (width, height), (other_width, other_height) = gathered.smallest_wh, gathered.largest_wh
    return min(max(width / height, 0.5), 2.0) if height and width * other_height == height * other_width else 1.0


def _median(counts: Counter[int]) -> int:
    half, seen = counts.total() / 2, 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= half:
            return value
    return 0


def _ap50(figures: Mapping[str, Any] | None) -> float | None:
    return None if figures is None else figures.get("AP50")


def _model_name(model: Mapping[str, Any] | None) -> str:
    return "" if not model else str(model.get("name", ""))
