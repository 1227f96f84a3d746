"""The commands that learn from a few labelled images, `tune` and `quality`: flags to one call. `cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output

TruthFlag = Annotated[Optional[Path], typer.Option("--truth", help="Labelled images: a COCO json, or a YOLO data.yaml.")]  # noqa: UP045
ImagesFlag = Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")]  # noqa: UP045
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def quality(
    run: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or its run/ folder.")],
    truth: Annotated[Path, typer.Option("--truth", help="Labelled images drawn at random: a COCO json, or a YOLO data.yaml.")],
    trust: Annotated[Optional[float], typer.Option("--trust", help="Also say what waits for review below this (0.8).")] = None,  # noqa: UP045
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """Say how good the labels of a run are: precision and missed objects with 90 % intervals, from some labelled images.

    What it learns is stored with the run: `decide RUN --trust 0.8 --format yolo` then keeps images with a doubtful label out.
    """
    from autodistill_grounded_sam import trusting

    cli_output.show_quality(trusting.quality_to_json(trusting.assess(run, truth, trust=trust, images=images)), json)
