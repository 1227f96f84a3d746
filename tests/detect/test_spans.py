from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

from autodistill_grounded_sam.detect.spans import Caption, pack_captions, span_scores
from autodistill_grounded_sam.errors import OntologyError

PROMPT = st.text(alphabet="abcrdz09 -'+,éÜß中文İ\u0301🍎\u00a0\u200d/", min_size=1, max_size=24)
PROMPTS = st.lists(PROMPT.map(lambda text: " ".join(text.split())).filter(bool), min_size=1, max_size=25, unique=True)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def label_maps(caption: Caption) -> list[tuple[int, ...]]:
    """The spans after transformers: the tokens between delimiters."""
    ids = torch.tensor([caption.input_ids])
    maps = build_label_maps(torch.zeros(1, 1, ids.shape[1]), ids)[0]
    return [tuple(row.nonzero().flatten().tolist()) for row in maps]


@MANY
@given(prompts=PROMPTS, limit=st.integers(40, 256))
def test_pack_captions__spans_are_the_tokens_between_delimiters(
    tiny_tokenizer: BertTokenizerFast, prompts: list[str], limit: int
) -> None:
    captions = pack_captions(prompts, tiny_tokenizer, limit)
    for caption in captions:
        assert list(caption.spans) == label_maps(caption)
        assert len(caption.input_ids) <= limit
        assert caption.text == " . ".join(prompts[index] for index in caption.prompts) + " ."
    asked = sorted(index for caption in captions for index in caption.prompts)
    ids = [tiny_tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
    assert asked == [index for index, tokens in enumerate(ids) if tokens]  # each once, and only those without a token left out
    sizes = sorted(len(caption.input_ids) - 2 for caption in captions)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > limit - 2  # no two captions would fit in one


def test_pack_captions__words_of_a_prompt(tiny_tokenizer: BertTokenizerFast) -> None:
    (caption,) = pack_captions(["red t-shirt", "café", "x-ray machine"], tiny_tokenizer)
    tokens = tiny_tokenizer.convert_ids_to_tokens(list(caption.input_ids))
    spelt = [["".join(tokens[t].removeprefix("##") for t in word) for word in words] for words in caption.words]
    assert spelt == [["red", "t-shirt"], ["cafe"], ["x-ray", "machine"]]


def test_pack_captions__one_caption_in_the_given_order_if_all_fit(tiny_tokenizer: BertTokenizerFast) -> None:
    (caption,) = pack_captions(["dog", "red cat", "car"], tiny_tokenizer, groups=[["car", "dog"]])
    assert caption.prompts == (0, 1, 2)
    assert caption.text == "dog . red cat . car ."


def test_pack_captions__a_group_stays_together(tiny_tokenizer: BertTokenizerFast) -> None:
    prompts = ["red cat", "blue cat", "dog", "car", "person", "red dog"]
    captions = pack_captions(
        prompts, tiny_tokenizer, limit=10, groups=[["dog", "red cat", "not asked"], ["person", "red dog", "car"]]
    )
    for group in ({0, 2}, {3, 4, 5}):
        assert any(group <= set(caption.prompts) for caption in captions)


def test_pack_captions__a_group_too_large_is_split_but_never_cut(tiny_tokenizer: BertTokenizerFast) -> None:
    prompts = ["red", "blue", "cat", "dog", "car"]
    captions = pack_captions(prompts, tiny_tokenizer, limit=6, groups=[prompts])
    assert sorted(index for caption in captions for index in caption.prompts) == [0, 1, 2, 3, 4]
    assert len(captions) == 3


def test_pack_captions__prompt_too_long(tiny_tokenizer: BertTokenizerFast) -> None:
    prompt = "red " * 8
    with pytest.raises(
        OntologyError, match=r"prompt 'red red .*' is 8 tokens long, but this model reads at most 7 in one prompt"
    ):
        pack_captions(["cat", prompt], tiny_tokenizer, limit=10)
    with pytest.raises(OntologyError, match="is 8 tokens long, but this model reads at most 5"):
        pack_captions([prompt], tiny_tokenizer, limit=256, prompt_limit=5)
    assert pack_captions([prompt], tiny_tokenizer, limit=11)[0].prompts == (0,)


def test_pack_captions__prompts_without_meaning_are_logged(
    tiny_tokenizer: BertTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (caption,) = pack_captions(["cat", "\u0301", "中", " . "], tiny_tokenizer)
    assert caption.prompts == (0, 2)
    assert "prompt '\u0301' has no token" in caplog.text
    assert "prompt ' . ' has no token" in caplog.text
    assert "prompt '中' is unknown to this model's vocabulary" in caplog.text
    assert pack_captions(["\u0301"], tiny_tokenizer) == pack_captions([], tiny_tokenizer) == ()


def test_pack_captions__a_dot_inside_a_prompt_is_no_token_of_it(tiny_tokenizer: BertTokenizerFast) -> None:
    (caption,) = pack_captions(["red. cat", "dog"], tiny_tokenizer)
    assert [len(span) for span in caption.spans] == [2, 1]


@pytest.mark.shared
def test_pack_captions__real_vocabulary(shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "reference/groundingdino_official/bert")
    prompts = ["fire extinguisher", "potted plant", "t-shirt", "café", "wine glass's stem", "hair drier", "片"]
    (caption,) = pack_captions(prompts, tokenizer)
    assert list(caption.spans) == label_maps(caption)
    captions = pack_captions([f"{colour} number {n}" for n in range(100) for colour in ("red", "blue")], tokenizer)
    assert len(captions) == 4  # 200 prompts of three tokens and a dot: 800 tokens, 254 fit
    assert all(list(caption.spans) == label_maps(caption) for caption in captions)


CAPTION = Caption("fire extinguisher . cat .", tuple(range(8)), (0, 1), (((1,), (2, 3)), ((5,),)))


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def scores(probabilities: list[float], mode: str) -> list[float]:
    row = [logit(0.99), *map(logit, probabilities[:3]), logit(0.99), logit(probabilities[3]), logit(0.99), -np.inf]
    return span_scores(np.array([row], np.float32), CAPTION, mode)[0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "mode", "expected"),
    [
        ([0.9, 0.3, 0.6, 0.2], "mean", [0.6, 0.2]),  # [CLS], the dots and the other prompt's tokens count for nothing
        ([0.9, 0.3, 0.6, 0.2], "max", [0.9, 0.2]),
        ([0.9, 0.1, 0.6, 0.2], "gate", [0.9, 0.2]),  # each word has a token above 0.25: one sub-word is enough
        ([0.9, 0.1, 0.2, 0.2], "gate", [0.2, 0.2]),  # "fire" alone is no fire extinguisher
    ],
)
def test_span_scores(probabilities: list[float], mode: str, expected: list[float]) -> None:
    assert scores(probabilities, mode) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mode", ["mean", "max", "gate"])
def test_span_scores__extremes_are_probabilities(mode: str) -> None:
    logits = np.array([[-np.inf] * 8, [np.inf] * 8, [np.nan] * 8, [-1e30] * 8, [1e30] * 8], np.float32)
    result = span_scores(logits, CAPTION, mode)  # type: ignore[arg-type]
    assert result.dtype == np.float32
    assert result.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0], [1, 1]]


@MANY
@given(prompts=PROMPTS, seed=st.integers(0, 2**16))
def test_span_scores__mean_equals_the_official_positive_map(
    tiny_tokenizer: BertTokenizerFast, prompts: list[str], seed: int
) -> None:
    for caption in pack_captions(prompts, tiny_tokenizer, 200):
        logits = np.random.default_rng(seed).normal(0, 4, (3, len(caption.input_ids))).astype(np.float32)
        maps = np.zeros((len(caption.prompts), len(caption.input_ids)))
        for row, span in enumerate(label_maps(caption)):
            maps[row, list(span)] = 1 / len(span)
        expected = 1 / (1 + np.exp(-logits.astype(np.float64))) @ maps.T
        mean, best = span_scores(logits, caption, "mean"), span_scores(logits, caption, "max")
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        gate = span_scores(logits, caption, "gate", 0.25)
        assert ((gate == best) | (gate <= mean)).all()
        np.testing.assert_array_equal(span_scores(logits, caption, "gate", 0), best)
