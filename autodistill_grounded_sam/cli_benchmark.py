"""`grounded-sam benchmark`: flags to one call. `cli` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from autodistill_grounded_sam import cli_output

benchmark = typer.Typer(name="benchmark", help="Run a benchmark of the field with models of yours.", no_args_is_help=True)


@benchmark.callback()
def _benchmarks() -> None:
    """Keeps `seginw` a word of its own while it is the only one."""


@benchmark.command()
def seginw(
    root: Annotated[Path, typer.Option("--root", help="The unpacked benchmark: <root>/<dataset>/valid/...")],
    detector: Annotated[Optional[str], typer.Option("--detector", help="mini, a hub id, a path, a plugin's, A+B fused.")] = None,  # noqa: UP045
    segmenter: Annotated[Optional[str], typer.Option("--segmenter", help="As --detector.")] = None,  # noqa: UP045
    prompts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--prompts", help="names (the protocol), better (our wording), or a YAML; a row each; may be given again."),
    ] = None,
    fuse: Annotated[Optional[str], typer.Option("--fuse", help="Another detector: further rows, of both fused.")] = None,  # noqa: UP045
    dataset: Annotated[Optional[list[str]], typer.Option("--dataset", help="Only these; may be given again.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option("--out", help="The folder where everything that was found is kept.")] = Path(
        "seginw_results"
    ),
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Segmentation in the Wild, zero-shot, by the official protocol, beside the published figures.

    Run again after an interruption, it goes on with the next image; what is finished is told at once.
    """
    from autodistill_grounded_sam import benchmarking
    from autodistill_grounded_sam.config import SeeConfig
    from autodistill_grounded_sam.evaluate.seginw import DATASETS, SegInWRow
    from autodistill_grounded_sam.evaluate.seginw_report import report_lines, report_to_json

    usual = SeeConfig()
    alone = detector or usual.detector
    models, *both = [
        benchmarking.SegInWModels(name, segmenter or usual.segmenter, device=device, offline=offline)
        for name in (alone, *([f"{alone}+{fuse}"] if fuse else []))
    ]
    with cli_output.progress(quiet=json) as bar:

        def run(those: benchmarking.SegInWModels) -> list[SegInWRow]:
            asked = prompts or [benchmarking.RAW]
            rows = benchmarking.run_seginw(root, out, those, prompts=asked, datasets=dataset or DATASETS, progress=bar)
            those.unload()
            return rows

        rows = run(models)
        rows += [row._replace(prompts=f"{row.prompts} fused") for fused in both for row in run(fused)]
    if json:
        fused_of = {"fused": both[0].identity} if both else {}
        cli_output.as_json({"root": str(root), "out": str(out), **models.identity, **fused_of, **report_to_json(rows)})
        return
    for line in report_lines(rows):
        cli_output.out.print(escape(line))
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        cli_output.out.print(f"note: {escape(note)}")
