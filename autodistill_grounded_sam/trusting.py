"""`quality`: how good the labels of a run are, by some labelled images; what it learns is stored with the run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.decisions import Decision, Tally, write_calibration
from autodistill_grounded_sam.errors import ConfigError, DatasetError
from autodistill_grounded_sam.evaluate.judging import judge
from autodistill_grounded_sam.evaluate.matching import class_key, join
from autodistill_grounded_sam.learnt import fit_to_judge
from autodistill_grounded_sam.quality.calibration import Flags, cross_fit, fit
from autodistill_grounded_sam.quality.facts import FACTS, facts_of
from autodistill_grounded_sam.quality.intervals import Share, precision_of, share_of
from autodistill_grounded_sam.store.files import write_whole
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.types import DatasetImage, Float32, ImageRecord, Int32, Labels

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

    Writes the calibration and the figures to `run/quality.json`, and the labels of the other images most likely wrong, first ones
    first, to `run/review_queue.jsonl`. With `trust` (0 to 1), also says what waits for review at that trust. The labelled images
    must have been drawn at random: what they show is said of all. Raises DatasetError where they are too few.
    """
    if trust is not None and not 0 <= trust <= 1:
        raise ConfigError(f"trust is a probability, from 0 to 1; got {trust}")
    decision = Decision.untrusted(run, None, images)
    names, target = decision.ontology.class_names, decision.store.run
    with RunLock(target):
        labelled = _Labelled.of(decision)
        failed, learnt = [line.id for line in decision.store.failed()], decision.store.learnt_from
        judged = JudgedLabels.of(labelled, names, Path(truth), failed, learnt)
        if len(judged) < FEWEST_IMAGES:
            raise DatasetError(
                f"{len(judged)} image(s) of {truth} are in the run {target}; quality needs at least {FEWEST_IMAGES}, "
                "and 20 or more to say anything narrow: label more of its images, drawn at random"
            )
        mine = set(judged.names)
        other = np.array([image.id not in mine for image in labelled.images], np.bool_)[labelled.image_of]
        estimator = Estimator(judged, labelled.facts[other], labelled.class_id[other], len(labelled.images))
        quality = Quality(
            estimator.quality(),
            {name: estimator.quality(place) for place, name in enumerate(judged.class_names)},
            None if trust is None else _trusted_part(labelled, judged, estimator, other, trust),
            len(judged),
            len(labelled.images),
            judged.notes,
            target / QUEUE_FILE,
        )
        calibration = estimator.calibration
        write_calibration(decision, calibration, quality_to_json(quality))
        known = np.array([image.digest in learnt for image in labelled.images], np.bool_)[labelled.image_of]
        trusted = calibration.trust(labelled.facts, labelled.class_id)
        _write_queue(quality.queue, labelled, trusted, other & ~known, names)
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
    """All M labels of a run in a row: the facts (M, 8) and class (M,) of each, the number of its image, and its box."""

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
            facts.append(facts_of(candidates, labels, image.width, image.height))
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

    And of each of the k labels on which it has a say: its `facts` (k, 8), its class in the ontology, if it is right, and the
    place of its image among the n. `reference_id` is the class in the reference by class of the ontology, -1 for none.
    """

    class_names: tuple[str, ...]
    right: Counts
    labels: Counts
    objects: Counts
    facts: npt.NDArray[np.float64]
    class_id: Int32
    is_right: npt.NDArray[np.bool_]
    image: npt.NDArray[np.intp]
    reference_id: Int32
    names: tuple[str, ...]  # of the images, as the run has them
    notes: tuple[str, ...]

    @staticmethod
    def of(
        labelled: _Labelled,
        class_names: Sequence[str],
        truth: Path,
        failed: Sequence[str] = (),
        learnt: Collection[str] = (),
    ) -> JudgedLabels:
        joined = join(labelled.rows(), class_names, truth, failed=failed, only_labelled=True)
        number = {image.id: place for place, image in enumerate(labelled.images)}
        digests = [labelled.images[number[pair.source]].digest for pair in joined.pairs]
        judges, told = fit_to_judge(digests, learnt, FEWEST_IMAGES)
        pairs = list(compress(joined.pairs, judges))
        judged = [judge(pair, joined.known) for pair in pairs]
        places = [labelled.start[number[pair.source]] + one.row for pair, one in zip(pairs, judged, strict=True)]
        place = np.concatenate([np.zeros(0, np.intp), *places]).astype(np.intp)
        right, labels = np.zeros((len(judged), joined.known), np.int64), np.zeros((len(judged), joined.known), np.int64)
        for row, one in enumerate(judged):
            np.add.at(labels[row], one.class_id, 1)
            np.add.at(right[row], one.class_id[one.right], 1)
        known = {class_key(name): place for place, name in enumerate(joined.class_names[: joined.known])}
        return JudgedLabels(
            joined.class_names[: joined.known],
            right,
            labels,
            np.array([one.objects for one in judged], np.int64).reshape(right.shape),
            labelled.facts[place],
            labelled.class_id[place],
            np.concatenate([np.zeros(0, np.bool_), *(one.right for one in judged)]),
            np.repeat(np.arange(len(judged)), [len(one.row) for one in judged]),
            np.array([known.get(class_key(name), -1) for name in class_names], np.int32),
            tuple(pair.source for pair in pairs),
            (*joined.notes, *told),
        )

    def __len__(self) -> int:
        return len(self.right)


class Estimator:
    """What some judged images say of a run that holds `others` too: labels given as facts (m, 8) and class (m,)."""

    def __init__(self, judged: JudgedLabels, others: npt.NDArray[np.float64], others_class: Int32, run_images: int) -> None:
        classes = len(judged.reference_id)
        self._judged, self._run_images = judged, run_images
        self.calibration = fit(judged.facts, judged.class_id, judged.is_right, classes)
        self.trust, folds = cross_fit(judged.facts, judged.class_id, judged.is_right, judged.image, classes)
        # By the same calibrations as the judged labels, so that what these are wrong by corrects the others too.
        told = [calibration.trust(others, others_class) for calibration in folds or [self.calibration]]
        self.others_trust = np.mean(told, axis=0)
        self._class, self._others_class = judged.reference_id[judged.class_id], judged.reference_id[others_class]

    def quality(self, place: int | None = None) -> ClassQuality:
        """The two shares of a class of the reference, or of all."""
        chosen = slice(None) if place is None else [place]
        objects, right = (counts[:, chosen].sum(axis=1) for counts in (self._judged.objects, self._judged.right))
        return ClassQuality(self.precision(place), share_of(objects - right, objects, run_images=self._run_images))

    def precision(self, place: int | None = None, mine: Flags | None = None, others: Flags | None = None) -> Share:
        """The precision of the labels of a class (or all), or only of those that are flagged among judged and other ones."""
        of_mine, of_others = (ids >= 0 if place is None else ids == place for ids in (self._class, self._others_class))
        of_mine = of_mine if mine is None else of_mine & mine
        of_others = of_others if others is None else of_others & others
        trust = self.trust[of_mine].astype(np.float64)

        def by_image(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            summed = np.bincount(self._judged.image[of_mine], weights=values, minlength=len(self._judged))
            return summed.astype(np.float64)  # without any label they are whole numbers

        return precision_of(
            by_image(self._judged.is_right[of_mine]),
            by_image(np.ones(len(trust))),
            by_image(trust),
            by_image(trust * (1 - trust)),
            float(of_others.sum()),
            float(self.others_trust[of_others].sum()),
        )


def judged_labels(run: Path | str, truth: Path | str) -> JudgedLabels:
    """The labels of a run, as they were decided last, against a reference; for measurements of the measuring."""
    decision = Decision.untrusted(run, None, None)
    return JudgedLabels.of(_Labelled.of(decision), decision.ontology.class_names, Path(truth))


def _trusted_part(labelled: _Labelled, judged: JudgedLabels, estimator: Estimator, other: Flags, trust: float) -> TrustedPart:
    """What stays in the dataset at this trust; `other` (M,) are the labels of images that were not judged. The judged ones are
    held to calibrations that never saw them."""
    doubtful = estimator.calibration.trust(labelled.facts, labelled.class_id) < trust
    waits = np.bincount(labelled.image_of, weights=doubtful, minlength=len(labelled.images)) > 0
    doubted = np.bincount(judged.image, weights=estimator.trust < trust, minlength=len(judged)) > 0
    stays = ~waits[labelled.image_of]
    precision = estimator.precision(mine=~doubted[judged.image], others=stays[other])
    return TrustedPart(trust, int((~waits).sum()), int(stays.sum()), int(waits.sum()), precision)


def _write_queue(path: Path, labelled: _Labelled, trust: Float32, other: Flags, names: Sequence[str]) -> None:
    """The labels most likely wrong of images that nobody labelled (`other`, (M,)), an object a line, worst first."""
    image_of = labelled.image_of
    lines = []
    order = np.argsort(trust, kind="stable")
    for place in order[other[order]][:QUEUE_LABELS].tolist():
        image = labelled.images[image_of[place]]
        row = {
            "image": image.id, "digest": image.digest, "xyxy": [round(float(value), 2) for value in labelled.xyxy[place]],
            "class": names[labelled.class_id[place]], "score": round(float(labelled.score[place]), 4),
            "trust": round(float(trust[place]), 4),
        }  # fmt: skip
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines).encode())
