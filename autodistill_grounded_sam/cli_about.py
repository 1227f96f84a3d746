"""The commands that say what there is to choose from, and what this machine has. Flags to one call, as in `cli`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def ontologies(json: JsonFlag = False) -> None:
    """List the ready-made ontologies."""
    from autodistill_grounded_sam.ontology_io import shipped_summary

    cli_output.show_ontologies(shipped_summary(), json)


def plugins(json: JsonFlag = False) -> None:
    """List every detector, segmenter, tagger, format and target, what was proven of each, and what is wrong with any."""
    from autodistill_grounded_sam.about import table

    cli_output.show_plugins([row.facts() for row in table()], json)


def prefetch(
    names: Annotated[Optional[list[str]], typer.Argument(help="Hub ids; the defaults if left out.")] = None,  # noqa: UP045
    json: JsonFlag = False,
) -> None:
    """Bring weights to this machine and check them, for runs without a network."""
    from autodistill_grounded_sam import weights
    from autodistill_grounded_sam.config import SeeConfig

    wanted = names or [SeeConfig().detector, SeeConfig().segmenter]
    cli_output.show_weights(weights.prefetch(wanted), json)


def doctor(json: JsonFlag = False) -> None:
    """Say what will run where: versions, devices, weights that are here."""
    from autodistill_grounded_sam import measuring

    cli_output.show_doctor(measuring.examine(), json)
