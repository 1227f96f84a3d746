"""The whole chain: order, states, each step with its reason, sizes, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.masks import decode_mask, encode_mask
from autodistill_grounded_sam.types import Candidates, Rle, State
from tests.decide.chain_kit import (
    DUPLICATE,
    HEIGHT,
    KEPT,
    MASK,
    NEGATIVE,
    SIZE,
    THRESHOLD,
    WIDTH,
    A,
    B,
    Box,
    C,
    both_kinds,
    candidates,
    decided,
    limited,
    reasons,
    rectangle,
    scores,
)


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
