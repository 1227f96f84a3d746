"""A labelled dataset to Roboflow, as predictions: its images wait in review until a person accepts them.

Everything goes through calls of the installed `roboflow` package (1.7: POST /, GET /{workspace}, GET /{workspace}/{project},
POST /{workspace}/projects, POST /dataset/{project}/upload, POST /dataset/{project}/annotate/{image}), but not through its
`upload_dataset`, which keeps no record, prints its errors and takes any of them for a project that does not exist.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from autodistill_grounded_sam.datasets import yolo_class_names
from autodistill_grounded_sam.errors import DatasetError, UploadError
from autodistill_grounded_sam.upload.ledger import Ledger, read_ledger
from autodistill_grounded_sam.upload.roboflow_calls import Retrier, find_key, key_kept_out_of_logs, open_project

logger = logging.getLogger(__name__)

_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class UploadSummary:
    """Images that went up (or whose labels did), that were up before, and that failed for good; `verified` were found there
    afterwards (0 unless that was asked for). `notes` tell what is there in another way than was asked for."""

    uploaded: int
    skipped: int
    failed: int
    project: str
    ledger: Path
    verified: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Item:
    path: Path
    name: str
    split: str
    label_file: Path
    digest: str  # sha256 of the image file

    def read_labels(self) -> str:
        """The text of its label file; "" for an image that is confirmed empty or has none."""
        return self.label_file.read_text(encoding="utf-8").strip() if self.label_file.is_file() else ""


@dataclass
class _Upload:
    """One upload in progress: what every image of it needs."""

    project: Any
    ledger: Ledger
    classes: dict[int, str]
    tags: list[str]
    batch_name: str
    as_predictions: bool
    retrier: Retrier
    first_error: str = ""
    had_annotations: set[str] = field(default_factory=set)  # digests of images whose labels there were not replaced
    are_predictions: set[str] = field(default_factory=set)  # of those that went up before, as predictions


def upload_dataset(
    dataset: Path,
    project: str,
    *,
    ledger: Path,
    api_key: str | None = None,
    workspace: str | None = None,
    tags: Sequence[str] = (),
    batch_name: str = "autodistill-grounded-sam",
    as_predictions: bool = True,
    project_license: str = "Private",
    retries: int = 5,
    backoff: float = 1.0,
    workers: int = 4,
    verify: bool = False,
) -> UploadSummary:
    """Upload every image of a YOLO dataset (`data.yaml`, `train|valid|test/{images,labels}`) with its labels.

    `project` is created if the workspace has none of that id or name. The key is `api_key`, else ROBOFLOW_API_KEY, else that
    of a `roboflow login`. `ledger` is a JSONL file of what went up: run again after an interruption or a failure and only what
    is missing goes up; labels that changed are sent again, alone. Answers 429 and 5xx and broken connections are tried again
    `retries` times, after `backoff` seconds, then twice that, and so on, with jitter. `verify` asks the project for its images
    afterwards and looks for each. Raises UploadError with the counts if anything failed for good. The key appears in no log, file
    or message.
    """
    items, classes, copies = _read_dataset(dataset)
    key = find_key(api_key, workspace)
    with key_kept_out_of_logs(key):
        kind = "instance-segmentation" if any(_has_polygon(item.read_labels()) for item in items) else "object-detection"
        retrier = Retrier(key, retries, backoff)
        remote = open_project(retrier, workspace, project, (kind, project_license))
        upload = _Upload(remote, Ledger(ledger, remote.id), classes, list(tags), batch_name, as_predictions, retrier)
        with ThreadPoolExecutor(workers) as pool:
            try:
                outcomes = list(pool.map(lambda item: _send(upload, item), items))
            except BaseException:  # Ctrl-C: do not work off the rest of the queue first
                retrier.stopped.set()
                raise
        verified = _verified(upload, items) if verify and "failed" not in outcomes else 0
    counts = {name: outcomes.count(name) for name in ("uploaded", "skipped", "failed")}
    notes = tuple(_notes(upload, copies))
    summary = UploadSummary(**counts, project=remote.id, ledger=ledger, verified=verified, notes=notes)
    logger.info("%d uploaded, %d skipped, %d failed in project %s", *counts.values(), remote.id)
    if summary.failed:
        raise UploadError(
            f"{summary.failed} of {len(items)} images failed ({summary.uploaded} uploaded, {summary.skipped} were up before); "
            f"the first: {upload.first_error}. Run again to send only what is missing; {ledger} has every reason"
        )
    return summary


def dataset_counts(dataset: Path) -> tuple[int, int]:
    """How many images a YOLO dataset has to upload, each of its own bytes, and how many labels."""
    items, *_ = _read_dataset(dataset)
    return len(items), sum(len(item.read_labels().splitlines()) for item in items)


def _notes(upload: _Upload, copies: int) -> Iterator[str]:
    if copies:
        yield f"{copies} image(s) are the very bytes of another: a project holds one of each, with the labels of the first"
    if upload.had_annotations:
        count = len(upload.had_annotations)
        yield f"{count} image(s) had labels there already, of an upload that broke off or of somebody else: those stay"
    if upload.are_predictions:
        told = f"{len(upload.are_predictions)} image(s) went up before as predictions and stay such"
        yield f"{told}: accept them there, or upload to another project"


def plan_upload(dataset: Path, project: str, *, ledger: Path) -> int:
    """How many of a dataset's images the ledger knows to be up in a project with the labels that they have; no network."""
    items, *_ = _read_dataset(dataset)
    projects = {row.project for row in read_ledger(ledger) if row.project.rpartition("/")[2] == project}
    books = [Ledger(ledger, name) for name in projects]
    known = 0
    for item in items:
        rows = [book.find(item.digest) for book in books]
        known += any(row is not None and row.status == "done" and row.labels == _labels_digest(item) for row in rows)
    return known


