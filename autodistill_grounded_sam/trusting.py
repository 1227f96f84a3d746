"""`quality`: how good the labels of a run are, by some labelled images; what it learns is stored with the run."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import DatasetImage
from autodistill_grounded_sam.decisions import QUALITY_FILE, Decision, LastDecision, Tally
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.evaluate.judging import Judged, judge
from autodistill_grounded_sam.evaluate.matching import Joined, join
from autodistill_grounded_sam.quality.calibration import FACTS, Calibration, cross_fitted_trust, facts_of, fit
from autodistill_grounded_sam.quality.intervals import Share, share_of
from autodistill_grounded_sam.store.files import write_json, write_whole
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.types import Float32, ImageRecord, Int32, Labels

QUEUE_FILE = "review_queue.jsonl"
QUEUE_LABELS = 10_000  # the most doubtful ones; nobody looks at more
FEWEST_IMAGES = 5  # below it no interval deserves its name


@dataclass(frozen=True)
class ClassQuality:
    """Of one class, or of all: the share of its labels that are right, and of its objects that no label found."""

    precision: Share
    missed: Share


@dataclass(frozen=True)
class TrustedPart:
    """What is left when images with a label below `trust` wait for review: `images` and `labels` of the run, and their precision
    by the labelled images among them."""

    trust: float
    images: int
    labels: int
    waiting: int
    precision: Share


@dataclass(frozen=True)
class Quality:
    """The answer of `assess`: figures of the run as it was decided last, from `labelled_images` of its `run_images`."""

    overall: ClassQuality
    per_class: Mapping[str, ClassQuality]
    trusted: TrustedPart | None
    labelled_images: int
    run_images: int
    notes: Sequence[str]
    queue: Path


def assess(run: Path | str, truth: Path | str, *, trust: float | None = None, images: Path | str | None = None) -> Quality:
    """Measure the labels of `run`, as they were decided last, on its images that `truth` (COCO json, or YOLO) holds.

    Writes the calibration and the figures to `run/quality.json`, and the labels most likely wrong, first ones first, to
    `run/review_queue.jsonl`. With `trust`, also says what waits for review at that trust. The labelled images must have been
    drawn at random: what they show is said of all. Raises DatasetError where they are too few.
    """
    last = LastDecision.of(Store(Path(run))).decide
    decision = Decision.of(run, last.model_copy(update={"trust": 0.0}), None, images)  # all labels are measured
    with RunLock(decision.store.run):
        labelled = _Labelled.of(decision)
        failed = [line.id for line in decision.store.failed()]
        names = decision.ontology.class_names
        joined = join(labelled.rows(), names, Path(truth), failed=failed, only_labelled=True)
        judged = [judge(pair, joined.known) for pair in joined.pairs]
        if len(judged) < FEWEST_IMAGES:
            raise DatasetError(
                f"{len(judged)} image(s) of {truth} are in the run {decision.store.run}; quality needs at least {FEWEST_IMAGES}, "
                "and 20 or more to say anything narrow: label more of its images, drawn at random"
            )
        spoken = _Spoken.of(labelled, joined, judged)
        calibration = fit(spoken.facts, spoken.class_id, spoken.right, len(names))
        quality = _measured(decision, labelled, joined, judged, spoken, calibration, trust)
        content = {"classes": list(names), "calibration": calibration.document(), "quality": quality_to_json(quality)}
        write_json(decision.store.run / QUALITY_FILE, content)
        _write_queue(quality.queue, labelled, calibration.trust(labelled.facts, labelled.class_id), names)
    return quality


def quality_to_json(quality: Quality) -> dict[str, Any]:
    """The figures as plain data for `json.dumps`, with None for a figure that cannot be."""
    facts = {**asdict(quality), "queue": str(quality.queue), "notes": list(quality.notes)}
    plain: dict[str, Any] = _without_nan(facts)
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


@dataclass
class _Labelled:
    """All M labels of a run in a row: the facts (M, 4) and class (M,) of each, the number of its image, and its box."""

    images: list[ImageRecord]
    start: npt.NDArray[np.intp]  # (images + 1,)
    facts: npt.NDArray[np.float64]
    class_id: Int32
    xyxy: Float32
    score: Float32

    @staticmethod
    def of(decision: Decision) -> _Labelled:
        images, kept, facts = [], [Labels.nothing()], [np.zeros((0, len(FACTS)))]
        for image, candidates, labels in decision.decided(Tally()):
            images.append(image)
            facts.append(facts_of(candidates, labels))
            kept.append(labels)
        start = np.cumsum([len(labels) for labels in kept])
        columns = [np.concatenate([getattr(labels, name) for labels in kept]) for name in ("class_id", "xyxy", "score")]
        return _Labelled(images, start, np.concatenate(facts), *columns)

    @property
    def image_of(self) -> npt.NDArray[np.intp]:
        """The number of the image of every label, (M,)."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.start))

    def rows(self) -> Iterator[DatasetImage]:
        for place, image in enumerate(self.images):
            mine = slice(self.start[place], self.start[place + 1])
            yield DatasetImage(
                None, image.id, "train", image.width, image.height, self.class_id[mine], self.xyxy[mine], None, self.score[mine]
            )


