"""The commands that bring datasets in and carry them out, `import` and `upload`: flags to one call. `cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def import_dataset(
    dataset: Annotated[Path, typer.Argument(help="A YOLO, COCO, VOC, LabelMe or CVAT dataset: its folder, yaml, json or XML.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write the run into.")],
    add: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--add", help="A run over the same images: its labels of classes that the dataset lacks."),
    ] = None,
    images: Annotated[Optional[str], typer.Option("--images", help="Where the images are, if not beside the labels.")] = None,  # noqa: UP045
    json: JsonFlag = False,
) -> None:
    """Open a labelled dataset as a run, to review, complete and export it like any other."""
    from autodistill_grounded_sam import importing

    with cli_output.progress(quiet=json) as bar:
        summary = importing.import_dataset(dataset, out, add=add, images=images, progress=bar)
    cli_output.show_run(summary, json)
    raise typer.Exit(3 if summary.failed else 0)
