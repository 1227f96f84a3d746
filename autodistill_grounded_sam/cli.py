"""`grounded-sam`: flags to settings, one call, the answer on the screen. No logic lives here.

Exit codes: 0 all images were read, 1 a fault, 2 wrong use, 3 some images were set aside, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import autodistill_grounded_sam.errors as errors
from autodistill_grounded_sam import (
    __version__,
    cli_about,
    cli_app,
    cli_benchmark,
    cli_datasets,
    cli_discover,
    cli_few_labels,
    cli_look,
    cli_output,
    cli_review,
)

app = typer.Typer(
    name="grounded-sam",
    help="Label a folder of images from words: Grounding DINO and SAM, a dataset out, a student trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130  # as shells have it: 128 + SIGINT
_AFTER_INTERRUPT = {
    "label": "what was looked at is kept: run the same command again to go on",
    "decide": "run the same command again",
    "export": "nothing was replaced: run the same command again",
    "distill": "run the same command again: students of transformers go on where they were, for others training starts anew",
    "frames": "videos that are done are kept: run the same command again to go on",
    "import": "what was read is kept: run the same command again to go on",
    "upload": "what went up is remembered: run the same command again to send the rest",
    "adapt": "what was learnt is kept: run the same command again to go on",
    "discover": "run the same command again",
    "check": "folds that are done are kept, and what the others learnt: run the same command again to go on",
    "tune": "what was looked at is kept: run the same command again to go on",
    "benchmark": "what was looked at is kept: run the same command again to go on",
    "prefetch": "what was brought is kept: run the same command again to go on",
}

OntologyFlag = Annotated[
    str, typer.Option("--ontology", help='A file, a shipped name (see `ontologies`), or \'{"prompt": "class"}\'.')
]
OutFlag = Annotated[Path, typer.Option("--out", help="The folder to write.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
DeviceFlag = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
DetectorFlag = Annotated[Optional[str], typer.Option("--detector", help="mini, hub id, path, pkg.module:Class, A+B.")]  # noqa: UP045
SegmenterFlag = Annotated[Optional[str], typer.Option("--segmenter", help="As --detector; `detector`: SAM 3 draws them itself.")]  # noqa: UP045
BoxThreshold = Annotated[Optional[float], typer.Option("--box-threshold", help="The score a label must reach (0.35).")]  # noqa: UP045
TextThreshold = Annotated[Optional[float], typer.Option("--text-threshold", help="The score its words must reach (0.25).")]  # noqa: UP045
OfflineFlag = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
ValidFlag = Annotated[Optional[float], typer.Option("--valid", help="Share of images in the validation split (0.2).")]  # noqa: UP045
SeedFlag = Annotated[Optional[int], typer.Option("--seed", help="Draws another split (0).")]  # noqa: UP045
DuplicateIou = Annotated[Optional[float], typer.Option("--duplicate-iou", help="Two labels of this IoU are one object (0.7).")]  # noqa: UP045
Containment = Annotated[
    Optional[float], typer.Option("--duplicate-containment", help="So much of the smaller inside: one (0.85).")  # noqa: UP045
]
FormatFlag = Annotated[Optional[list[str]], typer.Option("--format", help="As `plugins` lists them; may be given again.")]  # noqa: UP045
ImagesFlag = Annotated[Optional[str], typer.Option("--images", help="Where the images are now, if they moved.")]  # noqa: UP045


@app.command()
def label(
    images: Annotated[str, typer.Argument(help="A folder with its sub-folders, a URL (s3://...), or roboflow:PROJECT.")],
    ontology: cli_discover.OntologyFlag = None,
    auto: cli_discover.AutoFlag = False,
    tagger: cli_discover.TaggerFlag = None,
    words: cli_discover.WordsFlag = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="The dataset folder (IMAGES_labeled).")] = None,  # noqa: UP045
    detector: DetectorFlag = None,
    segmenter: SegmenterFlag = None,
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    duplicate_iou: DuplicateIou = None,
    duplicate_containment: Containment = None,
    batch_size: Annotated[str, typer.Option("--batch-size", help="A number, or auto.")] = "auto",
    device: DeviceFlag = "auto",
    format: FormatFlag = None,  # noqa: A002
    valid: ValidFlag = None,
    seed: SeedFlag = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray for a cluster.")] = "local",
    workers: Annotated[Optional[int], typer.Option("--workers", help="Of the ray engine (one a GPU, or one a core).")] = None,  # noqa: UP045
    gpus_per_worker: Annotated[Optional[float], typer.Option("--gpus-per-worker", help="Of the ray engine (1).")] = None,  # noqa: UP045
    masks: Annotated[str, typer.Option("--masks", help="all, kept (only what today's thresholds keep), none (boxes).")] = "all",
    mask_guess: Annotated[
        str, typer.Option("--mask-guess", help="single, best-of-three (by its own rating), hq-only (SAM-HQ's own).")
    ] = "single",
    precision: Annotated[
        str, typer.Option("--precision", help="float32, tf32 or bfloat16 (faster, scores move a little).")
    ] = "float32",
    tiles: Annotated[str, typer.Option("--tiles", help="Of large images: none, auto (small objects), all.")] = "none",
    tile_px: Annotated[Optional[int], typer.Option("--tile-px", help="Side of a tile (as the detector's input holds).")] = None,  # noqa: UP045
    views: Annotated[Optional[str], typer.Option("--views", help="See the image also as: flip, scale (flip,scale).")] = None,  # noqa: UP045
    extension: Annotated[Optional[str], typer.Option("--extension", help="Only files of this suffix.")] = None,  # noqa: UP045
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html beside the dataset.")] = True,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Label a folder. Run again after an interruption, it goes on where it was."""
    from autodistill_grounded_sam import pipeline

    config = _label_config(
        see={"detector": detector, "segmenter": segmenter, "masks": masks, "mask_guess": mask_guess}
        | {"precision": precision, "tiles": tiles, "tile_px": tile_px, "views": tuple(views.split(",")) if views else None},
        run={"device": device, "batch_size": int(batch_size) if batch_size.isdigit() else batch_size, "offline": offline}
        | {"engine": engine, "workers": workers, "gpus_per_worker": gpus_per_worker, "report": report},
        decide={"box_threshold": box_threshold, "text_threshold": text_threshold}
        | {"duplicate_iou": duplicate_iou, "duplicate_containment": duplicate_containment},
        export={"formats": tuple(format) if format else None, "valid": valid, "seed": seed},
    )
    images, out = cli_datasets.bring(images, out, offline=offline, quiet=json)
    with cli_output.progress(quiet=json) as bar:
        found = cli_discover.found(auto, ontology, images, out, {"tagger": tagger, "words": words}, config, extension, bar)
        summary = pipeline.label(images, _ontology(found, json), out, config, extension=extension, progress=bar)
    cli_output.show_run(summary, json)
    raise typer.Exit(3 if summary.failed else 0)


