"""A run's labels to where a team works on them: Roboflow or the Hugging Face Hub, as `grounded-sam upload` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autodistill_grounded_sam.errors import ConfigError, DatasetError, WrongRunError
from autodistill_grounded_sam.export.shards import HuggingFaceWriter
from autodistill_grounded_sam.pipeline import decided_labels, export_run
from autodistill_grounded_sam.store.store import find_run
from autodistill_grounded_sam.upload.hub_upload import files_of, upload_folder
from autodistill_grounded_sam.upload.roboflow_upload import dataset_counts, plan_upload, upload_dataset

PLACES = ("roboflow", "hf")


@dataclass(frozen=True)
class UploadReport:
    """What went up, or would go (`dry_run`): `items` are images for Roboflow, files for the hub. `sent` went in this call,
    `skipped` were there before, `verified` were found there afterwards. `dataset` is the folder that they come from."""

    to: str
    project: str
    dataset: Path
    items: int
    labels: int | None
    sent: int
    skipped: int
    verified: int
    dry_run: bool
    notes: Sequence[str] = ()


def upload_run(
    run: Path | str,
    to: str,
    project: str,
    *,
    as_annotations: bool = False,
    tags: Sequence[str] = (),
    batch_name: str = "autodistill-grounded-sam",
    workspace: str | None = None,
    public: bool = False,
    dry_run: bool = False,
) -> UploadReport:
    """Upload the labels of a run as they were decided last, or, to Roboflow, any YOLO dataset.

    To "roboflow" go images and labels as predictions, which wait there for review, or with `as_annotations` as annotations, with
    tags, batch name and split; a ledger in the run remembers what went up. To "hf" goes the `hf` format as a private dataset
    repository, unless `public`. A dry run makes the dataset and counts what would be sent, without the network.
    """
    run = Path(run)
    if to == "roboflow":
        dataset, home = _yolo_dataset(run)
        ledger = home / "roboflow.jsonl"
        images, labels = dataset_counts(dataset)
        if dry_run:
            known = plan_upload(dataset, project, ledger=ledger)
            return UploadReport(to, project, dataset, images, labels, images - known, known, 0, True, _known_note(known, ledger))
        summary = upload_dataset(
            dataset, project, ledger=ledger, workspace=workspace, tags=tags, batch_name=batch_name,
            as_predictions=not as_annotations, project_license="Public Domain" if public else "Private", verify=True,
        )  # fmt: skip
        return UploadReport(
            to,
            summary.project,
            dataset,
            images,
            labels,
            summary.uploaded,
            summary.skipped,
            summary.verified,
            False,
            summary.notes,
        )
    if to != "hf":
        raise ConfigError(f"--to must be one of {', '.join(PLACES)}, got {to!r}")
    if project.count("/") != 1:
        raise ConfigError(f"a dataset of the Hugging Face Hub is named owner/name, got {project!r}")
    dataset = find_run(run) / "hf"
    exported = export_run(run, "hf", dataset)
    count = len(files_of(dataset, HuggingFaceWriter.entries))
    if dry_run:
        return UploadReport(to, project, dataset, count, exported.labels, count, 0, 0, True, exported.notes)
    message = f"{exported.labels} labels by autodistill-grounded-sam"
    pushed = upload_folder(dataset, project, HuggingFaceWriter.entries, private=not public, message=message)
    return UploadReport(to, pushed.url, dataset, count, exported.labels, pushed.sent, pushed.same, count, False, exported.notes)


def _yolo_dataset(run: Path) -> tuple[Path, Path]:
    """The YOLO dataset to upload, and the folder for its ledger: the one that is there, with what a person corrected in it, or
    one made of the run's labels."""
    is_there = (run / "data.yaml").is_file()
    try:
        home = find_run(run)
    except WrongRunError as error:
        if not is_there:
            raise DatasetError(f"{run} is neither a run nor a YOLO dataset with a data.yaml") from error
        return run, run
    if is_there:
        return run, home
    made = home / "roboflow"
    _, labelled = decided_labels(run)
    has_masks = all(labels.rle is not None for _, labels in labelled if len(labels))
    export_run(run, "yolo-seg" if has_masks else "yolo", made)
    return made, home


def _known_note(known: int, ledger: Path) -> list[str]:
    return [f"{known} image(s) went up before, as {ledger} says"] if known else []
