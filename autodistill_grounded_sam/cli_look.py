"""The commands by which people look at a run. Flags to one call, as in `cli`; no logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output
from autodistill_grounded_sam.errors import ConfigError


def report(
    run: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or its run/ folder.")],
    out: Annotated[Optional[Path], typer.Option("--out", help="The page to write (report.html in the dataset folder).")] = None,  # noqa: UP045
    student: Annotated[Optional[list[Path]], typer.Option("--student", help="A folder that `distill` wrote.")] = None,  # noqa: UP045
    evaluation: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--evaluation", help="NAME=FILE of what `evaluate --json` printed, the teacher first."),
    ] = None,
    images: Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Write one HTML page about a run, as it was decided last: what was found, what was dropped and why, and how sure it is."""
    from autodistill_grounded_sam import reporting

    named = [(name, Path(file)) for name, _, file in (pair.partition("=") for pair in evaluation or [])]
    if any(str(file) == "." for _, file in named):
        raise ConfigError(f"--evaluation takes NAME=FILE, got {', '.join(evaluation or [])}")
    cli_output.show_report(reporting.write_report(run, out, images=images, students=student or [], evaluations=named), json)
