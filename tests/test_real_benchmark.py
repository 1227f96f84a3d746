"""benchmarks/real.py in its quick form: every step of it runs on one set, and is not done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_table import page

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.shared
def test_the_quick_form_runs_and_goes_on_where_it_was(shared: Path, tmp_path: Path) -> None:
    def run(*more: str) -> str:
        command = ["-m", "benchmarks.real", "--quick", "--data", str(shared / "data"), "--cache", str(tmp_path / "cache")]
        done = subprocess.run([sys.executable, *command, *more], cwd=ROOT, check=True, capture_output=True, text=True)
        return done.stdout

    first = run("--json", str(tmp_path / "told.json"))
    (cell,) = json.loads((tmp_path / "told.json").read_text())
    assert cell["images"] == {"labelled": 10, "pool": 3, "test": 5}
    assert {name: student["images"] for name, student in cell["students"].items()} == {
        "a": 10, "b": 13, "c": cell["students"]["c"]["images"], "d": 13,
    }  # fmt: skip
    assert 10 <= cell["students"]["c"]["images"] <= 13
    for step in ("mini", "adapted", "tuned"):
        low, high = cell[step]["between"]["AP50"]
        assert 0 <= low <= cell[step]["AP50"] + 0.05
        assert high >= low
    assert "| fruits_nuts | 10 | 0 |" in first
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.json") if "says" in path.read_text()}
    assert len(written) == 8
    assert run("--out", str(tmp_path / "page.md")) == first
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert (tmp_path / "page.md").read_text() == first.rstrip("\n") + "\n"


def test_the_page_of_a_cell_without_students() -> None:
    """The labels are told, the column of the student on the N is empty, and there is no row of students."""
    figure = {"AP50": 0.5, "AP": 0.25, "between": {"AP50": [0.4, 0.6]}, "precision": 0.75, "recall": float("nan")}
    cell = {"set": "bccd", "shots": 20, "seed": 1, "mini": figure, "adapted": figure, "tuned": figure, "students": {}}
    shown = "0.500 (0.40–0.60)"
    (row,) = [line for line in page([cell]).splitlines() if line.startswith("| bccd")]
    assert row == f"| bccd | 20 | 1 | {shown} | {shown} | **{shown}** | 0.250 |  | 0.75 / - | 0.75 / - |"
