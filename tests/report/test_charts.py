"""Charts: marks where the numbers say, and text that is text."""

from __future__ import annotations

import re

import numpy as np
import pytest

from autodistill_grounded_sam.report import charts
from autodistill_grounded_sam.report.charts import Layer


def test_histogram__bars_are_as_high_as_their_counts_and_stand_on_one_another() -> None:
    drawn = charts.histogram(
        [Layer("kept", np.array([1, 0, 4])), Layer("low", np.array([1, 0, 0]))], (0, 1), "told", size=(302, 140)
    )
    kept, low = (re.findall(r"M([\d.]+) ([\d.]+)v-([\d.]+)", path) for path in re.findall(r'd="([^"]*)"', drawn)[:2])
    assert [float(height) for *_, height in kept] == [25.0, 100.0]
    assert low == [(kept[0][0], "95.0", "25.0")]
    assert ">4</text>" in drawn  # the largest


@pytest.mark.parametrize(("mark", "x"), [(0.0, 2.0), (0.35, 106.3), (1.0, 300.0)])
def test_histogram__the_threshold_stands_at_its_value(mark: float, x: float) -> None:
    drawn = charts.histogram([Layer("kept", np.ones(50))], (0, 1), "told", mark=mark, size=(302, 140))
    assert f'<line class="mark" x1="{x:.1f}"' in drawn


def test_empty_counts_draw_an_axis_and_no_bar() -> None:
    for drawn in (
        charts.histogram([Layer("kept", np.zeros(50))], (0, 1), "x"),
        charts.spark([Layer("kept", np.zeros(50))], "x", 0.3),
    ):
        assert 'class="axis"' in drawn and 'd=""' in drawn
    assert "heat" not in charts.where(np.zeros((4, 4)), "x", 1.0).replace('class="map"', "")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_interval__the_dot_is_whole_at_both_ends(value: float) -> None:
    drawn = charts.interval(value, value, value, "precision")
    centre, radius = (float(re.search(rf'{name}="([\d.]+)"', drawn)[1]) for name in ("cx", "r"))  # type: ignore[index]
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn)[1])  # type: ignore[index]
    assert radius <= centre <= width - radius


def test_labels_and_names_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    drawn = (
        charts.curves([(evil, [0.1, 0.5])], [1, 2], evil)
        + charts.interval(0.5, 0.4, 0.6, evil)
        + charts.where(np.eye(3), evil, 1.3)
    )
    assert "<script" not in drawn and "&lt;script&gt;" in drawn and '"">' not in drawn


def test_maps__the_first_row_is_the_top_of_the_image_and_the_bottom_of_the_sizes() -> None:
    grid = np.zeros((4, 4), np.int64)
    grid[0, 2] = 5
    assert 'class="heat6" d="M2 0h1v1h-1z"' in charts.where(grid, "x", 1.0)
    assert 'class="heat6" d="M2 3h1v1h-1z"' in charts.sizes(grid, "x", 2.0)
