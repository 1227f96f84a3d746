"""The commands that compare with labels, `tune`, `quality` and `check`: flags to one call. `cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from autodistill_grounded_sam import cli_output
from autodistill_grounded_sam.errors import ConfigError

ImagesFlag = Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")]  # noqa: UP045
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def tune(
    source: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or a folder of images.")],
    truth: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--truth", help="Labelled images: a COCO json or YOLO data.yaml (else the reviews of the run)."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="The ontology to write (run/tuned.yaml).")] = None,  # noqa: UP045
    ontology: Annotated[Optional[str], typer.Option("--ontology", help="As of `label`; of a run, the one used last.")] = None,  # noqa: UP045
    word: Annotated[Optional[list[str]], typer.Option("--word", help="CLASS=WORDS to try too; may be given again.")] = None,  # noqa: UP045
    forms: Annotated[bool, typer.Option("--forms", help="Try articles, singular, plural and the class name too.")] = False,
    detector: Annotated[Optional[str], typer.Option("--detector", help="Of a folder of images; a run has its own.")] = None,  # noqa: UP045
    segmenter: Annotated[Optional[str], typer.Option("--segmenter", help="As --detector.")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """Search words, thresholds and duplicate settings on some labelled images; write the ontology with the evidence.

    Nothing is changed that is not proven better on images that had no say in the choice.
    """
    from autodistill_grounded_sam import tuning
    from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig, checked

    models = {key: value for key, value in (("detector", detector), ("segmenter", segmenter)) if value is not None}
    if models and tuning.is_run(source):
        raise ConfigError(
            f"--detector and --segmenter are of a folder of images; the run {source} has its own models: leave them out"
        )
    config = LabelConfig(see=checked(SeeConfig, models), run=checked(RunConfig, {"device": device, "offline": offline}))
    with cli_output.progress(quiet=json) as bar:
        tuned = tuning.tune(
            source,
            truth,
            out=out,
            ontology=ontology,
            words=_words(word or []),
            forms=forms,
            config=config,
            images=images,
            progress=bar,
        )
    cli_output.show_tuning(tuning.tuning_to_json(tuned), json)


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


def check(
    dataset: Annotated[
        Path, typer.Argument(help="A YOLO dataset (its folder or data.yaml), or a COCO json or a folder of such.")
    ],
    out: Annotated[Optional[Path], typer.Option("--out", help="The folder to write (FOLDER_check).")] = None,  # noqa: UP045
    predictions: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--predictions", help="A run, or a dataset with scores, of a model that never saw these labels: none learns."
        ),
    ] = None,
    ontology: Annotated[Optional[str], typer.Option("--ontology", help="The detector's prompts (the class names).")] = None,  # noqa: UP045
    detector: Annotated[Optional[str], typer.Option("--detector", help="What is adapted in every fold (mini).")] = None,  # noqa: UP045
    student: Annotated[Optional[str], typer.Option("--student", help="Learns instead: yolov8n.pt, as of `distill`.")] = None,  # noqa: UP045
    folds: Annotated[Optional[int], typer.Option("--folds", help="Each learns from all others (2).")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option("--steps", help="Of a detector in a fold (10 minutes of them).")] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option("--epochs", help="Of a student in a fold (50).")] = None,  # noqa: UP045
    side: Annotated[Optional[int], typer.Option("--side", help="Of the input in pixels (as of `adapt` and `distill`).")] = None,  # noqa: UP045
    turns: Annotated[bool, typer.Option("--turns", help="A detector learns quarter turns as well.")] = False,
    seed: Annotated[Optional[int], typer.Option("--seed")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """List the labels that are probably wrong: objects without a label, wrong classes, bad boxes, duplicates; the surest first.

    A model that learnt from the other images judges the labels of each. Folds that are done are not done again.
    """
    from autodistill_grounded_sam import checking
    from autodistill_grounded_sam.cross_fitting import CrossFit

    if (steps if student else epochs) is not None:
        raise ConfigError("--steps are of a detector, --epochs of a --student")
    length = epochs if student else steps
    wishes: dict[str, Any] = {
        "folds": folds,
        "detector": detector,
        "student": student,
        "length": length,
        "side_px": side,
        "seed": seed,
    }
    given = {name: value for name, value in wishes.items() if value is not None} | ({"turns": True} if turns else {})
    learns = predictions is None or bool(given)
    with cli_output.progress(quiet=json) as bar:
        result = checking.check_dataset(
            dataset,
            images=images,
            out=out,
            predictions=predictions,
            ontology=ontology,
            settings=CrossFit(**given, device=device, offline=offline) if learns else None,
            progress=bar,
            on_figures=None if json else cli_output.tell_look,
        )
    cli_output.show_check(checking.check_to_json(result), json)


def _words(pairs: list[str]) -> dict[str, list[str]]:
    """`CLASS=WORDS` pairs; a class may be given several times."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ConfigError(f"--word takes CLASS=WORDS, got {wrong[0]!r}")
    words: dict[str, list[str]] = {}
    for name, text in (pair.split("=", 1) for pair in pairs):
        words.setdefault(name, []).append(text)
    return words