@app.command()
def decide(
    run: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or its run/ folder.")],
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    duplicate_iou: DuplicateIou = None,
    duplicate_containment: Containment = None,
    trust: Annotated[Optional[float], typer.Option("--trust", help="Below it a label waits for review; see `quality`.")] = None,  # noqa: UP045
    ontology: Annotated[Optional[str], typer.Option("--ontology", help="Other thresholds or classes; no new prompts.")] = None,  # noqa: UP045
    format: FormatFlag = None,  # noqa: A002
    valid: ValidFlag = None,
    seed: SeedFlag = None,
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """Decide anew from what was seen, without a model; with --format the dataset is written anew as well.

    What is left out stays as it was used last.
    """
    from autodistill_grounded_sam import pipeline

    config = _label_config(
        pipeline.last_settings(run),
        decide={"box_threshold": box_threshold, "text_threshold": text_threshold, "trust": trust}
        | {"duplicate_iou": duplicate_iou, "duplicate_containment": duplicate_containment},
        export={"formats": tuple(format) if format else None, "valid": valid, "seed": seed},
    )
    summary = pipeline.redecide(
        run,
        config.decide,
        None if ontology is None else _ontology(ontology, json),
        export=config.export if format else None,
        images=images,
    )
    cli_output.show_run(summary, json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A dataset folder that `label` made, or its run/ folder.")],
    out: OutFlag,
    format: Annotated[str, typer.Option("--format", help="voc, cvat, hf, ...: see `plugins`.")] = "yolo-seg",  # noqa: A002
    valid: ValidFlag = None,
    seed: SeedFlag = None,
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """Write the labels as they were decided last in another format or folder."""
    from autodistill_grounded_sam import pipeline

    config = _label_config(pipeline.last_settings(run), export={"valid": valid, "seed": seed}).export
    cli_output.show_dataset(pipeline.export_run(run, format, out, config, images=images), json)


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(help="A run or dataset folder, a COCO json, or weights of a student.")],
    truth: Annotated[Path, typer.Option("--truth", help="The human reference: a COCO json, or a YOLO data.yaml.")],
    images: ImagesFlag = None,
    json: JsonFlag = False,
) -> None:
    """Measure labels or a student against a human reference."""
    from autodistill_grounded_sam import measuring

    cli_output.show_evaluation(measuring.evaluate(source, truth, images=images), json)


