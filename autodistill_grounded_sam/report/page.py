"""The page: everything that was gathered, put into words, charts and pictures, in one HTML text that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from autodistill_grounded_sam.report import figures
from autodistill_grounded_sam.report.advice import advise
from autodistill_grounded_sam.report.asking import questions
from autodistill_grounded_sam.report.facts import Measured, RunFacts
from autodistill_grounded_sam.report.gallery import Gallery
from autodistill_grounded_sam.report.gathering import Gathered

MARK = '<meta name="generator" content="grounded-sam report">'  # by which a page of ours is known
PICTURE_BYTES = (
    9_000_000  # of the 15 MB that a page may have; tables and charts of 1,200 classes are 4 MB, lines of `asking` 1 MB
)


def render(run: RunFacts, gathered: Gathered, measured: Measured) -> str:
    """The whole page. The same records give the same text."""
    gallery = Gallery.of(run, gathered, measured, shown_of_each_class(len(run.ontology.classes)), PICTURE_BYTES)
    style, script = Markup(_read("page.css")), Markup(_read("page.js") + _read("asking.js"))
    return _environment().get_template("page.html.j2").render(
        mark=Markup(MARK),
        policy="; ".join(
            [
                "default-src 'none'",
                "img-src data:",
                f"style-src '{_hash_of(style)}'",
                f"script-src '{_hash_of(script)}'",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        style=style,
        script=script,
        run=run,
        advice=advise(run, gathered, measured),
        measured=measured,
        gallery=gallery,
        questions=questions(measured.asked.examples, gallery.asked, run.ontology.class_names),
        facts=figures.headline(run, gathered),
        classes=figures.class_rows(run, gathered, measured.quality),
        overall=figures.overall_charts(run, gathered),
        fates=figures.fates(gathered),
        aside=figures.set_aside(run.failed),
        quality=figures.quality_rows(measured.quality),
        students=figures.student_charts(measured.students),
        judged=figures.judged_rows(measured.judged),
        repeat=figures.how_to_repeat(run),
    )  # fmt: skip


def shown_of_each_class(classes: int) -> int:
    """How many candidates of each class and kind are shown, so that all their pictures have room on a page."""
    return max(1, min(6, 480 // (5 * max(classes, 1))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda value: f"{int(value):,}"
    environment.filters["of"] = lambda value, noun: f"{int(value):,} {noun}" + ("" if value == 1 else "s")
    return environment


def _read(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text("utf-8")


def _hash_of(text: str) -> str:
    """As a Content-Security-Policy names what may run: with it no other script or style does, however it came into the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
