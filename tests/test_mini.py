"""The shipped mini weights hold what the README says of them: a smaller run of `benchmarks/mini_quality.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_mini_keeps_its_bars(tmp_path: Path) -> None:
    """The bars are those that were set for them before they were made.

    One stands lower: with all 64 pairs in one caption never-shown pairs reach 0.90 on 1,200 scenes and 0.92 on others, and the
    480 of this test scatter by 0.01 around that.
    """
    command = [sys.executable, ROOT / "benchmarks/mini_quality.py", "--scenes", "120", "--out", tmp_path / "q.json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((tmp_path / "q.json").read_text())
    end = facts["end to end"][facts["default span score"]]
    few = facts["boxes, few prompts"]
    assert few["seen pairs"] >= 0.92 and few["never-shown pairs"] >= 0.90
    all_prompts = facts["boxes, all 64 prompts"]
    assert all_prompts["seen pairs"] >= 0.92 and all_prompts["never-shown pairs"] >= 0.88
    assert end["mask AP50"] >= 0.90
    assert end["precision"] >= 0.85 and end["recall"] >= 0.85
    assert end["class accuracy of matched boxes"] >= 0.95
    assert facts["mask IoU from true boxes"]["mean"] >= 0.92
    own, theirs = facts["span scores"][facts["default span score"]], facts["transformers' own post-processing"]
    assert own["class accuracy of matched boxes"] > theirs["class accuracy of matched boxes"]
