"""What the command line shows: tables and progress for people (stderr for progress), one JSON object for programs."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table

from autodistill_grounded_sam.plugins import OURS

_PLAIN_SECONDS = 10.0  # between two lines where there is no terminal to draw a bar on
_SHOWN_CLASSES = 6
_SHOWN_FAULTS = 10

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def tell(text: str) -> None:
    err.print(escape(text))


def tell_error(text: str) -> None:
    err.print(f"[bold red]error:[/] {escape(text)}")


def as_json(facts: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts, ensure_ascii=True, indent=2, default=str) + "\n")


class RunProgress:
    """A bar with rate, time left and running class counts on a terminal, a plain line now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._plain = quiet, not err.is_terminal
        self._counts: Counter[str] = Counter()
        self._done = self._all = 0
        self._start = self._said = time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None

    def total(self, images: int) -> None:
        self.close()  # of an earlier look, where there are several
        self._done, self._all, self._start = 0, images, time.monotonic()
        self._counts.clear()
        if self._quiet or self._plain or not images:
            return
        whole, rest = Column(no_wrap=True, min_width=9), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            TextColumn("labelling"), BarColumn(20), MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, min_width=15)),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("left; {task.fields[counts]}", table_column=rest),
        )  # fmt: skip
        self._bar = Bar(*columns, console=err, expand=True)
        self._task = self._bar.add_task("labelling", total=images, rate="", counts="")
        self._bar.start()

    def advance(self, images: int, counts: Mapping[str, int]) -> None:
        self._done += images
        self._counts.update(counts)
        rate = self._done / max(time.monotonic() - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=images, rate=f"{rate:.1f} images/s", counts=self._tally())
        elif not self._quiet and (time.monotonic() - self._said > _PLAIN_SECONDS or self._done == self._all):
            self._said = time.monotonic()
            left = (self._all - self._done) / rate
            tell(f"{self._done}/{self._all} images, {rate:.1f} images/s, {left:.0f} s left: {self._tally()}")

    def message(self, text: str) -> None:
        if self._done >= self._all:
            self.close()  # what is said afterwards stands below the finished bar
        if not self._quiet:
            tell(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _tally(self) -> str:
        most = self._counts.most_common(_SHOWN_CLASSES)
        rest = sum(self._counts.values()) - sum(count for _, count in most)
        return ", ".join([f"{count} {name}" for name, count in most] + ([f"{rest} others"] if rest else []))


@contextmanager
def progress(quiet: bool) -> Iterator[RunProgress]:
    bar = RunProgress(quiet)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def epochs(count: int, quiet: bool) -> Iterator[Any]:
    """A line an epoch (a terminal gets a bar): `on_epoch(epoch, epochs, figures)`."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task("training", total=count, figures="")

        def on_epoch(epoch: int, total: int, figures: Mapping[str, float]) -> None:
            said = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            bar.update(task, completed=epoch, figures=said)
            if not err.is_terminal and (epoch == total or epoch % max(1, total // 10) == 0):
                tell(f"epoch {epoch}/{total}: {said}")

        yield on_epoch


def tell_look(step: int, steps: int, figures: Mapping[str, float]) -> None:
    """A line for each look at the images that are held out while a detector adapts."""
    said = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if step or name != "loss")
    tell(f"step {step} of {steps}: {said}" if step else f"before: {said or 'no image is held out, so there is no AP'}")


def show_adapted(result: Any, as_object: bool) -> None:
    left_out = Counter(fault.reason for fault in result.faults)
    if as_object:
        as_json(
            {
                "weights": str(result.weights), "parent": result.parent, "figures": dict(result.figures),
                "figures_before": dict(result.figures_before), "recipe": dict(result.recipe), "images": result.images,
                "held_out": result.held_out, "steps": result.steps, "left_out": dict(left_out),
                "faults": [[fault.image, fault.reason, fault.detail] for fault in result.faults],
                "warnings": list(result.warnings), "command": result.command, "mask_iou": dict(result.mask_iou),
                "segmenter": None if result.segmenter is None else str(result.segmenter),
            }
        )  # fmt: skip
        return
    for fault in result.faults[:_SHOWN_FAULTS]:
        tell(f"left out: {fault.image}: {fault.reason}: {fault.detail}")
    if result.faults:
        counted = ", ".join(f"{count} x {reason}" for reason, count in left_out.most_common())
        tell(f"{len(result.faults)} annotation(s) were left out: {counted}; all are listed in {result.weights / 'adapted.json'}")
    recipe = result.recipe
    out.print(
        f"adapted {escape(result.parent)} to {result.images} images in {result.steps} steps, at {recipe['shorter_side_px']} px"
    )
    if result.figures:
        pairs = [f"{name} {result.figures_before[name]:.3f} -> {value:.3f}" for name, value in result.figures.items()]
        out.print(f"on {result.held_out} of them that were held out: {', '.join(pairs)}")
    if result.mask_iou:
        out.print(f"mask IoU from true boxes {result.mask_iou['before']:.3f} -> {result.mask_iou['adapted']:.3f}")
    segmenter = f" --segmenter {result.segmenter}" if result.segmenter else ""
    out.print(f"use it with --detector {escape(str(result.weights) + segmenter)}")


def show_run(summary: Any, as_object: bool) -> None:
    if as_object:
        as_json(
            {
                "out": str(summary.out), "run": str(summary.run), "images": dict(summary.images), "labels": summary.labels,
                "per_class": dict(summary.per_class), "looked_at": summary.looked_at, "seconds": round(summary.seconds, 3),
                "images_per_second": round(summary.images_per_second, 3),
                "share_in_models": round(summary.share_in_models, 3), "peak_memory_mb": summary.peak_memory_mb,
                "report": None if summary.report is None else str(summary.report),
                "stages": {stage: round(seconds, 3) for stage, seconds in summary.stages.items()},
                "failed": [{"id": line.id, "reason": line.reason, "detail": line.detail} for line in summary.failed],
                "datasets": [_dataset(dataset) for dataset in summary.datasets],
                "notes": list(summary.notes),
            }
        )  # fmt: skip
        return
    what = f"{summary.labels} labels " + ("in" if summary.datasets else "decided of")
    table = Table("class", "labels", title=f"{what} {escape(str(summary.out))}", title_justify="left")
    for name, count in sorted(summary.per_class.items(), key=lambda item: -item[1]):
        if count or len(summary.per_class) <= 20:
            table.add_row(escape(name), str(count))
    out.print(table)
    states = ", ".join(f"{count} {state}" for state, count in summary.images.items() if count)
    in_models = f", {summary.share_in_models:.0%} of the time in models" if summary.share_in_models else ""
    rate = f" ({summary.images_per_second:.1f} images/s{in_models})" if summary.looked_at else ""
    peak = "" if summary.peak_memory_mb is None else f", {summary.peak_memory_mb:.0f} MB at most"
    out.print(f"images: {states}; {summary.looked_at} looked at in this run{rate}, {summary.seconds:.1f} s in all{peak}")
    for dataset in summary.datasets:
        _print_dataset(dataset)
    if summary.report is not None:
        out.print(f"report: {escape(str(summary.report))}")
    for note in summary.notes:
        out.print(f"note: {escape(note)}")
    if summary.failed:
        reasons = Counter(line.reason for line in summary.failed)
        said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        what = "1 image was" if len(summary.failed) == 1 else f"{len(summary.failed)} images were"
        err.print(f"[yellow]{what} set aside[/] ({said}): {escape(str(summary.run / 'failed.jsonl'))}")


def show_report(report: Any, as_object: bool) -> None:
    if as_object:
        as_json({"report": str(report.path), "bytes": report.bytes, "images": report.images, "labels": report.labels})
    else:
        out.print(f"report: {escape(str(report.path))} ({report.bytes / 1e6:.1f} MB, opens in any browser)")


def show_dataset(dataset: Any, as_object: bool) -> None:
    if as_object:
        as_json(_dataset(dataset))
    else:
        _print_dataset(dataset)


def _dataset(dataset: Any) -> dict[str, Any]:
    return {
        "format": dataset.format, "path": str(dataset.path), "images": dict(dataset.images), "empty": dataset.empty,
        "labels": dataset.labels, "per_class": dict(dataset.per_class), "round_trip_iou": dataset.round_trip_iou,
        "lowest_iou": dataset.lowest_iou, "notes": list(dataset.notes),
    }  # fmt: skip


def _print_dataset(dataset: Any) -> None:
    splits = ", ".join(f"{count} {split}" for split, count in dataset.images.items())
    iou = "" if dataset.round_trip_iou is None else f", masks read back with IoU {dataset.round_trip_iou:.4f}"
    out.print(
        f"{dataset.format}: {escape(str(dataset.path))} ({splits}; {dataset.labels} labels, {dataset.empty} empty images{iou})"
    )
    for note in dataset.notes:
        out.print(f"  note: {escape(note)}")


def show_evaluation(evaluation: Any, as_object: bool) -> None:
    from autodistill_grounded_sam.evaluate.report import evaluation_to_json

    facts = evaluation_to_json(evaluation)
    if as_object:
        as_json(facts)
        return
    figures = Table("", "AP", "AP50", "AP75", title="against the human reference", title_justify="left")
    for kind in ("box", "mask"):
        if facts[kind] is not None:
            figures.add_row(kind, *(_number(facts[kind][key]) for key in ("AP", "AP50", "AP75")))
    out.print(figures)
    columns = list(dict.fromkeys(key for row in facts["per_class"].values() for key in row))  # in the order of the report
    classes = Table("class", *(key.replace("precision", "prec.").replace("mask_iou", "IoU") for key in columns))
    for name, row in facts["per_class"].items():
        classes.add_row(escape(name), *(_number(row.get(key)) for key in columns))
    out.print(classes)
    point = facts["operating_point"]
    out.print("at the threshold of the labels: " + ", ".join(f"{key} {_number(value)}" for key, value in point.items()))
    for note in facts["notes"]:
        out.print(f"note: {escape(note)}")


def show_tuning(facts: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        as_json(facts)
        return
    out.print(f"tuned on {facts['images']} labelled images:")
    for choice, why in zip(facts["choices"], facts["evidence"], strict=True):
        at = "" if choice["threshold"] is None else f" at {choice['threshold']:.2f}: {', '.join(choice['words'])}"
        out.print(f"[bold]{escape(choice['name'])}[/]{escape(at)}\n  {escape(why)}")
    for note in facts["notes"]:
        out.print(f"note: {escape(note)}")
    out.print(f"ontology: {escape(str(facts['out']))}\nnext: {escape(facts['command'])}")


def show_quality(facts: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        as_json(facts)
        return
    title = f"labels against {facts['labelled_images']} of {facts['run_images']} images, with 90 % intervals"
    table = Table("class", "precision", "of labels", "missed", "of objects", title=title, title_justify="left")
    for name, row in [*facts["per_class"].items(), ("all", facts["overall"])]:
        precision, missed = row["precision"], row["missed"]
        table.add_row(escape(name), _share(precision), str(precision["count"]), _share(missed), str(missed["count"]))
    out.print(table)
    if facts["trusted"] is not None:
        part = facts["trusted"]
        out.print(
            f"at trust {part['trust']}: {part['images']} images with {part['labels']} labels stay, precision "
            f"{_share(part['precision'])}; {part['waiting']} images wait for review"
        )
    for note in facts["notes"]:
        out.print(f"note: {escape(note)}")
    out.print(f"labels most likely wrong, first ones first: {escape(facts['queue'])}")


def show_check(facts: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        as_json(facts)
        return
    title = f"{facts['labels']} labels in {facts['images']} images"
    table = Table("what", "probably wrong", "all that is listed", title=title, title_justify="left")
    for kind, count in facts["likely"].items():
        table.add_row(kind, str(count), str(facts["all_of"][kind]))
    table.add_row("all", str(sum(facts["likely"].values())), str(sum(facts["all_of"].values())))
    out.print(table)
    for line in facts["first"]:
        box = " ".join(f"{value:.0f}" for value in line["xyxy"] or line["proposed_xyxy"])
        rather = f", rather {line['proposed_class']}" if line["kind"] == "swapped" else ""
        name = line["class"] or line["proposed_class"]
        out.print(f"{line['suspicion']:.2f} {line['kind']}: {escape(line['image'])}: {escape(name + rather)} at {box}")
    for note in facts["notes"]:
        out.print(f"note: {escape(note)}")
    out.print(f"all of them, the surest first: {escape(facts['file'])}")


def _share(share: Mapping[str, Any]) -> str:
    return "-" if share["value"] is None else f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))


def show_training(result: Any, as_object: bool) -> None:
    if as_object:
        as_json(
            {
                "weights": str(result.weights), "started_from": result.started_from, "figures": dict(result.figures),
                "command": result.command, "exported": None if result.exported is None else str(result.exported),
            }
        )  # fmt: skip
        return
    out.print(f"weights: {escape(str(result.weights))} (started from {escape(result.started_from)})")
    if result.exported is not None:
        out.print(f"exported: {escape(str(result.exported))}")
    out.print(", ".join(f"{name} {value:.3f}" for name, value in result.figures.items()))


def show_prediction(found: Sequence[Mapping[str, Any]], picture: Any, as_object: bool) -> None:
    if as_object:
        as_json({"labels": list(found), "picture": str(picture)})
        return
    table = Table("class", "score", "margin", "box (xyxy px)")
    for row in found:
        table.add_row(
            escape(row["class"]), f"{row['score']:.3f}", f"{row['margin']:.3f}", " ".join(f"{v:.0f}" for v in row["xyxy"])
        )
    out.print(table if found else "nothing above the threshold")
    out.print(f"picture: {escape(str(picture))}")


def show_ontologies(rows: Sequence[Any], as_object: bool) -> None:
    if as_object:
        as_json({"ontologies": [{**row._asdict(), "path": str(row.path)} for row in rows]})
        return
    table = Table("name", "classes", "for")
    for row in rows:
        table.add_row(row.name, str(row.classes), escape(row.description))
    out.print(table)


def show_plugins(rows: Sequence[Mapping[str, Any]], as_object: bool) -> None:
    if as_object:
        as_json({"plugins": list(rows)})
        return
    for role, found in groupby(rows, key=lambda row: row["role"]):
        out.print(f"[bold]{role}[/]")
        for row in found:
            origin = row["from"] if row["from"] != OURS else None
            facts = [origin, row["licence"], row["needs"] and f"needs {row['needs']}", row["problem"]]
            out.print(escape("  " + "; ".join([row["name"], *filter(None, facts)])))
            for checkpoint in row["checkpoints"]:  # a line each: names are to be copied
                if checkpoint != row["name"]:
                    out.print(f"    {escape(checkpoint)}")


def show_weights(found: Sequence[Any], as_object: bool) -> None:
    if as_object:
        as_json({"weights": [{"name": w.name, "path": str(w.path), "sha256": w.sha256} for w in found]})
        return
    for weights in found:
        out.print(f"{escape(weights.name)}: {escape(str(weights.path))} (sha256 {weights.sha256[:16]}...)")


def show_doctor(facts: Mapping[str, Any], as_object: bool) -> None:
    if as_object:
        as_json(facts)
        return
    for section, rows in facts.items():
        table = Table(section, show_header=True)
        table.add_column("", overflow="fold")  # paths are to be copied
        for name, value in rows.items():
            table.add_row(escape(name), escape(str(value)))
        out.print(table)
