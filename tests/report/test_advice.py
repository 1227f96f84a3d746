"""What a colleague would say, each from the numbers that call for it and not without them."""

from __future__ import annotations

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.report.advice import TOLD_CLASSES, advise
from autodistill_grounded_sam.report.facts import Copies, Measured, RunFacts
from autodistill_grounded_sam.report.gathering import Gathered
from autodistill_grounded_sam.types import REASONS, Reason, State

NAMES = ("cat", "dog")
KEPT = REASONS.index(Reason.KEPT)


def run(names: tuple[str, ...] = NAMES, failed: int = 0, not_looked_at: int = 0) -> RunFacts:
    ontology = Ontology(tuple(ClassSpec(name, (name,)) for name in names))
    lines = [(f"{number}.png", "truncated", "cut") for number in range(failed)]
    return RunFacts("run", ontology, DecideConfig(), {}, lines, not_looked_at=not_looked_at)


def healthy(classes: int = 2) -> Gathered:
    """100 images, 60 labels of each class in 50 of them, on both sides, high above the threshold."""
    gathered = Gathered.nothing(classes)
    gathered.scores[:, KEPT, 45] = 60
    gathered.images_with[:], gathered.best[:] = 50, 0.9
    gathered.sides[:] = (50, 10)
    gathered.states.update({State.LABELLED: 90, State.EMPTY: 10})
    return gathered


def told(gathered: Gathered, facts: RunFacts | None = None, measured: Measured | None = None) -> list[str]:
    return [one.text for one in advise(facts or run(), gathered, measured or Measured())]


def test_a_healthy_run_gets_no_advice() -> None:
    assert told(healthy()) == []


def test_a_class_never_found() -> None:
    gathered = healthy()
    gathered.scores[1] = 0
    gathered.best[1] = 0.21
    (advice,) = advise(run(), gathered, Measured())
    assert advice.text == "dog was never found: its best candidate scores 0.21. Try other words, or a lower threshold"
    assert (advice.weight, advice.place) == (2, "class-1")
    gathered.best[1] = 0
    assert "no candidate came near" in told(gathered)[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images_with": 97}, "dog is found in 97% of the images: is it the object, or the background?"),
        ({"whole_image": 30}, "dog covers nearly the whole image in 50% of its labels"),
        ({"contested": 15}, "dog is hardly told from another class in 25% of its labels"),
        ({"near_threshold": 24}, "dog has 40% of its labels right above the threshold, which so decides much"),
        ({"sides": (60, 0)}, "dog has labels on one side of the split only"),
    ],
)
def test_classes_that_look_wrong(change: dict[str, object], says: str) -> None:
    gathered = healthy()
    for name, value in change.items():
        getattr(gathered, name)[1] = value
    assert told(gathered) == [says]


def test_few_labels() -> None:
    gathered = healthy()
    gathered.scores[1, KEPT] = 0
    gathered.scores[1, KEPT, 45] = 7
    assert told(gathered) == ["dog has 7 labels: few to learn from"]


def test_images_that_are_alike_leak_fail_wait_or_are_empty() -> None:
    copies = Measured(copies=Copies(same_bytes=2, alike=40, leaking=3))
    gathered = healthy()
    gathered.states.update({State.EMPTY: 200})
    texts = told(gathered, run(failed=10, not_looked_at=1), copies)
    assert texts[:2] == [
        "1 image was not looked at yet: run label again to go on",
        "3 images have twins on the other side of the split: the validation figures will flatter",
    ]
    assert "2 images are byte for byte the same as another" in texts
    assert "40 images look nearly like another: frames of one film, or copies" in texts
    assert "10 of 310 images could not be used" in texts
    assert "210 of 300 images hold no label: other words, or a lower threshold?" in texts


def test_measured_quality() -> None:
    share = {"value": 0.7, "low": 0.6, "high": 0.8, "count": 9}
    fine = {"value": 0.05, "low": 0.0, "high": 0.1, "count": 9}
    assert told(healthy(), measured=Measured(quality={"overall": {"precision": share, "missed": fine}})) == [
        "30% of the labels are wrong (20% to 40%)"
    ]
    unknown = {"value": None, "low": None, "high": None, "count": 0}
    assert told(healthy(), measured=Measured(quality={"overall": {"precision": unknown, "missed": share}})) == [
        "70% of the objects have no label (60% to 80%)"
    ]


def test_of_many_classes_some_are_named_and_the_others_counted() -> None:
    names = tuple(f"class {number}" for number in range(20))
    gathered = healthy(20)
    gathered.scores[:] = 0
    texts = told(gathered, run(names))
    assert len(texts) == TOLD_CLASSES + 1 and texts[-1] == f"{20 - TOLD_CLASSES} more classes were never found"
    assert np.all([name in text for name, text in zip(names, texts[:TOLD_CLASSES], strict=False)])
