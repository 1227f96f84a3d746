"""The table of SegInW: means, intervals, and published columns of the same datasets."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from autodistill_grounded_sam.evaluate.seginw import PUBLISHED, Figures, SegInWRow, best_pairs
from autodistill_grounded_sam.evaluate.seginw_report import report_lines, report_to_json


def figures(ap: float, draws: list[float]) -> Figures:
    same = {"AP": ap, "AP50": ap, "AP75": ap}
    return Figures(same, same, draws)


ROW = SegInWRow(
    "names",
    {"Cows": figures(0.5, [0.4] * 100 + [0.6] * 100), "Poles": figures(0.3, [0.1] * 100 + [math.nan] * 100)},
    {"Cows": 60, "Poles": 5},
    ("a note",),
)


def test_mean_and_interval_are_over_the_datasets_that_were_run() -> None:
    facts = report_to_json([ROW])
    assert (facts["datasets"], facts["of"]) == (2, 25)
    mean = facts["rows"][0]["mean"]
    assert mean["mask"]["AP"] == pytest.approx(0.4)
    assert (mean["low"], mean["high"]) == (pytest.approx(0.25), pytest.approx(0.6)), "a sample without objects says nothing"
    assert facts["published"]["mean"]["B+H"] == pytest.approx((0.475 + 0.233) / 2)
    assert facts["rows"][0]["per_dataset"]["Poles"]["low"] == pytest.approx(0.1)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_dataset_without_objects_is_told_as_none() -> None:
    empty = SegInWRow("names", {"Cows": figures(math.nan, [math.nan] * 200)}, {"Cows": 1})
    facts = report_to_json([empty])["rows"][0]
    assert facts["per_dataset"]["Cows"] == {
        "images": 1, "mask": dict.fromkeys(("AP", "AP50", "AP75")), "box": dict.fromkeys(("AP", "AP50", "AP75")), "low": None,
        "high": None,
    }  # fmt: skip
    assert facts["mean"]["mask"]["AP"] is None and facts["mean"]["low"] is None


def test_lines_are_of_one_width_with_a_column_for_each_row_and_model() -> None:
    lines = list(report_lines([ROW, ROW._replace(prompts="better")]))
    assert len({len(line) for line in lines}) == 1
    head = "mask AP [95 %] images names box better box B+H L+H B+HQ-H B+SAM2 B+HQ-SAM2"
    assert " ".join(lines[0].split()) == head
    assert lines[1].split()[:6] == ["Cows", "60", "50.0", "[40.0,", "60.0]", "50.0"]
    assert lines[1].split()[-5:] == [str(value) for value in PUBLISHED["Cows"]]
    assert lines[-1].startswith("mean of 2 of 25 ")


def test_best_pairs__a_box_may_be_in_several() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.7]], np.float32)
    rows, classes = best_pairs(scores, 4)
    assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert [len(part) for part in best_pairs(np.zeros((0, 3), np.float32))] == [0, 0]
