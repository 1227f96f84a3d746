"""What a page is drawn from, beside what was gathered from the labels: plain records that whoever joins the rooms fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.report.samples import Example


@dataclass(frozen=True)
class RunFacts:
    """A run and its last decision. `info` is run.json, `failed` are (id, reason, detail), `notes` what the decision tells."""

    name: str
    ontology: Ontology
    decide: DecideConfig
    info: Mapping[str, Any]
    failed: Sequence[tuple[str, str, str]] = ()
    notes: Sequence[str] = ()
    not_looked_at: int = 0
    formats: Sequence[str] = ()
    commands: Sequence[str] = ()  # to do the same again, and to go on
    decision: str = ""  # stands for it, so that a page of an earlier one is known


@dataclass(frozen=True)
class Copies:
    """Images that look alike. `same_bytes` and `alike` count images that have such a twin; `leaking` those whose twin is on the
    other side of the split. `pairs` are some of them, those that leak first."""

    same_bytes: int = 0
    alike: int = 0
    leaking: int = 0
    pairs: Sequence[tuple[Example, Example]] = ()


@dataclass(frozen=True)
class Asked:
    """What a person is asked on the page: labels most likely wrong, that first, of which nobody said anything yet. `key` names
    the run for the browser, `decided` counts the decisions that the run has already; `merge` is the command that takes in those
    of the page, `then` the one that applies them."""

    examples: Sequence[Example] = ()
    key: str = ""
    decided: int = 0
    merge: str = ""
    then: str = ""


@dataclass(frozen=True)
class Judged:
    """A student or teacher measured against a reference: name, and the plain data of `evaluate`."""

    name: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Student:
    """A student's training: what of the teacher's validation labels it gets right after these epochs, by name of the figure."""

    name: str
    epochs: Sequence[int]
    curves: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Measured:
    """What is known of a run beside its labels. `quality` is what `quality` found, of another decision if `quality_is_old`."""

    copies: Copies = Copies()
    quality: Mapping[str, Any] | None = None
    quality_is_old: bool = False
    students: Sequence[Student] = ()
    judged: Sequence[Judged] = field(default_factory=tuple)
    asked: Asked = Asked()
