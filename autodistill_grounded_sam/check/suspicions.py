"""The list of suspicions: what a model that never saw the labels of an image makes of them, and of what they leave out.

`suspicions_of` is the whole story. A label has one line at most, that of the kind which speaks most against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autodistill_grounded_sam.check.evidence import UNFOUNDED_PRIOR, Evidence, suspicion
from autodistill_grounded_sam.check.scenes import Floats, Objects, Places, Scene
from autodistill_grounded_sam.evaluate.operating_point import MATCH_IOU, box_overlaps
from autodistill_grounded_sam.types import Float32

Kind = Literal["overlooked", "swapped", "located", "duplicate"]
KINDS: tuple[Kind, ...] = ("overlooked", "swapped", "located", "duplicate")


@dataclass(frozen=True)
class Suspicion:
    """One label that may be wrong, or one object that may have been overlooked.

    `scene` is the place of its image. `row`, `class_id` and `xyxy` (4,) are the label's, `row` its place among the labels of the
    image; all None where a label is missing. `proposed_class` and `proposed_xyxy` are what the model sees there, None for
    nothing; of a duplicate they are the other label's. `score` is the model's for the proposed class, `suspicion` the
    probability that the labels are wrong here.
    """

    scene: int
    kind: Kind
    suspicion: float
    row: int | None
    class_id: int | None
    xyxy: Float32 | None
    proposed_class: int | None
    proposed_xyxy: Float32 | None
    score: float | None


def suspicions_of(scenes: Sequence[Scene]) -> list[Suspicion]:
    """All suspicions in `scenes`, the surest first; ties in the order of scenes. Every one tells the share that is expected to
    be wrong, so a list of any length can be read from its start."""
    evidence = Evidence.of(scenes, Objects.of(scenes))
    found = [one for place, scene in enumerate(scenes) for one in _of_scene(place, scene, evidence)]
    return sorted(found, key=lambda one: -one.suspicion)


def _of_scene(place: int, scene: Scene, evidence: Evidence) -> Iterator[Suspicion]:
    yield from _missing_labels(place, scene, evidence)
    seen = np.flatnonzero(scene.object_of >= 0)
    yield from _labels_with_objects(place, scene, seen, evidence)
    yield from _labels_without(place, scene, np.flatnonzero(scene.object_of < 0), evidence)


def _missing_labels(place: int, scene: Scene, evidence: Evidence) -> Iterator[Suspicion]:
    free = np.flatnonzero(scene.label_of < 0)
    wrong = suspicion(evidence.overlooked(scene.scores[free]))
    for one, value in zip(free, wrong, strict=True):
        class_id = int(scene.seen_class[one])
        yield Suspicion(
            place,
            "overlooked",
            float(value),
            None,
            None,
            None,
            class_id,
            scene.seen_xyxy[one],
            float(scene.scores[one, class_id]),
        )


def _labels_with_objects(place: int, scene: Scene, labels: Places, evidence: Evidence) -> Iterator[Suspicion]:
    objects = scene.object_of[labels]
    scores, best = scene.scores[objects], scene.seen_class[objects]
    present = evidence.present(scores)
    # Where there is no object after all, its class and edges say nothing of the label.
    by_kind: dict[Kind, Floats] = {
        "swapped": np.where(best == scene.class_id[labels], 0.0, evidence.swapped(scores, scene.class_id[labels])),
        "located": evidence.located(scene.iou[labels], best),
    }
    wrong = {kind: suspicion(present * ratio + (1 - present)) for kind, ratio in by_kind.items()}
    for k, label in enumerate(labels):
        kind: Kind = max(wrong, key=lambda name: (float(by_kind[name][k]), name))
        yield Suspicion(
            place, kind, float(wrong[kind][k]), int(scene.row[label]), int(scene.class_id[label]), scene.xyxy[label],
            int(best[k]), scene.seen_xyxy[objects[k]], float(scores[k, best[k]]),
        )  # fmt: skip


def _labels_without(place: int, scene: Scene, labels: Places, evidence: Evidence) -> Iterator[Suspicion]:
    """Labels without an object of their own: another label may stand for theirs, or there is none."""
    overlap = box_overlaps(scene.xyxy, scene.xyxy)[0]
    np.fill_diagonal(overlap, 0.0)
    settled: set[int] = set()  # of two labels of one object only one is too many
    for label in labels.tolist():
        other = int(overlap[label].argmax())
        iou = float(overlap[label, other])
        about = (int(scene.row[label]), int(scene.class_id[label]), scene.xyxy[label])
        no_area = bool((scene.xyxy[label, 2:] <= scene.xyxy[label, :2]).any())
        unseen = 1.0 if no_area else float(suspicion(evidence.unseen(scene.class_id[[label]]), UNFOUNDED_PRIOR)[0])
        if iou >= MATCH_IOU and other not in settled:
            settled.add(label)
            twice = float(suspicion(evidence.duplicate(np.array([iou])))[0])
            value = max(twice, unseen)
            yield Suspicion(place, "duplicate", value, *about, int(scene.class_id[other]), scene.xyxy[other], None)
        else:
            yield Suspicion(place, "located", unseen, *about, None, None, None)
