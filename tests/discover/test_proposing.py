"""From tags and boxes to an ontology, on made-up answers of a detector where it is known what should come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from autodistill_grounded_sam.discover.concepts import Concept
from autodistill_grounded_sam.discover.grounding import Grounding, Look
from autodistill_grounded_sam.discover.proposing import Limits, Proposal, propose, separating_threshold
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.types import Candidates

SMALL, WHOLE = (10.0, 10.0, 30.0, 30.0), (0.0, 0.0, 100.0, 100.0)
Box = tuple[tuple[float, float, float, float], Mapping[str, float]]


def proposal(tagged: Mapping[str, Sequence[int]], images: Sequence[Sequence[Box]], limits: Limits | None = None) -> Proposal:
    """Of concepts and the images that carry each, and the boxes of each image with their scores by name."""
    concepts = [Concept(name, (name,), frozenset(places)) for name, places in tagged.items()]
    looks = []
    for boxes in images:
        scores = np.array([[row.get(name, 0.0) for name in tagged] for _, row in boxes], np.float32).reshape(-1, len(tagged))
        looks.append(Look(Candidates(np.array([box for box, _ in boxes], np.float32).reshape(-1, 4), scores), 100, 100))
    return propose(concepts, Grounding.of(looks, np.arange(len(tagged), dtype=np.int32)), limits or Limits())


def test_what_the_detector_does_not_find_and_what_fills_pictures_is_left_out() -> None:
    images = [[(SMALL, {"dog": 0.8}), (WHOLE, {"beach": 0.7})] for _ in range(6)]
    found = proposal({"dog": range(6), "beach": range(6), "running": range(6), "blue": [0, 1]}, images)
    assert found.ontology.class_names == ("dog",)
    assert found.left_out == {
        "beach": "it fills the picture in most of 6 images where the detector finds it",
        "running": "the detector finds it in 0 of 6 images with this tag",
        "blue": "the detector finds it in 0 of 2 images with this tag",
    }
    assert (found.evidence[0].tagged, found.evidence[0].boxes, found.evidence[0].images) == (6, 6, 6)


def test_words_that_share_their_boxes_are_one_class__unless_too_few_boxes_say_so() -> None:
    both = [[(SMALL, {"cup": 0.8, "mug": 0.7})] for _ in range(6)]
    found = proposal({"cup": range(5), "mug": range(1, 6)}, both)
    assert [spec.prompts for spec in found.ontology.classes] == [("cup", "mug")]
    assert found.evidence[0].tagged == 6 and found.left_out == {"mug": "the same boxes as cup: a prompt of it"}
    few = proposal({"cup": range(4), "mug": range(4)}, both[:4])
    assert few.left_out == {"mug": "its boxes are better named by other words, most of them cup"}


def test_a_general_word_gives_way_to_what_it_covers__but_not_to_one_thing_alone() -> None:
    dogs = [[(SMALL, {"dog": 0.7, "animal": 0.8})] for _ in range(6)]
    cats = [[(SMALL, {"cat": 0.7, "animal": 0.8})] for _ in range(6)]
    others = [[(SMALL, {"animal": 0.8})] for _ in range(6)]
    found = proposal({"animal": range(12), "cat": range(6, 12), "dog": range(6)}, dogs + cats)
    assert sorted(found.ontology.class_names) == ["cat", "dog"]
    assert found.left_out == {"animal": "a general word for cat, dog"}
    kept = proposal({"animal": range(12), "dog": range(6)}, dogs + others)
    assert "animal" in kept.ontology.class_names


def test_rare_ones_are_left_out__and_are_negatives_where_they_would_be_labelled() -> None:
    images: list[list[Box]] = [[(SMALL, {"cat": 0.8, "fox": 0.3})] for _ in range(8)]
    images += [[(SMALL, {"cat": 0.5, "fox": 0.8})], [(SMALL, {"cat": 0.5, "fox": 0.8})], [(SMALL, {"hen": 0.8})]]
    found = proposal({"cat": range(8), "fox": [8, 9], "hen": [10]}, images)
    assert found.ontology.class_names == ("cat",) and found.ontology.negatives == ("fox",)
    assert found.negatives == {"fox": 2}
    assert found.left_out == {"fox": "in 2 images, fewer than 3", "hen": "in 1 image, fewer than 3"}


def test_at_most_so_many_classes__the_most_frequent_ones_first() -> None:
    names = {"a": 6, "b": 5, "c": 4}
    images = [[(SMALL, {name: 0.8}) for name, count in names.items() if place < count] for place in range(6)]
    tagged = {name: range(count) for name, count in names.items()}
    found = proposal(tagged, images, Limits(max_classes=2))
    assert found.ontology.class_names == ("a", "b")
    assert found.left_out == {"c": "beyond the 2 most frequent classes (in 4 images)"}
    with pytest.raises(
        OntologyError, match=r"none of the 3 things .* in 6 images became a class.*\n  a: in 6 images, fewer than 9"
    ):
        proposal(tagged, images, Limits(min_images=9))


def test_classes_of_which_one_object_is_sometimes_taken_for_the_other_exclude_one_another() -> None:
    images: list[list[Box]] = [[(SMALL, {"car": 0.8, "truck": 0.5 * (place < 2)}), (WHOLE, {"hat": 0.1})] for place in range(8)]
    images += [[(SMALL, {"truck": 0.8}), (SMALL, {"hat": 0.9})] for _ in range(8)]
    found = proposal({"car": range(8), "hat": range(8, 16), "truck": range(8, 16)}, images)
    assert found.ontology.exclusive == (("car", "truck"),)


def test_a_threshold_is_set_where_it_tells_tagged_images_from_others__and_only_there() -> None:
    scores = np.array([0.5] * 8 + [0.42] * 6, np.float32)
    chosen, why = separating_threshold(scores, frozenset(range(8)), 0.35)
    assert chosen is not None and 0.42 < chosen <= 0.5
    assert why == f"threshold {chosen:.2f}: reached in 8 of 8 tagged images and in 0 of 6 others (at 0.35 in 8 and 6)"
    assert separating_threshold(scores, frozenset(range(14)), 0.35)[0] is None
    assert separating_threshold(np.array([0.8] * 8 + [0.1] * 6, np.float32), frozenset(range(8)), 0.35) == (
        None,
        "default threshold",
    )
    low, _ = separating_threshold(np.array([0.3] * 8 + [0.1] * 6, np.float32), frozenset(range(8)), 0.35)
    assert low == pytest.approx(0.3)


def test_a_class_scores_as_the_best_of_its_prompts() -> None:
    found = Candidates(np.array([SMALL, WHOLE], np.float32), np.array([[0.1, 0.6, 0.2], [0.5, 0.2, 0.9]], np.float32))
    ground = Grounding.of([Look(found, 100, 100), Look(Candidates.none(3), 100, 100)], np.array([0, 0, 1], np.int32))
    np.testing.assert_allclose(ground.best, [[0.6, 0.9], [0, 0]])
    np.testing.assert_allclose(ground.area, [[0.04, 1.0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(ground.scores, [[0.6, 0.2], [0.5, 0.9]])
    assert ground.named(0.35).tolist() == [[True, False], [False, True]]
