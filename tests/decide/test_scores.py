"""From prompts to a class: the best prompt counts, negatives compete, thresholds hold at their very value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.scores import require_prompts, score_classes
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import Candidates, Float32

TWO = Ontology(
    (ClassSpec("bottle", ("a bottle", "plastic bottle")), ClassSpec("can", ("tin can",))),
    negatives=("glass jar", "vase"),
)


def rows(*scores: list[float]) -> Float32:
    return np.array(scores, np.float32)


def test_the_best_prompt_of_a_class_counts() -> None:
    scored = score_classes(rows([0.2, 0.6, 0.5, 0, 0], [0.6, 0.2, 0.5, 0, 0], [0.1, 0.2, 0.5, 0.3, 0.4]), TWO)
    assert scored.class_id.tolist() == [0, 0, 1]
    np.testing.assert_allclose(scored.score, [0.6, 0.6, 0.5])
    np.testing.assert_allclose(
        scored.margin, [0.1, 0.1, 0.1], rtol=1e-6
    )  # over the other class, over the other class, over a negative
    np.testing.assert_allclose(scored.negative, [0, 0, 0.4])
    assert (scored.class_id.dtype, scored.score.dtype, scored.margin.dtype) == (np.int32, np.float32, np.float32)


def test_prompts_of_a_class_do_not_take_margin_from_one_another() -> None:
    assert score_classes(rows([0.6, 0.59, 0, 0, 0]), TWO).margin.tolist() == [np.float32(0.6)]


def test_a_negative_wins_only_if_it_scores_higher_than_every_class() -> None:
    scored = score_classes(rows([0.3, 0, 0.5, 0.4, 0.51], [0, 0, 0.5, 0.5, 0], [0.6, 0, 0.1, 0.5, 0]), TWO)
    assert scored.beaten_by_negative().tolist() == [True, False, False]
    np.testing.assert_allclose(scored.margin, [-0.01, 0, 0.1], atol=1e-6)


def test_of_equal_classes_the_first_named_is_taken_at_a_margin_of_0() -> None:
    scored = score_classes(rows([0.5, 0.1, 0.5, 0, 0]), TWO)
    assert (scored.class_id.tolist(), scored.margin.tolist()) == ([0], [0])


def test_one_class_alone_has_its_score_as_margin() -> None:
    scored = score_classes(rows([0.4], [0]), Ontology.from_dict({"cat": "cat"}))
    assert scored.margin.tolist() == scored.score.tolist() == [np.float32(0.4), 0]


def test_prompts_of_a_class_need_not_stand_together() -> None:
    ontology = Ontology.from_dict({"cat": "animal", "car": "vehicle", "dog": "animal", "bus": "vehicle"})
    scores = rows(*np.random.default_rng(0).random((50, len(ontology.prompts))).tolist())
    scored = score_classes(scores, ontology)
    by_class = np.stack([scores[:, ontology.prompt_class == own].max(axis=1) for own in range(2)], axis=1)
    np.testing.assert_array_equal(scored.class_id, by_class.argmax(axis=1))
    np.testing.assert_array_equal(scored.score, by_class.max(axis=1))


def test_no_candidates() -> None:
    scored = score_classes(np.zeros((0, 5), np.float32), TWO)
    assert scored.class_id.shape == scored.margin.shape == scored.beaten_by_negative().shape == (0,)
    assert scored.below_threshold(TWO, DecideConfig()).shape == (0,)


def test_scores_of_other_prompts_are_refused() -> None:
    with pytest.raises(RecordError, match=r"hold scores of 4 prompts, the ontology asks 5; .*the very prompts"):
        require_prompts([Candidates.none(5), Candidates.none(4)], TWO)


def low(score: float, margin_to: float = 0.0, *, threshold: float | None = None, **settings: float) -> bool:
    ontology = Ontology((ClassSpec("cat", ("cat",), box_threshold=threshold), ClassSpec("dog", ("dog",))))
    scored = score_classes(rows([score, margin_to]), ontology)
    return bool(scored.below_threshold(ontology, DecideConfig(**settings))[0])


@pytest.mark.parametrize(
    ("score", "settings", "dropped"),
    [
        (0.35, {}, False),  # a threshold is reached at its very value, in float32 too
        (0.3499, {}, True),
        (0.3, {"box_threshold": 0.3}, False),
        (0.3, {"box_threshold": 0.2, "text_threshold": 0.4}, True),  # both must be reached
        (0.3, {"box_threshold": 0.4, "text_threshold": 0.2}, True),
        (0.4, {"box_threshold": 0.4, "text_threshold": 0.4}, False),
        (0.3, {"threshold": 0.3}, False),  # a class's own comes first, lower ...
        (0.3, {"threshold": 0.2, "box_threshold": 0.9, "text_threshold": 0.9}, False),  # ... alone, without the text's
        (0.6, {"threshold": 0.7, "box_threshold": 0.1}, True),  # ... or higher
        (0.0, {"threshold": 0.0}, False),
    ],
)
def test_thresholds(score: float, settings: dict[str, float], dropped: bool) -> None:
    assert low(score, **settings) is dropped


def test_the_threshold_of_another_class_does_not_count() -> None:
    ontology = Ontology((ClassSpec("cat", ("cat",), box_threshold=0.9), ClassSpec("dog", ("dog",), box_threshold=0.1)))
    scored = score_classes(rows([0.5, 0.0], [0.0, 0.5]), ontology)
    assert scored.below_threshold(ontology, DecideConfig()).tolist() == [True, False]


def test_min_margin() -> None:
    assert low(0.75, 0.5, min_margin=0.25) is False
    assert low(0.75, 0.5, min_margin=0.26) is True
    assert low(0.75, 0.75) is False  # 0 asks for nothing
    assert low(0.75, 0.74, threshold=0.1, min_margin=0.1) is True  # a class's own threshold does not lift it


SCORES = st.lists(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(drawn=SCORES)
def test_scores_are_those_of_a_plain_loop(drawn: list[list[float]]) -> None:
    scored = score_classes(rows(*drawn), TWO)
    for i, (a, b, can, jar, vase) in enumerate(drawn):
        bottle, negative = max(a, b), max(jar, vase)
        best, other = (0, can) if bottle >= can else (1, bottle)
        assert scored.class_id[i] == best
        assert scored.score[i] == max(bottle, can)
        assert scored.negative[i] == negative
        assert scored.margin[i] == np.float32(scored.score[i]) - np.float32(max(other, negative))


@settings(max_examples=100, deadline=None)
@given(drawn=SCORES, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_higher_threshold_never_lets_more_pass(drawn: list[list[float]], thresholds: tuple[float, float]) -> None:
    scored = score_classes(rows(*drawn), TWO)

    def passed(threshold: float) -> npt.NDArray[np.bool_]:
        return ~scored.below_threshold(TWO, DecideConfig(box_threshold=threshold, text_threshold=0.0))

    assert not (passed(max(thresholds)) & ~passed(min(thresholds))).any()
