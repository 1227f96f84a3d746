"""The figures of `benchmarks.real` as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def page(told: Sequence[Mapping[str, Any]]) -> str:
    """Two tables: the labels of the pool, and the students on the test part."""
    rows = sorted(told, key=lambda cell: (cell["set"], cell["shots"], cell["seed"]))
    teachers = [
        "| set | N | seed | `mini` as it is | adapted | adapted and tuned | its AP | YOLOv8n on the N | P / R, default | tuned |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_teacher(cell) for cell in rows),
    ]
    students = [
        "| set | N | seed | (a) N only | (b) and auto-labels | (c) trusted ones | (d) people's labels | better of b, c, of d |",
        "|---|---|---|---|---|---|---|---|",
        *(_student(cell) for cell in rows if len(cell["students"]) == 4),
    ]
    return "\n".join([*teachers, "", *students, ""])


def _teacher(cell: Mapping[str, Any]) -> str:
    tuned, before = cell["tuned"], cell["adapted"]
    figures = [_figure(cell["mini"]), _figure(before), f"**{_figure(tuned)}**", f"{tuned['AP']:.3f}"]
    figures.append(_figure(cell["students"]["a"]["pool"]) if "a" in cell["students"] else "")
    figures += [f"{_number(one['precision'])} / {_number(one['recall'])}" for one in (before, tuned)]
    return f"| {cell['set']} | {cell['shots']} | {cell['seed']} | " + " | ".join(figures) + " |"


def _student(cell: Mapping[str, Any]) -> str:
    of = {name: one["test"] for name, one in cell["students"].items()}
    share = max(of["b"]["AP50"], of["c"]["AP50"]) / of["d"]["AP50"] if of["d"]["AP50"] else float("nan")
    figures = [f"{_figure(of[name])} ({cell['students'][name]['images']})" for name in "abcd"]
    return f"| {cell['set']} | {cell['shots']} | {cell['seed']} | " + " | ".join(figures) + f" | {share:.0%} |"


def _figure(one: Mapping[str, Any]) -> str:
    low, high = one["between"]["AP50"]
    return f"{one['AP50']:.3f} ({low:.2f}–{high:.2f})"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"
