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
from autodistill_grounded_sam.evaluate.judging import judge
from autodistill_grounded_sam.evaluate.matching import join
from autodistill_grounded_sam.quality.calibration import FACTS, Calibration, cross_fitted_trust, facts_of, fit
from autodistill_grounded_sam.quality.intervals import Share, share_of
from autodistill_grounded_sam.store.files import write_json, write_whole
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.types import Float32, ImageRecord, Int32, Labels

Counts = npt.NDArray[np.int64]

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
    decision = _untrusted(run, images)
    names, target = decision.ontology.class_names, decision.store.run
    with RunLock(target):
        labelled = _Labelled.of(decision)
        judged = JudgedLabels.of(labelled, names, Path(truth), [line.id for line in decision.store.failed()])
        if len(judged) < FEWEST_IMAGES:
            raise DatasetError(
                f"{len(judged)} image(s) of {truth} are in the run {target}; quality needs at least {FEWEST_IMAGES}, "
                "and 20 or more to say anything narrow: label more of its images, drawn at random"
            )
        calibration = fit(judged.facts, judged.class_id, judged.is_right, len(names))
        every, run_images = np.arange(len(judged)), len(labelled.images)
        quality = Quality(
            judged.quality(every, range(len(judged.class_names)), run_images),
            {name: judged.quality(every, [place], run_images) for place, name in enumerate(judged.class_names)},
            None if trust is None else _trusted_part(labelled, judged, calibration, trust),
            len(judged),
            run_images,
            judged.notes,
            target / QUEUE_FILE,
        )
        content = {"classes": list(names), "calibration": calibration.document(), "quality": quality_to_json(quality)}
        write_json(target / QUALITY_FILE, content)
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
class JudgedLabels:
    """What the reference says of n images and C of its classes: `right`, `labels` and `objects` count them, (n, C).

    And of each of the k labels on which it has a say: its `facts` (k, 4), its class in the ontology, if it is right, and the
    place of its image among the n.
    """

    class_names: tuple[str, ...]
    right: Counts
    labels: Counts
    objects: Counts
    facts: npt.NDArray[np.float64]
    class_id: Int32
    is_right: npt.NDArray[np.bool_]
    image: npt.NDArray[np.intp]
    notes: tuple[str, ...]

    @staticmethod
    def of(labelled: _Labelled, class_names: Sequence[str], truth: Path, failed: Sequence[str]) -> JudgedLabels:
        joined = join(labelled.rows(), class_names, truth, failed=failed, only_labelled=True)
        judged = [judge(pair, joined.known) for pair in joined.pairs]
        number = {image.id: place for place, image in enumerate(labelled.images)}
        places = [labelled.start[number[pair.source]] + one.row for pair, one in zip(joined.pairs, judged, strict=True)]
        place = np.concatenate([np.zeros(0, np.intp), *places]).astype(np.intp)
        right, labels = np.zeros((len(judged), joined.known), np.int64), np.zeros((len(judged), joined.known), np.int64)
        for row, one in enumerate(judged):
            np.add.at(labels[row], one.class_id, 1)
            np.add.at(right[row], one.class_id[one.right], 1)
        return JudgedLabels(
            joined.class_names[: joined.known],
            right,
            labels,
            np.array([one.objects for one in judged], np.int64).reshape(right.shape),
            labelled.facts[place],
            labelled.class_id[place],
            np.concatenate([np.zeros(0, np.bool_), *(one.right for one in judged)]),
            np.repeat(np.arange(len(judged)), [len(one.row) for one in judged]),
            joined.notes,
        )

    def __len__(self) -> int:
        return len(self.right)

    def quality(self, images: npt.NDArray[np.intp], classes: Sequence[int], run_images: int) -> ClassQuality:
        """The two shares over some of the images and classes, drawn from a run of so many images."""
        right, labels, objects = (counts[images][:, classes].sum(axis=1) for counts in (self.right, self.labels, self.objects))
        return ClassQuality(
            share_of(right, labels, run_images=run_images), share_of(objects - right, objects, run_images=run_images)
        )


def judged_labels(run: Path | str, truth: Path | str) -> JudgedLabels:
    """The labels of a run, as they were decided last, against a reference; for measurements of the measuring."""
    decision = _untrusted(run, None)
    return JudgedLabels.of(_Labelled.of(decision), decision.ontology.class_names, Path(truth), [])


def _untrusted(run: Path | str, images: Path | str | None) -> Decision:
    """The last decision without trust: all labels are measured."""
    last = LastDecision.of(Store(Path(run))).decide
    return Decision.of(run, last.model_copy(update={"trust": 0.0}), None, images)


def _trusted_part(labelled: _Labelled, judged: JudgedLabels, calibration: Calibration, trust: float) -> TrustedPart:
    """What stays in the dataset at this trust. The labelled images are judged by calibrations that never saw them."""
    every = calibration.trust(labelled.facts, labelled.class_id)
    waits = np.bincount(labelled.image_of, weights=every < trust, minlength=len(labelled.images)) > 0
    unseen = cross_fitted_trust(judged.facts, judged.class_id, judged.is_right, judged.image, len(calibration.offsets))
    stays = np.bincount(judged.image, weights=unseen < trust, minlength=len(judged)) == 0
    run_images = int((~waits).sum())
    precision = share_of(judged.right[stays].sum(axis=1), judged.labels[stays].sum(axis=1), run_images=run_images)
    return TrustedPart(trust, run_images, int((~waits[labelled.image_of]).sum()), int(waits.sum()), precision)


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