def _verified(upload: _Upload, items: Sequence[_Item]) -> int:
    """How many of the images are in the project, by the ids that it gave them; raises UploadError unless all are.

    The project's search learns of new images with some delay, so it is asked as often as anything else.
    """
    rows = [upload.ledger.find(item.digest) for item in items]
    wanted = {row.remote_id for row in rows if row is not None}

    def missing() -> set[str]:
        pages = upload.project.search_all(fields=["id"])
        return wanted - {str(image["id"]) for page in pages for image in page}

    left: set[str] | None = wanted
    for attempt in range(upload.retrier.retries + 1):
        left, error = upload.retrier.call(missing)
        if left is None:
            raise UploadError(f"all images went up, but the project could not be asked for them: {error}. Run again to verify")
        if not left:
            return len(items)
        upload.retrier.stopped.wait(upload.retrier.pause(attempt))
    raise UploadError(
        f"{len(left or ())} of {len(wanted)} images that went up are not in the project's list yet; run again to verify. If "
        f"somebody deleted them there, take their rows out of {upload.ledger.path} to send them again"
    )


def _labels_digest(item: _Item) -> str:
    """By which the ledger knows the labels of an image."""
    return hashlib.sha256(item.read_labels().encode()).hexdigest()


def _send(upload: _Upload, item: _Item) -> str:
    """Bring one image to the state `done`: `uploaded`, `skipped` or `failed`."""
    if upload.retrier.stopped.is_set():
        return "failed"
    digest, labels_digest = item.digest, _labels_digest(item)
    labels = item.read_labels()
    known = upload.ledger.find(digest)
    is_done = known is not None and known.status == "done"
    if known is not None and is_done and known.labels == labels_digest:
        if known.error:
            upload.had_annotations.add(digest)
        elif labels and known.is_prediction and not upload.as_predictions:
            upload.are_predictions.add(digest)
        return "skipped"
    remote_id = "" if known is None else known.remote_id
    error = ""
    if not remote_id:
        sent, error = upload.retrier.call(lambda: _send_image(upload, item))
        if sent:
            remote_id = sent
            upload.ledger.add(digest, item.name, "image", remote_id=remote_id)
    if is_done and not labels:
        logger.warning(
            "%s has no label any more; the older ones stay on Roboflow, which offers no call to remove them", item.name
        )
    if labels and not error:
        _, error = upload.retrier.call(lambda: _send_labels(upload, item, labels, remote_id, replace=is_done))
    if not error:
        why = "had labels there already" if digest in upload.had_annotations else ""
        upload.ledger.add(
            digest, item.name, "done", remote_id=remote_id, labels=labels_digest, error=why, is_prediction=upload.as_predictions
        )
        return "uploaded"
    upload.ledger.add(digest, item.name, "failed", error=error)
    upload.first_error = upload.first_error or f"{item.name}: {error}"
    logger.warning("%s did not go up: %s", item.name, error)
    return "failed"


def _send_image(upload: _Upload, item: _Item) -> str:
    """The server's id of the image; the same as before for an image that it has already."""
    answer, *_ = upload.project.upload_image(
        str(item.path), split=item.split, batch_name=upload.batch_name, tag_names=upload.tags
    )
    return str(answer["id"])


def _send_labels(upload: _Upload, item: _Item, labels: str, remote_id: str, *, replace: bool) -> str:
    # The package puts both names into the address as they are: a '#' in one would cut off what says "prediction".
    answer, *_ = upload.project.save_annotation(
        {"name": quote(f"{item.path.stem}.txt", safe=""), "rawText": labels},
        annotation_labelmap=upload.classes,
        image_id=remote_id,
        job_name=quote(upload.batch_name, safe=""),
        is_prediction=upload.as_predictions,
        annotation_overwrite=replace,
    )
    if "warn" in answer:  # the package's word for the refusal of labels beside those that the image has
        upload.had_annotations.add(item.digest)
    return remote_id


def _read_dataset(dataset: Path) -> tuple[list[_Item], dict[int, str], int]:
    """The images, each of its own bytes, the classes, and how many copies are left out: a server knows an image by its bytes, so
    the labels of two would replace one another at every run."""
    classes = dict(enumerate(yolo_class_names(dataset)))
    root = dataset if dataset.is_dir() else dataset.parent
    items: dict[str, _Item] = {}
    copies = 0
    for split in _SPLITS:
        images = root / split / "images"
        for path in sorted(images.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                label_file = (root / split / "labels" / path.relative_to(images)).with_suffix(".txt")
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                copies += digest in items
                items.setdefault(digest, _Item(path, path.relative_to(root).as_posix(), split, label_file, digest))
    if not items:
        raise DatasetError(f"{root} has no images to upload: looked in {', '.join(f'{split}/images' for split in _SPLITS)}")
    return list(items.values()), classes, copies


def _has_polygon(labels: str) -> bool:
    return any(len(line.split()) > 5 for line in labels.splitlines())
