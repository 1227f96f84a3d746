from __future__ import annotations

from autodistill_grounded_sam.discover.concepts import SYNONYMS, Concept, merge_tags
from autodistill_grounded_sam.ontology import sanitize
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.word_forms import bare, singular


def tags(*images: str) -> list[list[Tag]]:
    return [[Tag(name, 1.0) for name in image.split(", ") if name] for image in images]


def test_one_concept_for_all_numbers_cases_spellings_and_articles() -> None:
    found = merge_tags(tags("Dogs, T-shirt", "a dog, t shirts", "dog, tshirt", "the DOG", ""))
    assert found == [
        Concept("dog", ("dog",), frozenset({0, 1, 2, 3})),
        Concept("t shirt", ("t shirt", "t-shirt", "tshirt"), frozenset({0, 1, 2})),
    ]


def test_synonyms_are_prompts_of_one_concept_under_the_most_usual_name() -> None:
    found = merge_tags(tags("sofa", "sofas, couch", "couch, tv", "couch, Television set", "people, men"))
    assert found[0] == Concept("couch", ("couch", "sofa"), frozenset({0, 1, 2, 3}))
    assert found[1].words == ("television set", "tv") and found[1].images == {2, 3}
    assert [concept.name for concept in found[2:]] == ["man", "person"], "what is only near in meaning stays apart"


def test_what_cannot_be_asked_is_no_concept__and_order_is_by_images_then_name() -> None:
    found = merge_tags(tags("b, ?, a", "b, ...", "a, c"))
    assert [(concept.name, len(concept.images)) for concept in found] == [("a", 2), ("b", 2), ("c", 1)]
    assert merge_tags([]) == []


def test_synonyms_are_written_as_they_are_compared__and_each_stands_once() -> None:
    words = [word for group in SYNONYMS for word in group]
    assert len(set(words)) == len(words)
    assert [singular(bare(sanitize(word))) for word in words] == words
