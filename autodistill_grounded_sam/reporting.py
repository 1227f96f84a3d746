"""The page of a run: one pass over its labels, what is known beside them, and `report.html` in the dataset folder."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.decide.reviewed import closed_classes, without_a_word
from autodistill_grounded_sam.decisions import QUALITY_FILE, REPORT_FILE, Decision, Tally, read_calibration
from autodistill_grounded_sam.errors import ConfigError, DatasetError, WrongPlaceError, WrongRunError
from autodistill_grounded_sam.report.asking import SHOWN
from autodistill_grounded_sam.report.copies import find_copies
from autodistill_grounded_sam.report.facts import Asked, Judged, Measured, RunFacts, Student
from autodistill_grounded_sam.report.gathering import Gatherer
from autodistill_grounded_sam.report.page import MARK, render, shown_of_each_class
from autodistill_grounded_sam.report.samples import Example, example_of, whole_example
from autodistill_grounded_sam.review.queue import Doubts, Front
from autodistill_grounded_sam.reviews import Review
from autodistill_grounded_sam.store.files import write_whole
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.store import find_run, read_json
from autodistill_grounded_sam.trusting import QUEUE_FILE
from autodistill_grounded_sam.types import Candidates, ImageRecord, Labels

logger = logging.getLogger(__name__)

_CURVES = {
    "metrics/mAP50-95(M)": "mask mAP", "metrics/mAP50(M)": "mask mAP50",
    "metrics/mAP50-95(B)": "box mAP", "metrics/mAP50(B)": "box mAP50",
    "mask_AP": "mask mAP", "mask_AP50": "mask mAP50", "box_AP": "box mAP", "box_AP50": "box mAP50",
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    path: Path
    bytes: int
    images: int
    labels: int


def write_report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    images: Path | str | None = None,
    students: Sequence[Path] = (),
    evaluations: Sequence[tuple[str, Path]] = (),
) -> Report:
    """Write the page of `run`, as it was decided last, to `out` (`report.html` in its dataset folder).

    `images` says where the images are now, if they moved; without them the page has no pictures. `students` are folders that
    `distill` wrote, `evaluations` are (name, file) of what `evaluate --json` printed, the teacher first. Raises WrongPlaceError
    where another file lies in the place, WrongRunError and StoreError as `redecide`, DatasetError for an evaluation that is none.
    """
    target = find_run(Path(run))
    path = target.parent / REPORT_FILE if out is None else Path(out)
    _require_ours(path)
    with RunLock(target):
        decided = Decision.of(target, None, None, images)
        decision, quality, is_old = _with_trust(decided)
        sides, _, _ = decision.plan(decision.last.export)
        thresholds = decision.ontology.thresholds(max(decision.config.box_threshold, decision.config.text_threshold))
        gatherer = Gatherer(decision.ontology, thresholds, shown_of_each_class(len(decision.ontology.classes)))
        tally, asking = Tally(), _Asking(decision)
        for number, (image, candidates, labels) in enumerate(decision.decided(tally)):
            gatherer.add(image, candidates, labels, sides[image.id])
            asking.add(number, image, candidates, labels)
            if image.digest in decision.reviews:
                tally.reviewed.add(image.digest)
        gathered = gatherer.result()
        measured = Measured(
            find_copies(lambda: ((image, dhash, sides[image.id]) for image, dhash in decision.store.seen(decision.images_root))),
            quality,
            is_old,
            [_student(Path(folder)) for folder in students],
            [_judged(name, Path(file)) for name, file in evaluations],
            asking.result(),
        )
        page = render(_run_facts(decided, tally), gathered, measured).encode()
    write_whole(path, page)
    return Report(path, len(page), gathered.images, int(gathered.labels.sum()))


def _with_trust(decision: Decision) -> tuple[Decision, Mapping[str, Any] | None, bool]:
    """The decision with the calibration of `quality` where it is of this one; what `quality` found; if that is outdated."""
    run = decision.store.run
    if not (run / QUALITY_FILE).is_file():
        return decision, None, False
    quality = read_json(run / QUALITY_FILE).get("quality")
    try:
        calibration = decision.calibration or read_calibration(run, decision.config, decision.ontology)
    except WrongRunError as error:
        logger.info("labels are shown without trust: %s", error)
        return decision, quality, True
    return replace(decision, calibration=calibration), quality, False


def _run_facts(decision: Decision, tally: Tally) -> RunFacts:
    store, out = decision.store, decision.store.run.parent
    sessions = store.info.get("sessions", [])
    again = [sessions[-1]["command"]] if sessions and " " in sessions[-1]["command"] else []
    return RunFacts(
        out.resolve().name,
        decision.ontology,
        decision.config,
        {**store.info, "images": str(decision.images_root)},
        [(line.id, line.reason, line.detail) for line in store.failed()],
        decision.notes(tally, None, decision.last.written),
        store.not_looked_at(),
        tuple(decision.last.written),
        [*again, shlex.join(["grounded-sam", "report", str(out)])],
        decision.key(decision.last.export),
    )


class _Asking:
    """The labels that a person should look at first, as `review` orders them, without those that one decided already."""

    def __init__(self, decision: Decision) -> None:
        self._decision, self._front = decision, Front[Example](SHOWN)
        self._doubts = Doubts.of(decision.ontology, decision.config, decision.store.run / QUEUE_FILE)
        self._met: set[str] = set()  # digests: two copies of one file are decided together

    def add(self, number: int, image: ImageRecord, candidates: Candidates, labels: Labels) -> None:
        if image.digest in self._met:
            return
        self._met.add(image.digest)
        rows = self._undecided(labels, self._decision.reviews.get(image.digest, ()))
        doubts = self._doubts(image.digest, candidates, labels)[rows]

        def example(row: int) -> Example:
            if not len(labels):
                return whole_example(image, candidates, labels, self._decision.ontology)
            shown = example_of(image, candidates, labels, int(labels.candidate[row]))
            class_id, score, margin = int(labels.class_id[row]), float(labels.score[row]), float(labels.margin[row])
            return replace(shown, class_id=class_id, score=score, margin=margin)

        self._front.offer(number, rows, doubts, example)

    def result(self) -> Asked:
        store, out = self._decision.store, self._decision.store.run.parent
        key = hashlib.sha256(json.dumps([store.info["identity"], str(out.resolve())]).encode()).hexdigest()[:16]
        decided = sum(map(len, self._decision.reviews.values()))
        formats = [word for name in self._decision.last.written for word in ("--format", name)]
        merge = shlex.join(["grounded-sam", "review", str(out), "--merge", "reviews.jsonl"])
        return Asked(self._front.entries, key, decided, merge, shlex.join(["grounded-sam", "decide", str(out), *formats]))

    def _undecided(self, labels: Labels, reviews: Sequence[Review]) -> list[int]:
        """The rows of the labels that nobody decided; 0 of an image without labels."""
        if not reviews:
            return list(range(max(1, len(labels))))
        ontology = self._decision.ontology
        if not len(labels):
            return [] if closed_classes(reviews, ontology).all() or any(review.stands for review in reviews) else [0]
        left = without_a_word(labels.class_id, labels.xyxy, reviews, ontology)
        return [row for row, needs in enumerate(left.tolist()) if needs]


def _student(folder: Path) -> Student:
    """The curve of a folder that `distill` wrote, of ultralytics or of transformers; raises ConfigError where there is none."""
    file, card = folder / "ultralytics" / "results.csv", folder / "training.json"
    rows: list[Mapping[str, Any]]
    try:
        if card.is_file():
            rows = [{"epoch": epoch, **figures} for epoch, figures in json.loads(card.read_text("utf-8"))["history"]]
        else:
            rows = list(csv.DictReader(file.read_text("utf-8").splitlines(), skipinitialspace=True))
        curves = {name: [float(row[key]) for row in rows] for key, name in _CURVES.items() if rows and key in rows[0]}
        epochs = [int(row["epoch"]) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder} holds no student of `distill`: {file} cannot be read ({error})") from error
    return Student(folder.resolve().name, epochs, curves)


def _judged(name: str, file: Path) -> Judged:
    try:
        figures = json.loads(file.read_text("utf-8"))
        if not isinstance(figures["per_class"], dict) or "AP50" not in figures["box"]:
            raise TypeError("no AP50 of boxes")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{file} is no evaluation ({error!r}): write it with `grounded-sam evaluate ... --json`") from error
    return Judged(name, figures)


def _require_ours(path: Path) -> None:
    """A page that somebody else wrote stays."""
    if path.is_dir() or (path.exists() and MARK.encode() not in path.read_bytes()[:4096]):
        raise WrongPlaceError(f"{path} was not written by this tool: move it away, or give another --out; it is not overwritten")
