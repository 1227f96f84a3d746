"""What a good colleague would say after looking at the page: each a sentence, with the place that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from autodistill_grounded_sam.report.facts import Measured, RunFacts
from autodistill_grounded_sam.report.gathering import Gathered
from autodistill_grounded_sam.types import State

ENOUGH_IMAGES = 20  # of fewer, shares say little
EVERYWHERE = 0.95  # of the images: hardly anything that one labels is in all of them, but a background is
FEW_LABELS = 20
MANY_NEAR = 0.3  # of a class's labels just above the threshold: another threshold would be another dataset
MANY_CONTESTED = 0.2
MANY_WHOLE = 0.2
MANY_EMPTY = 0.5
MANY_WRONG = 0.2  # of the labels; or of the objects, without one
MANY_FAILED = 0.02
TOLD_CLASSES = 5  # by name; of more only how many


class Advice(NamedTuple):
    """`weight` 2 should be settled before training, 1 is worth a look, 0 is good to know; `place` is an id in the page."""

    weight: int
    text: str
    place: str


def advise(run: RunFacts, gathered: Gathered, measured: Measured) -> list[Advice]:
    """The gravest first."""
    notes = (Advice(0, note, "repeat") for note in run.notes)
    of_all = chain(_of_quality(measured), _of_images(run, gathered, measured))
    of_classes = chain(_never_found(run, gathered), _of_classes(run, gathered))
    return sorted(chain(of_all, of_classes, notes), key=lambda advice: -advice.weight)


def _of_quality(measured: Measured) -> Iterator[Advice]:
    if measured.quality is None:
        return
    if measured.quality_is_old:
        yield Advice(1, "label quality was measured for another decision: run quality again", "quality")
    overall = measured.quality["overall"]
    for key, told in (("precision", "of the labels are wrong"), ("missed", "of the objects have no label")):
        share = overall[key]
        if share["value"] is None:
            continue
        bad, low, high = (share[one] if key == "missed" else 1 - share[one] for one in ("value", "low", "high"))
        if bad > MANY_WRONG:
            text = f"{bad:.0%} {told} ({min(low, high):.0%} to {max(low, high):.0%})"
            yield Advice(2, text, "quality")


def _of_images(run: RunFacts, gathered: Gathered, measured: Measured) -> Iterator[Advice]:
    images, copies = gathered.images, measured.copies
    if run.not_looked_at:
        yield Advice(2, f"{_images(run.not_looked_at)} not looked at yet: run label again to go on", "repeat")
    if copies.leaking:
        are = "has a twin" if copies.leaking == 1 else "have twins"
        text = f"{copies.leaking:,} images {are} on the other side of the split: the validation figures will flatter"
        yield Advice(2, text, "copies")
    if copies.same_bytes:
        yield Advice(1, f"{copies.same_bytes:,} images are byte for byte the same as another", "copies")
    if images and copies.alike > max(2, images * 0.05):
        yield Advice(1, f"{copies.alike:,} images look nearly like another: frames of one film, or copies", "copies")
    failed = len(run.failed)
    if failed > MANY_FAILED * max(images, 1):
        yield Advice(1, f"{failed:,} of {images + failed:,} images could not be used", "aside")
    empty = gathered.states[State.EMPTY]
    if images >= ENOUGH_IMAGES and empty > MANY_EMPTY * images:
        yield Advice(1, f"{empty:,} of {images:,} images hold no label: other words, or a lower threshold?", "aside")


def _never_found(run: RunFacts, gathered: Gathered) -> Iterator[Advice]:
    never = np.flatnonzero(gathered.labels == 0).tolist()
    for class_id in never[:TOLD_CLASSES]:
        best = float(gathered.best[class_id])
        heard = f"its best candidate scores {best:.2f}" if best else "no candidate came near"
        text = f"{run.ontology.class_names[class_id]} was never found: {heard}. Try other words, or a lower threshold"
        yield Advice(2, text, _anchor(class_id))
    if len(never) > TOLD_CLASSES:
        yield Advice(2, f"{len(never) - TOLD_CLASSES} more classes were never found", "classes")


def _of_classes(run: RunFacts, gathered: Gathered) -> Iterator[Advice]:
    names, labels, images = run.ontology.class_names, gathered.labels, gathered.images
    found, enough = np.maximum(labels, 1), labels >= FEW_LABELS
    everywhere = gathered.images_with / max(images, 1)
    near, contested, whole = gathered.near_threshold / found, gathered.contested / found, gathered.whole_image / found
    one_sided = (labels >= 2) & (gathered.sides.min(axis=1) == 0) & bool(gathered.sides.sum(axis=0).min() > 0)
    few = (labels > 0) & ~enough & (images >= ENOUGH_IMAGES)
    background = (everywhere > EVERYWHERE) & (images >= ENOUGH_IMAGES)
    for weight, which, number, told in (
        (1, background, everywhere, "is found in {:.0%} of the images: is it the object, or the background?"),
        (1, (whole > MANY_WHOLE) & enough, whole, "covers nearly the whole image in {:.0%} of its labels"),
        (1, (contested > MANY_CONTESTED) & enough, contested, "is hardly told from another class in {:.0%} of its labels"),
        (1, (near > MANY_NEAR) & enough, near, "has {:.0%} of its labels right above the threshold, which so decides much"),
        (1, one_sided, labels, "has labels on one side of the split only"),
        (1, few, labels, "has {:.0f} labels: few to learn from"),
    ):
        places = np.flatnonzero(which).tolist()
        for class_id in places[:TOLD_CLASSES]:
            yield Advice(weight, f"{names[class_id]} {told.format(float(number[class_id]))}", _anchor(class_id))
        if len(places) > TOLD_CLASSES:
            yield Advice(weight, f"{len(places) - TOLD_CLASSES} more classes: the same as of {names[places[0]]}", "classes")


def _anchor(class_id: int) -> str:
    return f"class-{class_id}"


def _images(count: int) -> str:
    return "1 image was" if count == 1 else f"{count:,} images were"
