"""The shipped mini weights hold what the README says of them: the figures of `benchmarks/mini_quality.py` on fewer scenes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.painting import FRESH_SETTINGS, paint_scene
from benchmarks import mini_quality

SCENES = 120


@pytest.mark.slow
def test_mini_keeps_its_bars() -> None:
    """The bars are those that were set for them before they were made.

    One stands lower: with all 64 pairs in one caption never-shown pairs reach 0.90 on 1,200 scenes and 0.92 on others, and the
    480 of this test scatter by 0.01 around that.
    """
    scenes, default = [paint_scene(FRESH_SETTINGS, mini_quality.SEED + k) for k in range(SCENES)], SeeConfig().span_score
    few = mini_quality.few_prompts(SCENES)
    assert few["seen pairs"] >= 0.92 and few["never-shown pairs"] >= 0.90
    all_prompts = mini_quality.all_prompts(4 * SCENES)
    assert all_prompts["seen pairs"] >= 0.92 and all_prompts["never-shown pairs"] >= 0.88
    end = mini_quality.end_to_end(SCENES, default)
    assert end["mask AP50"] >= 0.90
    assert end["precision"] >= 0.85 and end["recall"] >= 0.85
    assert end["class accuracy of matched boxes"] >= 0.95
    assert mini_quality.masks_from_true_boxes(scenes)["mean"] >= 0.92
    own, theirs = mini_quality.named_rightly(scenes, default), mini_quality.named_by_transformers(scenes)
    assert own["class accuracy of matched boxes"] > theirs["class accuracy of matched boxes"]


@pytest.mark.slow
def test_the_benchmark_tells_all_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mini_quality.py", "--scenes", "2", "--out", str(tmp_path / "q.json")])
    mini_quality.main()
    facts = json.loads((tmp_path / "q.json").read_text())
    modes = {"mean", "max", "gate"}
    assert set(facts["end to end"]) == set(facts["span scores"]) == set(facts["false alarms an image"]) == modes
    assert facts["scenes"] == 2 and facts["boxes, all 64 prompts"]["scenes"] == 8
    assert facts["transformers' own post-processing"]["recall"] > 0