app.command()(cli_few_labels.tune)
app.command()(cli_few_labels.quality)
app.command()(cli_few_labels.check)
app.add_typer(cli_benchmark.benchmark)
app.command()(cli_datasets.frames)
app.command("import")(cli_datasets.import_dataset)
app.command()(cli_datasets.upload)
app.command()(cli_discover.discover)
app.command()(cli_app.app)
app.command()(cli_look.report)
app.command()(cli_review.review)


@app.command()
def distill(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder: YOLO (a data.yaml), or COCO.")],
    out: OutFlag,
    target: Annotated[
        str, typer.Option("--target", help="yolov8n-seg.pt, yolo11n.yaml, rf-detr-nano, d-fine-s, ..., a folder, or a plugin's.")
    ] = "yolov8n-seg.pt",
    epochs: Annotated[int, typer.Option("--epochs")] = 50,
    imgsz: Annotated[Optional[int], typer.Option("--imgsz", help="Side of the training images in pixels.")] = None,  # noqa: UP045
    batch: Annotated[int, typer.Option("--batch-size")] = 16,
    device: DeviceFlag = "auto",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    settings: Annotated[Optional[list[str]], typer.Option("--set", help="NAME=VALUE of the target's own settings.")] = None,  # noqa: UP045
    onnx: Annotated[bool, typer.Option("--onnx", help="Write the student as an ONNX file as well.")] = False,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Train a student on a dataset."""
    from autodistill_grounded_sam import plugins
    from autodistill_grounded_sam.distill.students import exported

    own = _settings(settings or []) | ({} if imgsz is None else {"imgsz": imgsz})
    with cli_output.epochs(epochs, quiet=json) as on_epoch:
        student = plugins.load("targets", target, offline=offline or None)
        result = student.train(dataset, out=out, epochs=epochs, batch=batch, device=device, seed=seed, on_epoch=on_epoch, **own)
    cli_output.show_training(exported(result, "onnx") if onnx else result, json)


@app.command()
def adapt(
    images: Annotated[Path, typer.Option("--images", help="The folder of the labelled images; others in it are left alone.")],
    annotations: Annotated[Path, typer.Option("--annotations", help="Their labels: a COCO json, or a YOLO data.yaml.")],
    ontology: OntologyFlag,
    out: Annotated[Path, typer.Option("--out", help="The weights folder to write.")],
    detector: Annotated[str, typer.Option("--detector", help="The parent: mini, a hub id, or a path.")] = "mini",
    segmenter: Annotated[Optional[str], typer.Option("--segmenter", help="Its mask decoder learns as well, from masks.")] = None,  # noqa: UP045
    minutes: Annotated[Optional[float], typer.Option("--minutes", help="How long to learn, about (10).")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option("--steps", help="How long, to the very same weights.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option("--seed")] = 0,
    turns: Annotated[bool, typer.Option("--turns", help="Learn quarter turns as well: for what has no upright.")] = False,
    shorter_side: Annotated[Optional[int], typer.Option("--shorter-side", help="Of the input in pixels (by the data).")] = None,  # noqa: UP045
    device: DeviceFlag = "auto",
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Adapt a detector to some labelled images: the weights folder is then a --detector of its own.

    Run again after an interruption, it goes on where it was.
    """
    from autodistill_grounded_sam.adapting import adapt_weights

    _ontology(ontology, json)
    result = adapt_weights(
        images, annotations, ontology, out, detector=detector, segmenter=segmenter, minutes=minutes, steps=steps, seed=seed,
        turns=turns, shorter_side_px=shorter_side, device=device, offline=offline, on_look=None if json else cli_output.tell_look,
    )  # fmt: skip
    cli_output.show_adapted(result, json)


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="One image.")],
    ontology: OntologyFlag,
    out: Annotated[Optional[Path], typer.Option("--out", help="The picture to write (./IMAGE_labeled.png).")] = None,  # noqa: UP045
    detector: DetectorFlag = None,
    segmenter: SegmenterFlag = None,
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    device: DeviceFlag = "auto",
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Look at one image and write a picture of what was found."""
    from autodistill_grounded_sam import measuring

    config = _label_config(
        see={"detector": detector, "segmenter": segmenter},
        run={"device": device, "offline": offline},
        decide={"box_threshold": box_threshold, "text_threshold": text_threshold},
    )
    picture = out or Path(f"{image.stem}_labeled.png")  # here, not among the images, where it would be labelled next time
    found = measuring.predict_picture(image, _ontology(ontology, json), config, picture)
    cli_output.show_prediction(found, picture, json)


app.command()(cli_about.ontologies)
app.command()(cli_about.plugins)
app.command()(cli_about.prefetch)
app.command()(cli_about.doctor)


def main() -> None:
    """The console script: errors of ours are one message and an exit code, not a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    sys.path.append(str(Path.cwd()))  # for pkg.module:Class of the folder one stands in
    raise SystemExit(_exit_code(lambda: app(standalone_mode=False)))


