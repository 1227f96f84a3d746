"""The search: words, thresholds and duplicates are changed where that is proven, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.evaluate.matching import Objects
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.tune.choosing import Fixed
from autodistill_grounded_sam.tune.searching import (
    as_given,
    choose_duplicates,
    choose_thresholds,
    choose_words,
    refused,
    tuned_ontology,
    worse_together,
)
from autodistill_grounded_sam.tune.trials import Example
from autodistill_grounded_sam.tune.writing import evidence_of
from autodistill_grounded_sam.types import Candidates
from tests.tune.tune_kit import example, objects

ONTOLOGY = Ontology((ClassSpec("cup", ("thing",)), ClassSpec("plate", ("plate",)), ClassSpec("rare", ("rare",))))
WORDS = ("thing", "cup", "plate", "rare")
SETS = {"cup": [("thing",), ("cup",), ("thing", "cup")], "plate": [("plate",)], "rare": [("rare",)]}


def images(count: int) -> list[Example]:
    """Cups are seen by the word cup and not by thing; plates score 0.2 and what is none 0.1; one rare object in all."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        seen = [
            (0, [0.05, rng.uniform(0.6, 0.9), 0.0, 0.0]),
            (1, [rng.uniform(0.3, 0.9), 0.0, 0.0, 0.0]),
            (2, [0.0, 0.0, rng.uniform(0.19, 0.25), 0.0]),
            (3, [0.0, 0.0, rng.uniform(0.06, 0.12), 0.0]),
        ]
        truth = [(0, 0), (1, 2), *([(2, 9)] if k == 0 else [])]
        made.append(example(WORDS, seen, truth, name=f"{k:02d}.png"))
    return made


def search(examples: list[Example], config: DecideConfig) -> tuple[Ontology, list[object]]:
    given = as_given(examples, ONTOLOGY, config)
    found = choose_words(given, examples, ONTOLOGY, config, SETS)
    choices = choose_thresholds(given, examples, ONTOLOGY, config, found)
    return tuned_ontology(ONTOLOGY, choices), list(choices)


def test_words_and_thresholds_are_found_and_thin_evidence_is_refused() -> None:
    tuned, choices = search(images(20), DecideConfig())
    cup, plate, rare = tuned.classes
    assert cup.prompts == ("cup",)
    assert plate.prompts == ("plate",)
    assert 0.12 < (plate.box_threshold or 0) <= 0.2
    assert rare == ONTOLOGY.classes[2]
    assert [choice.verdict for choice in choices] == ["changed", "changed", "refused"]
    assert choices[0].gain.after == pytest.approx(1)
    assert choices[2].gain is None
    assert (choices[2].images, choices[2].objects, choices[2].more_images) == (1, 1, 180)


def test_a_good_setting_is_kept() -> None:
    config = DecideConfig(box_threshold=0.15, text_threshold=0.15)
    tuned, choices = search(images(20), config)
    assert choices[1].verdict == "kept"
    assert tuned.classes[1] == ONTOLOGY.classes[1]


def test_too_few_images_change_nothing() -> None:
    tuned, choices = search(images(4), DecideConfig())
    assert tuned == ONTOLOGY
    assert {choice.verdict for choice in choices} == {"refused"}
    assert all(choice.more_images > 0 for choice in choices)


def test_words_that_are_not_taken_are_not_told() -> None:
    """Words were found, but on the look with just these words nothing is proven."""
    config = DecideConfig()
    given = as_given(images(20), ONTOLOGY, config)
    found = choose_words(given, images(20), ONTOLOGY, config, SETS)
    assert found["cup"].words == ("cup",)
    unseen = [replace(one, candidates=replace(one.candidates, scores=one.candidates.scores * 0)) for one in images(20)]
    choice = choose_thresholds(given, unseen, ONTOLOGY, config, found)[0]
    assert (choice.verdict, choice.words, choice.threshold) == ("kept", ("thing",), None)