@dataclass(frozen=True)
class _Spoken:
    """The k labels on which the reference has a say: the place of each among all of the run's, its class, and if it is right.

    `image` (k,) numbers the images of the reference.
    """

    place: npt.NDArray[np.intp]
    facts: npt.NDArray[np.float64]
    class_id: Int32
    right: npt.NDArray[np.bool_]
    image: npt.NDArray[np.intp]

    @staticmethod
    def of(labelled: _Labelled, joined: Joined, judged: Sequence[Judged]) -> _Spoken:
        number = {image.id: place for place, image in enumerate(labelled.images)}
        starts = [labelled.start[number[pair.source]] for pair in joined.pairs]
        place = np.concatenate([start + one.row for start, one in zip(starts, judged, strict=True)]).astype(np.intp)
        image = np.repeat(np.arange(len(judged)), [len(one.row) for one in judged])
        right = np.concatenate([one.right for one in judged])
        return _Spoken(place, labelled.facts[place], labelled.class_id[place], right, image)


def _measured(
    decision: Decision,
    labelled: _Labelled,
    joined: Joined,
    judged: Sequence[Judged],
    spoken: _Spoken,
    calibration: Calibration,
    trust: float | None,
) -> Quality:
    run_images = len(labelled.images)
    right, labels, objects = (_by_image_and_class(judged, joined.known, what) for what in ("right", "labels", "objects"))

    def of(classes: slice) -> ClassQuality:
        found, said, there = (counts[:, classes].sum(axis=1) for counts in (right, labels, objects))
        return ClassQuality(share_of(found, said, run_images=run_images), share_of(there - found, there, run_images=run_images))

    per_class = {joined.class_names[k]: of(slice(k, k + 1)) for k in range(joined.known)}
    trusted = None
    if trust is not None:
        trusted = _trusted_part(labelled, spoken, len(judged), calibration, trust)
    return Quality(of(slice(None)), per_class, trusted, len(judged), run_images, joined.notes, decision.store.run / QUEUE_FILE)


def _by_image_and_class(judged: Sequence[Judged], classes: int, what: str) -> npt.NDArray[np.int64]:
    """Counts (images, classes) of right labels, of all labels, or of objects."""
    counts = np.zeros((len(judged), classes), np.int64)
    for place, one in enumerate(judged):
        if what == "objects":
            counts[place] = one.objects
        else:
            of = one.class_id[one.right] if what == "right" else one.class_id
            counts[place] = np.bincount(of, minlength=classes)
    return counts


def _trusted_part(labelled: _Labelled, spoken: _Spoken, images: int, calibration: Calibration, trust: float) -> TrustedPart:
    """What stays in the dataset at this trust. The labelled images are judged by calibrations that never saw them."""
    every = calibration.trust(labelled.facts, labelled.class_id)
    waits = np.bincount(labelled.image_of, weights=every < trust, minlength=len(labelled.images)) > 0
    classes = len(calibration.offsets)
    unseen = cross_fitted_trust(spoken.facts, spoken.class_id, spoken.right, spoken.image, classes)
    aside = np.bincount(spoken.image, weights=unseen < trust, minlength=images) > 0
    stays = ~aside[spoken.image]
    right = np.bincount(spoken.image[stays], weights=spoken.right[stays], minlength=images)
    said = np.bincount(spoken.image[stays], minlength=images)
    precision = share_of(right[~aside], said[~aside], run_images=int((~waits).sum()))
    return TrustedPart(trust, int((~waits).sum()), int((~waits[labelled.image_of]).sum()), int(waits.sum()), precision)


def _write_queue(path: Path, labelled: _Labelled, trust: Float32, names: Sequence[str]) -> None:
    """The labels most likely wrong, a JSON object a line, the most doubtful first."""
    image_of = labelled.image_of
    lines = []
    for place in heapq.nsmallest(QUEUE_LABELS, range(len(trust)), key=lambda place: (float(trust[place]), place)):
        image = labelled.images[image_of[place]]
        row = {
            "image": image.id, "digest": image.digest, "xyxy": [round(float(value), 2) for value in labelled.xyxy[place]],
            "class": names[labelled.class_id[place]], "score": round(float(labelled.score[place]), 4),
            "trust": round(float(trust[place]), 4),
        }  # fmt: skip
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines).encode())
