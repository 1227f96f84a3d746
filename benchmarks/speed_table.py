"""Medians, ratios and targets of a run of speed.py, as plain data and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from speed_rivals import Sample

Clock = Literal["wall", "processor"]
RIVALS = ("ours", "transformers", "pipeline", "published")
TITLES = {
    "ours": "ours", "transformers": "transformers, one caption", "pipeline": "transformers' pipeline",
    "published": "published plugin",
}  # fmt: skip
# Once a class: their cost at many classes may be computed from passes that were measured.
BY_CLASS = ("pipeline", "published")
LINE_TARGETS = {1: 1.6, 5: 5.0, 20: 17.0, 80: 60.0}  # against the published plugin, by number of classes
PIPELINE_TARGET = {5: 4.0}
DETECTOR_TARGET, ENCODER_TARGET, CEILING_TARGET = 2.0, 1.4, 0.7
OBJECTS_OF_TARGETS = 5


class Seconds(NamedTuple):
    """The median of a rival's rounds; `computed` where not all of its passes were run."""

    value: float
    computed: bool


class Ratio(NamedTuple):
    """A rival's median over ours; `low` and `high` are the least and the largest of single rounds; `target` is the issue's."""

    value: float
    low: float
    high: float
    target: float | None


class Row(NamedTuple):
    """One line of the table: a part of the work, for so many classes and objects (None where they do not matter)."""

    part: str
    classes: int | None
    objects: int | None
    seconds: Mapping[str, Seconds]
    ratios: Mapping[str, Ratio]

    @property
    def title(self) -> str:
        if self.part == "encode":
            return "SAM's image encoder"
        objects = "" if self.objects is None else f", {self.objects} objects"
        what = "detector" if self.part == "detect" else "whole line"
        return f"{what}, {self.classes} {'class' if self.classes == 1 else 'classes'}{objects}"


def summarize(rounds: Sequence[Sequence[Sample]], clock: Clock, lines: Sequence[tuple[int, int]], targets: bool) -> list[Row]:
    """Rows for the detector at each number of classes, the encoder, and each of the `lines` (classes, objects)."""
    keys: list[tuple[str, int | None, int | None]] = [("detect", classes, None) for classes in sorted({c for c, _ in lines})]
    keys += [("encode", None, None), *(("line", *line) for line in lines)]
    every = [sample for samples in rounds for sample in samples]
    rows = []
    for part, classes, objects in keys:
        found = {rival: seconds_of(every, clock, rival, part, classes, objects) for rival in RIVALS}
        seconds = {rival: value for rival, value in found.items() if value is not None}
        ratios = {}
        for rival in set(seconds) & set(RIVALS[1:]) if "ours" in seconds else ():
            single = [_ratio_of(samples, clock, rival, part, classes, objects) for samples in rounds]
            known = [value for value in single if value is not None]
            target = target_of(rival, part, classes, objects) if targets else None
            ratios[rival] = Ratio(seconds[rival].value / seconds["ours"].value, min(known), max(known), target)
        rows.append(Row(part, classes, objects, seconds, ratios))
    return rows


def seconds_of(
    samples: Sequence[Sample], clock: Clock, rival: str, part: str, classes: int | None, objects: int | None
) -> Seconds | None:
    """The median of what was measured; else, for a rival that runs once a class, what its measured passes make of it."""

    def measured(part: str, classes: int | None, objects: int | None) -> list[float]:
        return [
            getattr(sample, clock)
            for sample in samples
            if (sample.rival, sample.part) == (rival, part)
            and classes in (None, sample.classes)
            and objects in (None, sample.objects)
        ]

    if values := measured(part, classes, objects):
        return Seconds(median(values), False)
    run = [sample.classes for sample in samples if (sample.rival, sample.part) == (rival, part)]
    most = max(run, default=0)
    if rival not in BY_CLASS or classes is None or classes < most or not measured(part, most, objects):
        return None
    passes = median(measured("detect", most, None))
    rest = median(measured(part, most, objects)) - passes if part == "line" else 0.0
    return Seconds(rest + passes * classes / most, True)


def target_of(rival: str, part: str, classes: int | None, objects: int | None) -> float | None:
    if part == "encode":
        return ENCODER_TARGET if rival == "transformers" else None
    if part == "detect":
        return {"transformers": DETECTOR_TARGET, "published": DETECTOR_TARGET * (classes or 0)}.get(rival)
    if objects != OBJECTS_OF_TARGETS:
        return None
    return {"published": LINE_TARGETS, "pipeline": PIPELINE_TARGET}.get(rival, {}).get(classes or 0)


def ceiling_rows(
    flops: Mapping[str, int], seconds: Mapping[str, float], rate: float, target: float | None
) -> list[dict[str, Any]]:
    """For each model: its operations, its seconds, those it would take at the measured rate, and their share."""
    return [
        {
            "model": model,
            "gflop": flops[model] / 1e9,
            "seconds": seconds[model],
            "seconds at the ceiling": flops[model] / rate,
            "share": flops[model] / rate / seconds[model],
            "target": target,
        }
        for model in flops
    ]


def time_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table of seconds and ratios, without the rivals that did not run."""
    there = [rival for rival in RIVALS if any(rival in row.seconds for row in rows)]
    head = ["seconds an image", *(TITLES[rival] for rival in there), *(f"over ours: {TITLES[rival]}" for rival in there[1:])]
    body = []
    for row in rows:
        cells = [_seconds_cell(row.seconds.get(rival)) for rival in there]
        body.append([row.title, *cells, *(_ratio_cell(row.ratios.get(rival)) for rival in there[1:])])
    return head, body


def ceiling_cells(ceiling: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["the machine's ceiling", "GFLOP", "seconds", "at the ceiling", "share"]
    body = [
        [
            str(row["model"]),
            f"{row['gflop']:.0f}",
            f"{row['seconds']:.2f}",
            f"{row['seconds at the ceiling']:.2f}",
            f"{row['share']:.0%}" + (_verdict(row["share"], row["target"], "{:.0%}") if row["target"] else ""),
        ]
        for row in ceiling
    ]
    return head, body


def show(tables: Sequence[tuple[list[str], list[list[str]]]], notes: Sequence[str]) -> None:
    """On the terminal, as wide as the text needs."""
    console = Console(width=None if Console().is_terminal else 200, highlight=False)
    for head, body in tables:
        table = Table(*head)
        for cells in body:
            table.add_row(*cells)
        console.print(table)
    for note in notes:
        console.print(note, markup=False)


def markdown(tables: Sequence[tuple[list[str], list[list[str]]]], notes: Sequence[str]) -> str:
    parts = []
    for head, body in tables:
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in lines))
    return "\n\n".join([*parts, *notes]) + "\n"


def _ratio_of(
    samples: Sequence[Sample], clock: Clock, rival: str, part: str, classes: int | None, objects: int | None
) -> float | None:
    theirs, ours = (seconds_of(samples, clock, name, part, classes, objects) for name in (rival, "ours"))
    return theirs.value / ours.value if theirs and ours else None


def _seconds_cell(seconds: Seconds | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds.value:.3g}" + (" computed" if seconds.computed else "")


def _ratio_cell(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    verdict = "" if ratio.target is None else _verdict(ratio.value, ratio.target, "{:g}")
    return f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f}){verdict}"


def _verdict(value: float, target: float, form: str) -> str:
    return f", target {form.format(target)}: {'met' if value >= target else 'short'}"
