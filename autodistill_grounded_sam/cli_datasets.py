"""The commands that bring data in and carry it out, `frames`, `import` and `upload`: flags to one call. `cli` registers them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from autodistill_grounded_sam import cli_output
from autodistill_grounded_sam.errors import ConfigError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def frames(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders with videos below them.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write: a folder of images a video, as `label` takes it.")],
    every: Annotated[int, typer.Option("--every", help="Of so many frames one is taken.")] = 10,
    keep_alike: Annotated[bool, typer.Option("--keep-alike", help="Take those too that look like one taken before.")] = False,
    json: JsonFlag = False,
) -> None:
    """Take images from videos, to be labelled. Run again after an interruption, it goes on with the next video."""
    from autodistill_grounded_sam.frames import VideoFrames, take_frames

    def tell(result: VideoFrames) -> None:
        counts = f"{result.frames} frames, {result.sampled} looked at, {result.alike} alike, {result.taken} taken"
        cli_output.tell(f"{result.video}: {result.fault or counts}")

    results = take_frames(videos, out, every=every, keep_alike=keep_alike, on_video=None if json else tell)
    taken, faults = sum(result.taken for result in results), sum(bool(result.fault) for result in results)
    if json:
        rows = [{**asdict(result), "folder": str(result.folder)} for result in results]
        cli_output.as_json({"out": str(out), "taken": taken, "failed": faults, "videos": rows})
    else:
        aside = f"; {faults} of {len(results)} videos could not be read" if faults else ""
        cli_output.tell(f"{taken} images are in {out}{aside}")
    raise typer.Exit(3 if faults else 0)


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


def upload(
    run: Annotated[Path, typer.Argument(help="A folder that `label` or `import` made; for Roboflow also a YOLO dataset.")],
    to: Annotated[str, typer.Option("--to", help="roboflow, or hf (the Hugging Face Hub).")],
    project: Annotated[str, typer.Option("--project", help="Of Roboflow, made if it is not there; or owner/name of the hub.")],
    as_annotations: Annotated[
        bool, typer.Option("--as-annotations", help="Not as predictions that wait for review (Roboflow).")
    ] = False,
    tag: Annotated[Optional[list[str]], typer.Option("--tag", help="Of every image (Roboflow); may be given again.")] = None,  # noqa: UP045
    batch: Annotated[str, typer.Option("--batch", help="The batch's name (Roboflow).")] = "autodistill-grounded-sam",
    workspace: Annotated[Optional[str], typer.Option("--workspace", help="Of Roboflow, if not the key's own.")] = None,  # noqa: UP045
    public: Annotated[bool, typer.Option("--public", help="Whoever wants may see it; else it is private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go up, without the network.")] = False,
    json: JsonFlag = False,
) -> None:
    """Upload labels to Roboflow or the Hugging Face Hub. Run again after an interruption, it sends what is missing.

    Keys are those of ROBOFLOW_API_KEY or `roboflow login`, of HF_TOKEN or `hf auth login`.
    """
    from autodistill_grounded_sam.uploading import upload_run

    report = upload_run(
        run, to, project, as_annotations=as_annotations, tags=tag or (), batch_name=batch, workspace=workspace, public=public,
        dry_run=dry_run,
    )  # fmt: skip
    if json:
        cli_output.as_json({**asdict(report), "dataset": str(report.dataset)})
        return
    what = "images" if to == "roboflow" else "files"
    would = "would go" if dry_run else "went"
    cli_output.tell(f"{report.sent} of {report.items} {what} ({report.labels} labels) {would} to {report.project}")
    if report.skipped:
        cli_output.tell(f"{report.skipped} were there before")
    if not dry_run:
        cli_output.tell(f"{report.verified} were read back from there")
    for note in report.notes:
        cli_output.tell(f"note: {note}")


def bring(images: str, out: Path | None, *, offline: bool, quiet: bool) -> tuple[str, Path | None]:
    """The folder to label and the one to write: a project of Roboflow is brought to `OUT_images` first."""
    from autodistill_grounded_sam.upload import roboflow_download

    if not roboflow_download.is_project(images):
        return images, out
    if offline:
        raise ConfigError(f"--offline forbids the network, by which the images of {images} come")
    out = out or Path(f"{images.rpartition('/')[2].removeprefix(roboflow_download.PREFIX)}_labeled")
    folder = out.with_name(f"{out.name}_images")
    count = roboflow_download.download_project(images, folder)
    if not quiet:
        cli_output.tell(f"{count} images of {images} are in {folder}")
    return str(folder), out