def test_no_threshold_is_lowered_where_that_is_not_wanted() -> None:
    given = as_given(images(20), ONTOLOGY, DecideConfig())
    free = choose_thresholds(given, images(20), ONTOLOGY, DecideConfig(), {})[1]
    held = choose_thresholds(given, images(20), ONTOLOGY, DecideConfig(), {}, never_lower=True)[1]
    assert free.threshold is not None
    assert free.threshold < 0.25
    assert (held.verdict, held.threshold) == ("kept", None)


def test_what_serves_alone_and_not_together_is_refused() -> None:
    """A cup is seen as a plate too, a little less surely; a lower threshold of cups takes nothing, one of plates takes cups."""
    two = Ontology((ClassSpec("cup", ("cup",)), ClassSpec("plate", ("plate",))), exclusive=(("cup", "plate"),))
    config = DecideConfig(box_threshold=0.5, text_threshold=0.5)
    rows = [(0, [0.3, 0.0]), (0, [0.0, 0.4]), (1, [0.0, 0.4]), (2, [0.0, 0.4]), (3, [0.0, 0.4])]
    seen = [example(("cup", "plate"), rows, [(0, 0), (1, 1), (1, 2), (1, 3)], name=f"{k}") for k in range(20)]
    given = as_given(seen, two, config)
    choices = choose_thresholds(given, seen, two, config, {})
    assert [choice.verdict for choice in choices] == ["changed", "changed"]
    _, together = worse_together(given, seen, tuned_ontology(two, choices), config, choices)
    assert together.after < choices[0].gain.after * 0.25 + choices[1].gain.after * 0.75  # the plates took the cups
    cups = [Fixed(np.ones(20), np.ones(20), np.ones(20)), given[1]]  # as if they had been found before
    worse, _ = worse_together(cups, seen, tuned_ontology(two, choices), config, choices)
    assert worse == {"cup"}
    back = refused(choices, two, worse)
    assert tuned_ontology(two, back).classes == (two.classes[0], tuned_ontology(two, choices).classes[1])
    assert "worse than given once all choices decide together" in evidence_of(back[0], ("cup",))
    none_better = [Fixed(one.objects, one.objects, one.objects) for one in given]
    assert worse_together(none_better, seen, tuned_ontology(two, choices), config, choices)[0] == {"cup", "plate"}


def doubled(count: int, iou: float) -> list[Example]:
    """Every object is seen twice, by boxes of this IoU."""
    made = []
    for k in range(count):
        shift = 100 * (1 - iou) / (1 + iou)
        boxes = np.array([[0, 0, 100, 100], [shift, 0, 100 + shift, 100]], np.float32)
        candidates = Candidates(boxes, np.array([[0.8], [0.7]], np.float32))
        truth = objects([(0, 0)])
        made.append(
            Example(
                f"{k}.png",
                400,
                100,
                candidates,
                ("cup",),
                Objects.of(truth.class_id, boxes[:1]),
            )
        )
    return made


def test_duplicates_are_tightened_where_objects_are_doubled() -> None:
    cup = Ontology((ClassSpec("cup", ("cup",)),))
    config, gain = choose_duplicates(doubled(20, 0.62), cup, DecideConfig())
    assert config.duplicate_iou <= 0.6 or config.duplicate_containment == 0.7
    assert gain is not None
    assert gain.before == pytest.approx(2 / 3)
    assert gain.after == pytest.approx(1)
    strict = DecideConfig(duplicate_iou=0.5, duplicate_containment=0.7)
    assert choose_duplicates(doubled(20, 0.62), cup, strict, never_looser=True)[0] == strict


def test_duplicates_are_kept_where_they_do_well() -> None:
    cup = Ontology((ClassSpec("cup", ("cup",)),))
    config, gain = choose_duplicates(doubled(20, 0.95), cup, DecideConfig())
    assert config == DecideConfig()
    assert gain is not None
    assert not gain.proven
    assert choose_duplicates(doubled(3, 0.62), cup, DecideConfig()) == (DecideConfig(), None)
