from __future__ import annotations

import numpy as np
import pytest
from transformers import BertTokenizerFast

from autodistill_grounded_sam.adapt.captions import DISTRACTORS, Captions
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from tests.detect.conftest import tiny_tokenizer  # noqa: F401 - a fixture

WORDS = Ontology(
    (ClassSpec("a", ("red cat", "cats")), ClassSpec("b", ("dog",)), ClassSpec("c", ("car",))), negatives=("machine",)
)


def drawn(tokenizer: BertTokenizerFast, taught: list[int], present: list[int], limit: int = 256) -> list[tuple[str, list[str]]]:
    """For fifty draws: the caption, and the text of the tokens of each class."""
    captions, rng, seen = Captions(WORDS, taught, tokenizer, limit), np.random.default_rng(0), []
    for _ in range(50):
        asked = captions.draw(rng, np.array(present, np.int32))
        ids = asked.input_ids[0]
        assert asked.tokens == len(ids) <= limit
        seen.append((tokenizer.decode(ids[1:-1]), [tokenizer.decode(ids[row.bool()]) for row in asked.class_tokens]))
    return seen


def test_tokens_of_a_class_are_those_of_all_its_prompts(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    for text, (a, b, c) in drawn(tiny_tokenizer, [0, 1, 2], [0, 1, 2]):
        assert "machine" in text
        assert a == ("red cat cats" if "red cat" in text else "")
        assert (b, c) == ("dog" if "dog" in text else "", "car" if "car" in text else "")


def test_a_class_is_sometimes_not_asked_and_other_words_sometimes_are(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    seen = drawn(tiny_tokenizer, [0, 1, 2], [0, 1, 2])
    unasked = sum("" in tokens for _, tokens in seen)
    assert 1 <= unasked <= 15  # a tenth of fifty
    assert any(word in text for text, _ in seen for word in DISTRACTORS if word not in ("car", "dog"))


def test_a_class_without_labels_is_never_asked(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    for text, (_, b, _) in drawn(tiny_tokenizer, [0, 2], [0]):
        assert b == "" and not text.startswith("dog") and "cats . dog ." not in text


def test_what_is_there_comes_first_where_not_all_fit(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    seen = drawn(tiny_tokenizer, [0, 1, 2], [1], limit=6)
    assert sum(tokens[1] == "dog" for _, tokens in seen) >= 40


def test_no_distractor_is_a_word_of_the_ontology(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    words = Ontology((ClassSpec("Person", ("human",)), ClassSpec("b", ("a red car",))), negatives=("a big dog",))
    captions, rng = Captions(words, [0, 1], tiny_tokenizer, 256), np.random.default_rng(0)
    asked = [captions.draw(rng, np.array([0, 1], np.int32)) for _ in range(50)]
    assert any(len(one.class_tokens[1].nonzero()) for one in asked)
    tokens = {text: tiny_tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a red car", "a big dog")}
    for word, prompt in (("car", "a red car"), ("dog", "a big dog")):
        (own,) = tiny_tokenizer(word, add_special_tokens=False)["input_ids"]
        for one in asked:  # only ever as a part of its prompt
            ids = one.input_ids[0].tolist()
            assert ids.count(own) == sum(ids[k : k + len(tokens[prompt])] == tokens[prompt] for k in range(len(ids)))
    assert "person" not in captions._prompts and "tree" in captions._prompts


def test_no_word_of_a_labelled_class_can_be_asked(tiny_tokenizer: BertTokenizerFast) -> None:  # noqa: F811
    long = Ontology.from_dict({"a person in a red car with a machine and a dog": "x"})
    with pytest.raises(OntologyError, match="no prompt of a labelled class"):
        Captions(long, [0], tiny_tokenizer, 8)
