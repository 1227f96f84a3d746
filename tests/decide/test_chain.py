"""The whole chain: each step with its reason, rivals, order, what is refused, and what holds for any candidates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide, decide_many
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.masks import areas, boxes_xyxy, decode_mask, encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import REASONS, Candidates, Labels, Mask, Reason, Rle, State

WIDTH, HEIGHT = 120, 90
ONTOLOGY = Ontology(
    (ClassSpec("car", ("car",)), ClassSpec("truck", ("truck",)), ClassSpec("wheel", ("wheel",))),
    negatives=("shadow",),
    exclusive=(("car", "truck"),),
)
KEPT, NEGATIVE, THRESHOLD, MASK, DUPLICATE, HERD, SIZE = REASONS
Box = tuple[float, float, float, float]


def scores(name: str = "car", score: float = 0.8, **others: float) -> list[float]:
    return [({name: score} | others).get(prompt, 0.0) for prompt in ONTOLOGY.prompts]


def rectangle(box: Box) -> Mask:
    x1, y1, x2, y2 = (int(value) for value in box)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def candidates(*seen: tuple[Box, list[float]], masks: bool | Sequence[Mask] = True) -> Candidates:
    boxes = np.array([box for box, _ in seen], np.float32).reshape(-1, 4)
    table = np.array([row for _, row in seen], np.float32).reshape(-1, len(ONTOLOGY.prompts))
    if masks is False:
        return Candidates(boxes, table)
    drawn = [rectangle(box) for box, _ in seen] if masks is True else masks
    return Candidates(boxes, table, tuple(encode_mask(mask) for mask in drawn), np.ones(len(boxes), np.float32))


def decided(seen: Candidates, ontology: Ontology = ONTOLOGY, **config: Any) -> Labels:
    return decide(seen, ontology, DecideConfig(**config), WIDTH, HEIGHT)


def reasons(labels: Labels) -> list[Reason]:
    return [REASONS[code] for code in labels.reasons]


A, B, C = (5, 5, 35, 35), (45, 5, 75, 35), (85, 5, 115, 35)
both_kinds = pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])


@both_kinds
def test_labels_are_best_first_with_the_rows_they_come_from(masks: bool) -> None:
    seen = candidates((A, scores(score=0.5)), (B, scores("wheel", 0.9, shadow=0.4)), (C, scores(score=0.7)), masks=masks)
    labels = decided(seen)
    assert (labels.state, labels.candidate.tolist(), labels.class_id.tolist()) == (State.LABELLED, [1, 2, 0], [2, 0, 0])
    np.testing.assert_allclose(labels.score, [0.9, 0.7, 0.5])
    np.testing.assert_allclose(labels.margin, [0.5, 0.7, 0.5])
    assert labels.xyxy.tolist() == [list(B), list(C), list(A)]
    assert labels.rle == ((seen.rle[1], seen.rle[2], seen.rle[0]) if seen.rle is not None else None)
    assert reasons(labels) == [KEPT] * 3
    assert labels.rival.tolist() == [-1] * 3


@both_kinds
def test_equal_scores_stand_in_the_order_of_the_candidates(masks: bool) -> None:
    labels = decided(candidates((B, scores()), (A, scores()), (C, scores(score=0.9)), (A, scores()), masks=masks))
    assert labels.candidate.tolist() == [2, 0, 1]
    assert (reasons(labels)[3], labels.rival.tolist()) == (DUPLICATE, [-1, -1, -1, 1])


def test_many_equal_scores_stand_in_the_order_of_the_candidates() -> None:
    """Sorts that do not keep the order of equals keep it by chance where there are few."""
    boxes = [(float(x), float(y), x + 8.0, y + 8.0) for y in range(0, 81, 9) for x in range(0, 111, 9)]
    rows = [scores(score=(0.5, 0.6, 0.7)[place % 3]) for place in range(len(boxes))]
    order = decided(candidates(*zip(boxes, rows, strict=True), masks=False)).candidate.tolist()
    assert order == [place for rest in (2, 1, 0) for place in range(rest, len(boxes), 3)]


@both_kinds
def test_nothing_seen_is_empty(masks: bool) -> None:
    labels = decided(candidates(masks=masks))
    assert (labels.state, len(labels), len(labels.reasons)) == (State.EMPTY, 0, 0)
    assert labels.rle == (() if masks else None)
    assert decided(Candidates.none(4)).state is State.EMPTY


@both_kinds
def test_all_dropped_is_empty_with_the_reasons(masks: bool) -> None:
    labels = decided(candidates((A, scores(score=0.3)), (B, scores(score=0.6, shadow=0.7)), masks=masks))
    assert (labels.state, len(labels), reasons(labels)) == (State.EMPTY, 0, [THRESHOLD, NEGATIVE])
    assert labels.xyxy.shape == (0, 4)


def test_a_negative_is_named_before_a_threshold() -> None:
    assert reasons(decided(candidates((A, scores(score=0.1, shadow=0.2))))) == [NEGATIVE]


def test_min_margin_drops_for_the_threshold() -> None:
    seen = candidates((A, scores("car", 0.8, truck=0.7)), (B, scores("car", 0.8, truck=0.5)))
    assert reasons(decided(seen, min_margin=0.2)) == [THRESHOLD, KEPT]


def test_masks_are_cleaned_and_boxes_follow_them() -> None:
    mask = rectangle(A)
    mask[80, 100] = True  # a speck
    mask[20, 20] = False  # a pinhole
    seen = candidates(((0, 0, 119, 89), scores()), masks=[mask])
    labels = decided(seen)
    assert labels.rle is not None
    np.testing.assert_array_equal(decode_mask(labels.rle[0]), rectangle(A))
    assert labels.xyxy.tolist() == [list(A)]
    assert decided(seen, box_from="detector").xyxy.tolist() == [[0, 0, 119, 89]]
    untouched = decided(seen, island_fraction=0.0, hole_fraction=0.0)
    assert untouched.rle == seen.rle
    assert untouched.xyxy.tolist() == [[5, 5, 101, 81]]


@pytest.mark.parametrize("box_from", ["mask", "detector"])
def test_an_empty_mask_is_dropped_and_takes_nobody_with_it(box_from: str) -> None:
    seen = candidates((A, scores(score=0.9)), (A, scores(score=0.8)), masks=[np.zeros((HEIGHT, WIDTH), np.bool_), rectangle(A)])
    labels = decided(seen, box_from=box_from)
    assert reasons(labels) == [MASK, KEPT]
    assert labels.candidate.tolist() == [1]


@both_kinds
def test_duplicates_within_a_class_by_iou(masks: bool) -> None:
    near, far = (5, 5, 35, 34), (15, 5, 45, 35)  # IoU 0.97 and 0.5
    labels = decided(candidates((near, scores(score=0.6)), (A, scores(score=0.9)), (far, scores(score=0.5)), masks=masks))
    assert reasons(labels) == [DUPLICATE, KEPT, KEPT]
    assert labels.rival.tolist() == [1, -1, -1]
    seen = candidates((A, scores(score=0.9)), (far, scores(score=0.5)), masks=masks)
    assert reasons(decided(seen, duplicate_iou=0.5)) == [KEPT, DUPLICATE]
    assert reasons(decided(seen, duplicate_iou=0.51)) == [KEPT, KEPT]


@both_kinds
def test_duplicates_within_a_class_by_containment(masks: bool) -> None:
    part = (5, 5, 35, 20)  # half of A: IoU 0.5, containment 1
    for better, worse in ((A, part), (part, A)):
        labels = decided(candidates((better, scores(score=0.9)), (worse, scores(score=0.5)), masks=masks))
        assert reasons(labels) == [KEPT, DUPLICATE]
        assert labels.rival.tolist() == [-1, 0]
    juts_out = (5, 25, 35, 40)  # two thirds of it lie in A
    seen = candidates((A, scores(score=0.9)), (juts_out, scores(score=0.5)), masks=masks)
    assert reasons(decided(seen)) == [KEPT, KEPT]
    assert reasons(decided(seen, duplicate_containment=0.66)) == [KEPT, DUPLICATE]


def test_a_far_smaller_part_is_a_duplicate_by_its_mask_and_not_by_its_box() -> None:
    small = (10, 10, 20, 20)
    seen = (A, scores(score=0.9)), (small, scores(score=0.5))
    assert reasons(decided(candidates(*seen, masks=True))) == [KEPT, DUPLICATE]
    assert reasons(decided(candidates(*seen, masks=False))) == [KEPT, KEPT]
    better_small = (A, scores(score=0.5)), (small, scores(score=0.9))
    assert reasons(decided(candidates(*better_small, masks=True))) == [KEPT, KEPT]


@both_kinds
@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [("car", "truck", DUPLICATE), ("truck", "car", DUPLICATE), ("car", "wheel", KEPT), ("wheel", "truck", KEPT)],
)
def test_across_classes_only_exclusive_ones_are_duplicates(first: str, second: str, verdict: Reason, masks: bool) -> None:
    for inner in (A, (5, 5, 35, 20)):
        labels = decided(candidates((A, scores(first, 0.9)), (inner, scores(second, 0.8)), masks=masks))
        assert reasons(labels) == [KEPT, verdict]


def test_a_duplicate_of_a_duplicate_stays() -> None:
    """The middle one falls to the first, and so takes nobody with it."""
    chain = [((5 + shift, 5, 35 + shift, 35), scores(score=0.9 - shift / 100)) for shift in (0, 5, 10)]
    labels = decided(candidates(*chain))
    assert reasons(labels) == [KEPT, DUPLICATE, KEPT]


HERD_BOX, MEMBERS = (5, 5, 65, 25), [(5, 5, 20, 25), (25, 5, 40, 25), (45, 5, 60, 25)]


@both_kinds
@pytest.mark.parametrize("score", [0.4, 0.9])
def test_a_herd_goes_and_its_members_stay(score: float, masks: bool) -> None:
    seen = candidates((HERD_BOX, scores(score=score)), *[(member, scores(score=0.6)) for member in MEMBERS], masks=masks)
    labels = decided(seen)
    assert reasons(labels) == [HERD, KEPT, KEPT, KEPT]
    assert labels.rival.tolist() == [-1] * 4
    assert HERD not in reasons(decided(seen, herd_members=4))


def test_members_seen_twice_are_counted_once() -> None:
    twice = [(member, scores(score=0.6)) for member in MEMBERS[:2] * 2]
    labels = decided(candidates((HERD_BOX, scores(score=0.9)), *twice))
    assert reasons(labels) == [KEPT, *[DUPLICATE] * 4]  # two are too few: they are parts of the one


def test_members_of_another_class_make_no_herd() -> None:
    wheels = [(member, scores("wheel", 0.6)) for member in MEMBERS]
    assert reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *wheels))) == [KEPT] * 4
    trucks = [(member, scores("truck", 0.6)) for member in MEMBERS]  # exclusive, but not of its kind
    assert HERD not in reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *trucks)))


def test_what_fell_to_another_class_is_no_member() -> None:
    cars = [(member, scores("car", 0.5)) for member in MEMBERS]
    truck = (MEMBERS[0], scores("truck", 0.6))
    assert reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *cars)))[0] is HERD
    assert HERD not in reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *cars, truck)))


def test_who_lost_to_a_herd_names_it_all_the_same() -> None:
    again = (5, 5, 65, 24)
    seen = candidates((HERD_BOX, scores(score=0.9)), *[(m, scores(score=0.6)) for m in MEMBERS], (again, scores(score=0.5)))
    labels = decided(seen)
    assert reasons(labels) == [HERD, KEPT, KEPT, KEPT, DUPLICATE]
    assert labels.rival.tolist() == [-1, -1, -1, -1, 0]


def limited(**limits: float) -> Ontology:
    return replace(ONTOLOGY, classes=(ClassSpec("car", ("car",), **limits), *ONTOLOGY.classes[1:]))


@both_kinds
@pytest.mark.parametrize(
    ("limits", "dropped"),
    [
        ({"min_size_px": 10}, False),  # the shorter side is 10; bounds include their value
        ({"min_size_px": 10.5}, True),
        ({"max_size_px": 10}, False),
        ({"max_size_px": 9.5}, True),
        ({"min_area_fraction": 0.05}, False),  # 540 of 10,800 pixels
        ({"min_area_fraction": 0.0501}, True),
        ({"max_area_fraction": 0.05}, False),
        ({"max_area_fraction": 0.0499}, True),
        ({"min_size_px": 5, "max_size_px": 20, "min_area_fraction": 0.01, "max_area_fraction": 0.1}, False),
        ({"min_size_px": 20, "max_area_fraction": 0.1}, True),
        ({"min_size_px": 5, "max_area_fraction": 0.01}, True),
    ],
)
def test_size_limits(limits: dict[str, float], dropped: bool, masks: bool) -> None:
    box = (20, 20, 74, 30)
    labels = decided(candidates((box, scores()), (box, scores("wheel")), masks=masks), limited(**limits))
    assert reasons(labels) == [SIZE if dropped else KEPT, KEPT]  # a wheel has no limits


def test_size_is_that_of_the_label_s_box() -> None:
    seen = candidates(((0, 0, 100, 80), scores()), masks=[rectangle((10, 10, 18, 18))])
    assert reasons(decided(seen, limited(max_size_px=10))) == [KEPT]
    assert reasons(decided(seen, limited(max_size_px=10), box_from="detector")) == [SIZE]


@both_kinds
def test_what_is_too_large_takes_nobody_with_it(masks: bool) -> None:
    """A box around the whole picture scores best, is refused for its size, and must not count as a rival or a herd."""
    seen = candidates(((0, 0, 120, 90), scores(score=0.95)), ((0, 0, 110, 80), scores(score=0.6)), masks=masks)
    assert reasons(decided(seen, limited(max_area_fraction=0.9))) == [SIZE, KEPT]


def test_boxes_are_cut_to_the_image() -> None:
    labels = decided(candidates(((-20, -10, 30, 40), scores()), ((100, 60, 150, 100), scores(score=0.7)), masks=False))
    assert labels.xyxy.tolist() == [[0, 0, 30, 40], [100, 60, 120, 90]]
    with_mask = candidates(((-30, 0, 30, 40), scores()), masks=[rectangle((0, 0, 28, 40))])
    assert decided(with_mask, box_from="detector").xyxy.tolist() == [[0, 0, 30, 40]]


def test_boxes_that_jut_out_are_compared_by_what_is_in_the_image() -> None:
    out, again = (-60, 0, 30, 40), (-55, 0, 30, 40)
    assert reasons(decided(candidates((out, scores()), (again, scores(score=0.7)), masks=False))) == [KEPT, DUPLICATE]
    inside = (0, 0, 30, 38)  # two thirds of the first lie outside; what is left is the same box
    assert reasons(decided(candidates((out, scores()), (inside, scores(score=0.7)), masks=False))) == [KEPT, DUPLICATE]


@pytest.mark.parametrize("box", [(130, 10, 150, 30), (-20, 10, -5, 30), (10, 95, 30, 99), (10, 10, 10, 30), (10, 10, 30, 10)])
def test_a_box_of_no_area_is_no_label(box: Box) -> None:
    labels = decided(candidates((box, scores()), (A, scores(score=0.5)), masks=False))
    assert reasons(labels) == [SIZE, KEPT]
    by_mask = candidates((box, scores()), masks=[rectangle(A)])
    assert decided(by_mask).xyxy.tolist() == [list(A)]
    assert reasons(decided(by_mask, box_from="detector")) == [SIZE]


def test_a_mask_of_another_size_is_refused() -> None:
    turned = replace(candidates((A, scores())), rle=(encode_mask(rectangle(A).T),))
    with pytest.raises(RecordError, match=r"a mask of an image of 120x90 must have size \[90, 120\], got \[120, 90\]"):
        decided(turned)


def test_a_damaged_mask_is_refused_if_it_is_looked_at() -> None:
    whole = candidates((A, scores()), (B, scores(score=0.2)))
    assert whole.rle is not None
    damaged = Rle(size=[HEIGHT, WIDTH], counts=whole.rle[0]["counts"][:-1])
    with pytest.raises(RecordError, match="run-length code is damaged"):
        decided(replace(whole, rle=(damaged, whole.rle[1])))
    assert reasons(decided(replace(whole, rle=(whole.rle[0], damaged)))) == [KEPT, THRESHOLD]


def test_scores_of_other_prompts_are_refused() -> None:
    with pytest.raises(RecordError, match="the ontology asks 4"):
        decided(Candidates(np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)))


def test_candidates_are_left_as_they_were() -> None:
    seen = random_candidates(3, 20)
    before = seen.xyxy.copy(), seen.scores.copy(), seen.rle
    decided(seen)
    np.testing.assert_array_equal(seen.xyxy, before[0])
    np.testing.assert_array_equal(seen.scores, before[1])
    assert seen.rle == before[2]


def random_candidates(seed: int, count: int, masks: bool = True) -> Candidates:
    """Boxes on a coarse grid, so that many are equal, lie in one another or jut out; masks with specks and pinholes."""
    rng = np.random.default_rng(seed)
    low = rng.integers(-1, 6, (count, 2)) * 15
    boxes = np.concatenate([low, low + rng.integers(1, 6, (count, 2)) * 15], axis=1).astype(np.float32)
    table = rng.permutation(count * 4).reshape(count, 4) / max(4 * count, 1)  # no two alike
    drawn = [rectangle(tuple(np.clip(box, 0, [WIDTH, HEIGHT] * 2))) for box in boxes.tolist()]
    drawn = [np.asarray(mask ^ (rng.random(mask.shape) < 0.002)) for mask in drawn]
    seen = [(tuple(box), row) for box, row in zip(boxes.tolist(), table.tolist(), strict=True)]
    return candidates(*seen, masks=drawn if masks else False)


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


DECIDE_ALONE = """
import sys
import numpy as np
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates
square = encode_mask(np.tri(50, dtype=bool))
boxes, scores = np.full((3, 4), 50, np.float32), np.full((3, 1), 0.5, np.float32)
boxes[:, :2] = 0
labels = decide(Candidates(boxes, scores, (square,) * 3), Ontology.from_dict({"cat": "cat"}), DecideConfig(), 50, 50)
heavy = {"torch", "torchvision", "transformers", "ultralytics", "supervision", "autodistill", "cv2", "scipy", "pyarrow"}
print(len(labels), sorted(heavy & set(sys.modules)))
"""


def test_deciding_loads_numpy_and_pycocotools_alone() -> None:
    done = subprocess.run([sys.executable, "-c", DECIDE_ALONE], capture_output=True, text=True, check=False, cwd=Path.home())
    assert done.stdout == "1 []\n", done.stderr
