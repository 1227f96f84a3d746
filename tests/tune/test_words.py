"""Words to try: forms of a word, who may ask for what, and sets of them."""

from __future__ import annotations

import pytest

from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.tune.words import MOST_SETS, candidate_words, forms_of, with_words, word_sets

ONTOLOGY = Ontology(
    (ClassSpec("bottle", ("a milk bottle", "plastic bottle")), ClassSpec("Soda_Can", ("can",), box_threshold=0.3)),
    ("a glass jar",),
)


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("a bottle", ["bottle", "a bottle", "bottles"]),
        ("red blood cells", ["red blood cell", "a red blood cell", "red blood cells"]),
        ("apple", ["apple", "an apple", "apples"]),
        ("person", ["person", "a person", "people"]),
        ("nuclei", ["nucleus", "a nucleus", "nuclei"]),
        ("berries", ["berry", "a berry", "berries"]),
        ("box", ["box", "a box", "boxes"]),
        ("glass", ["glass", "a glass", "glasses"]),
        ("bus", ["bus", "a bus", "buses"]),
        ("fish", ["fish", "a fish"]),
        ("esp8266", ["esp8266", "an esp8266"]),
        ("dishes", ["dish", "a dish", "dishes"]),
        ("shoes", ["shoe", "a shoe", "shoes"]),
    ],
)
def test_forms(word: str, forms: list[str]) -> None:
    assert forms_of(word) == forms


def test_given_words_first_then_listed_then_forms() -> None:
    words = candidate_words(ONTOLOGY, {"bottle": ["flask"]}, forms=True)
    assert words["bottle"][:3] == ["a milk bottle", "plastic bottle", "flask"]
    assert {"milk bottles", "a plastic bottle", "flasks", "bottle", "a bottle"} <= set(words["bottle"])
    assert {"can", "a can", "cans", "soda can", "soda cans"} == set(words["Soda_Can"]) - {"a soda can"}
    assert candidate_words(ONTOLOGY, {}, forms=False) == {"bottle": ["a milk bottle", "plastic bottle"], "Soda_Can": ["can"]}


def test_a_word_of_another_class_or_a_negative_is_left_to_it() -> None:
    words = candidate_words(ONTOLOGY, {"bottle": ["can", "a glass jar", "glass jar"]}, forms=True)
    assert "a glass jar" not in words["bottle"]
    assert "glass jar" in words["bottle"]
    assert "can" not in [*words["bottle"]]
    with_words(ONTOLOGY, words)  # an ontology of all of them is no contradiction


def test_words_of_an_unknown_class_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"words are listed for 'bottles', which is no class; did you mean 'bottle'\?"):
        candidate_words(ONTOLOGY, {"bottles": ["flask"]}, forms=False)


def test_sets_start_with_the_given_one_and_hold_none_twice() -> None:
    sets = word_sets(("a", "b"), ["a", "b", "c"])
    assert sets == [("a", "b"), ("a",), ("b",), ("c",), ("a", "b", "c")]
    assert word_sets(("a",), ["a"]) == [("a",)]
    assert len(word_sets(tuple("abcdefgh"), [f"w{n}" for n in range(90)])) == MOST_SETS


def test_other_words_leave_the_rest_of_a_class_alone() -> None:
    changed = with_words(ONTOLOGY, {"Soda_Can": ["tin"]})
    assert changed.classes[1] == ClassSpec("Soda_Can", ("tin",), box_threshold=0.3)
    assert changed.classes[0] == ONTOLOGY.classes[0]
