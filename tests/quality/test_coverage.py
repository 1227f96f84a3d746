"""The promise of `quality` on scenes of known truth, labelled by the mini models: as benchmarks/quality_coverage.py does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_intervals_hold_and_the_queue_saves_clicks(tmp_path: Path) -> None:
    words = ["--scenes", "200", "--draws", "200", "--labelled", "20", "50", "--out", str(tmp_path / "found.json")]
    subprocess.run([sys.executable, "-m", "benchmarks.quality_coverage", *words], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    for labelled in (20, 50):
        figures = found[f"{labelled} labelled images"]
        for what in ("precision", "missed"):
            assert 0.85 <= figures[f"coverage of {what}, all"] <= 0.95
            # Of a class 20 images hold some ten objects and less than one error: intervals of so little hold more often.
            assert 0.85 <= figures[f"coverage of {what}, a class"] <= (0.98 if labelled == 20 else 0.95)
        assert (
            figures["log loss, trust"] < figures["log loss, isotonic of the score"] < figures["log loss, share of right labels"]
        )
        assert figures["lift of a queue by trust"] > 2
