"""What one setting does to labelled images, for every threshold at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.tune.trials import THRESHOLDS, as_decided, f1, try_out
from tests.tune.tune_kit import example

ONTOLOGY = Ontology((ClassSpec("cup", ("cup", "mug")), ClassSpec("plate", ("plate",))))
WORDS = ONTOLOGY.prompts


def at(threshold: float) -> int:
    return int(np.searchsorted(THRESHOLDS, np.float32(threshold)))


def test_labels_and_right_ones_by_threshold() -> None:
    seen = [(0, [0.9, 0.1, 0.0]), (1, [0.1, 0.6, 0.2]), (2, [0.4, 0.0, 0.0]), (3, [0.0, 0.1, 0.7])]
    examples = [example(WORDS, seen, [(0, 0), (0, 1), (1, 3), (1, 5)])]
    cup, plate = (try_out(examples, ONTOLOGY, DecideConfig(), place) for place in (0, 1))
    assert (cup.objects.tolist(), plate.objects.tolist()) == ([2], [2])
    assert cup.labels[0, [at(0.3), at(0.5), at(0.7), at(0.95)]].tolist() == [3, 2, 1, 0]
    assert cup.right[0, [at(0.3), at(0.5), at(0.7), at(0.95)]].tolist() == [2, 2, 1, 0]
    assert plate.right[0, [at(0.7), at(0.71)]].tolist() == [1, 0]
    assert try_out(examples, ONTOLOGY, DecideConfig(), 0, least=0.5).labels[0, [at(0.3), at(0.5), at(0.7)]].tolist() == [2, 2, 1]


def test_every_threshold_agrees_with_deciding_at_it() -> None:
    rng = np.random.default_rng(0)
    examples = [
        example(WORDS, [(k, rng.random(3).tolist()) for k in range(12)], [(k // 2 % 2, k) for k in range(0, 12, 2)])
        for _ in range(5)
    ]
    for place, spec in enumerate(ONTOLOGY.classes):
        curve = try_out(examples, ONTOLOGY, DecideConfig(), place)
        for threshold in (0.2, 0.5, 0.8):
            other = ONTOLOGY.classes[1 - place]
            classes = [other, other]
            classes[place] = replace(spec, box_threshold=threshold)
            labels, right = as_decided(examples, Ontology(tuple(classes)), DecideConfig())
            assert labels[:, place].tolist() == curve.labels[:, at(threshold)].tolist()
            assert right[:, place].tolist() == curve.right[:, at(threshold)].tolist()
        assert curve.right.sum() > 0


def test_what_another_class_will_drop_takes_nothing_away() -> None:
    """A plate of 0.3 lies on a cup of 0.2: at the thresholds given the plate is dropped and the cup could be kept."""
    seen = example(("cup", "plate"), [(0, [0.2, 0.0]), (0, [0.0, 0.3])], [(0, 0)])
    both = Ontology((ClassSpec("cup", ("cup",)), ClassSpec("plate", ("plate",))), exclusive=(("cup", "plate"),))
    assert try_out([seen], both, DecideConfig(box_threshold=0.35, text_threshold=0.35), 0).right[0, at(0.2)] == 1
    assert try_out([seen], both, DecideConfig(box_threshold=0.25, text_threshold=0.25), 0).right[0, at(0.2)] == 0


def test_thresholds_of_classes_count_when_deciding_and_not_when_trying_out() -> None:
    strict = Ontology((ClassSpec("cup", ("cup", "mug"), box_threshold=0.8), ClassSpec("plate", ("plate",))))
    examples = [example(WORDS, [(0, [0.7, 0.0, 0.0])], [(0, 0)])]
    assert as_decided(examples, strict, DecideConfig())[0].tolist() == [[0, 0]]
    assert try_out(examples, strict, DecideConfig(), 0).labels[0, at(0.5)] == 1


def test_fewer_words_use_their_own_columns() -> None:
    fewer = Ontology((ClassSpec("cup", ("mug",)), ClassSpec("plate", ("plate",))))
    examples = [example(WORDS, [(0, [0.9, 0.1, 0.2])], [(0, 0)])]
    assert [try_out(examples, fewer, DecideConfig(), place).labels[0, at(0.15)] for place in (0, 1)] == [0, 1]


def test_with_reviews_only_what_was_judged_counts() -> None:
    seen = [(0, [0.9, 0.0, 0.0]), (1, [0.8, 0.0, 0.0]), (2, [0.7, 0.0, 0.0])]
    curve = try_out([example(WORDS, seen, [(0, 0)], [(0, 1)])], ONTOLOGY, DecideConfig(), 0)
    assert curve.labels[0, at(0.5)] == 2  # nobody spoke of the third
    assert curve.right[0, at(0.5)] == 1


def test_f1() -> None:
    assert f1(np.array(3.0), np.array(4.0), np.array(6.0)) == pytest.approx(0.6)
    assert f1(np.array(0.0), np.array(0.0), np.array(0.0)) == 0
