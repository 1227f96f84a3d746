"""What holds for any candidates and any settings of the whole chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide, decide_many
from autodistill_grounded_sam.masks import areas, boxes_xyxy, decode_mask, encode_mask
from autodistill_grounded_sam.types import REASONS, Candidates, Labels, State
from tests.decide.chain_kit import (
    DUPLICATE,
    HEIGHT,
    HERD,
    KEPT,
    MASK,
    NEGATIVE,
    SIZE,
    THRESHOLD,
    WIDTH,
    decided,
    limited,
    random_candidates,
    reasons,
)

ANY = st.builds(random_candidates, st.integers(0, 2**32), st.integers(0, 16), st.booleans())
CONFIGS = st.builds(
    DecideConfig,
    box_threshold=st.sampled_from([0.0, 0.2, 0.35, 0.6]),
    duplicate_iou=st.sampled_from([0.3, 0.7, 1.0]),
    duplicate_containment=st.sampled_from([0.5, 0.85, 1.0]),
    herd_members=st.integers(2, 4),
    box_from=st.sampled_from(["mask", "detector"]),
)
LIMITED = limited(min_size_px=20.0, max_area_fraction=0.4)


def test_candidates_are_left_as_they_were() -> None:
    seen = random_candidates(3, 20)
    before = seen.xyxy.copy(), seen.scores.copy(), seen.rle
    decided(seen)
    np.testing.assert_array_equal(seen.xyxy, before[0])
    np.testing.assert_array_equal(seen.scores, before[1])
    assert seen.rle == before[2]


@settings(max_examples=80, deadline=None)
@given(seen=ANY, config=CONFIGS)
def test_every_candidate_has_one_verdict(seen: Candidates, config: DecideConfig) -> None:
    labels = decide(seen, LIMITED, config, WIDTH, HEIGHT)
    assert len(labels.reasons) == len(labels.rival) == len(seen)
    assert sorted(labels.candidate.tolist()) == [i for i, reason in enumerate(reasons(labels)) if reason is KEPT]
    assert (labels.state is State.LABELLED) == (len(labels) > 0)
    order = labels.score.tolist()
    assert order == sorted(order, reverse=True)
    best = seen.scores[:, :3].max(axis=1)
    np.testing.assert_array_equal(labels.score, best[labels.candidate])
    for i, (reason, rival) in enumerate(zip(reasons(labels), labels.rival.tolist(), strict=True)):
        assert (reason is DUPLICATE) == (rival >= 0)
        if rival >= 0:
            assert best[rival] >= best[i]
            assert reasons(labels)[rival] in (KEPT, HERD, DUPLICATE)


@settings(max_examples=80, deadline=None)
@given(seen=ANY, config=CONFIGS)
def test_labels_fit_their_image_and_their_masks(seen: Candidates, config: DecideConfig) -> None:
    labels = decide(seen, LIMITED, config, WIDTH, HEIGHT)
    assert (labels.xyxy[:, :2] >= 0).all()
    assert (labels.xyxy[:, 2:] <= [WIDTH, HEIGHT]).all()
    assert (labels.xyxy[:, 2:] > labels.xyxy[:, :2]).all()
    assert (labels.rle is None) == (seen.rle is None)
    if labels.rle is not None:
        assert (areas(labels.rle) > 0).all()
        if config.box_from == "mask":
            np.testing.assert_array_equal(labels.xyxy, boxes_xyxy(labels.rle))


@settings(max_examples=50, deadline=None)
@given(seen=ANY, config=CONFIGS, seed=st.integers(0, 2**32))
def test_the_order_of_the_candidates_does_not_matter(seen: Candidates, config: DecideConfig, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(seen))
    first, second = (decide(s, LIMITED, config, WIDTH, HEIGHT) for s in (seen, seen.select(order)))
    np.testing.assert_array_equal(first.candidate, order[second.candidate])
    np.testing.assert_array_equal(first.reasons[order], second.reasons)
    np.testing.assert_array_equal(first.rival[order], np.where(second.rival < 0, -1, order[second.rival]) if len(order) else [])
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    assert first.rle == second.rle


@settings(max_examples=50, deadline=None)
@given(seen=ANY, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_higher_threshold_adds_nothing_that_the_lower_refused_for_its_score(
    seen: Candidates, thresholds: tuple[float, float]
) -> None:
    low, high = (decided(seen, LIMITED, box_threshold=t, text_threshold=0.0) for t in sorted(thresholds))
    refused = [np.isin(labels.reasons, [REASONS.index(NEGATIVE), REASONS.index(THRESHOLD)]) for labels in (low, high)]
    assert not (refused[0] & ~refused[1]).any()
    judged_by_shape = [np.isin(labels.reasons, [REASONS.index(MASK), REASONS.index(SIZE)]) for labels in (low, high)]
    np.testing.assert_array_equal(judged_by_shape[0][~refused[1]], judged_by_shape[1][~refused[1]])


@settings(max_examples=50, deadline=None)
@given(seen=ANY)
def test_labels_decided_again_stay(seen: Candidates) -> None:
    """What stands is no duplicate of anything that stands."""
    labels = decided(seen, herd_members=100)
    again = decided(seen.select(labels.candidate), herd_members=100)
    np.testing.assert_array_equal(again.candidate, np.arange(len(labels)))


@settings(max_examples=50, deadline=None)
@given(
    several=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 12), st.sampled_from([(120, 90), (33, 70)])), max_size=5),
    masks=st.booleans(),
    config=CONFIGS,
)
def test_many_images_are_decided_as_each_alone(
    several: list[tuple[int, int, tuple[int, int]]], masks: bool, config: DecideConfig
) -> None:
    images = []
    for number, (seed, count, (width, height)) in enumerate(several):
        seen = random_candidates(seed, count, masks or number % 2 == 1)  # runs with and without masks need not be kept apart
        if seen.rle is not None:
            seen = replace(seen, rle=tuple(encode_mask(decode_mask(code)[:height, :width]) for code in seen.rle))
        images.append((seen, width, height))
    for (seen, width, height), labels in zip(images, decide_many(images, LIMITED, config), strict=True):
        assert_same(labels, decide(seen, LIMITED, config, width, height))


def assert_same(first: Labels, second: Labels) -> None:
    assert (first.state, first.rle) == (second.state, second.rle)
    for name in ("class_id", "score", "margin", "xyxy", "candidate", "reasons", "rival"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