def _exit_code(run: Callable[[], Any]) -> int:
    import click

    try:
        code = int(run() or 0)
        if code == _INTERRUPTED:  # typer turns Ctrl-C into this code
            raise KeyboardInterrupt
        return code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        cli_output.tell(f"interrupted; {_AFTER_INTERRUPT.get(command, 'nothing was changed')}")
        return _INTERRUPTED
    except errors.GroundedSamError as error:
        cli_output.tell_error(str(error))
        fault = isinstance(error, (errors.StoreError, errors.ExportError, errors.UploadError, errors.RecordError))
        return 1 if fault and not isinstance(error, (errors.WrongRunError, errors.WrongPlaceError)) else 2


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what the library logs.")] = False,
) -> None:
    if verbose:
        logging.getLogger("autodistill_grounded_sam").setLevel(logging.INFO)


def _label_config(last: tuple[Any, Any] | None = None, /, **parts: dict[str, Any]) -> Any:
    """A LabelConfig of what was given; flags left out keep the `last` (decide, export) settings, or the library's defaults."""
    from autodistill_grounded_sam.config import LabelConfig, checked

    default = LabelConfig() if last is None else LabelConfig(decide=last[0], export=last[1])
    given = {name: {key: value for key, value in part.items() if value is not None} for name, part in parts.items()}
    merged = {name: checked(type(base := getattr(default, name)), {**dict(base), **part}) for name, part in given.items()}
    return default.model_copy(update=merged)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs, values as YAML reads them: numbers, true, false, text."""
    import yaml

    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise errors.ConfigError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    return {name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in pairs)}


def _ontology(spec: str, quiet: bool) -> Any:
    from autodistill_grounded_sam.ontology import Ontology

    words = Ontology.load(spec)
    if not quiet:
        for note in words.notes:
            cli_output.tell(note)
    return words


if __name__ == "__main__":
    main()
