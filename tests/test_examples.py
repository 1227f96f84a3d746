"""Every example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodistill_grounded_sam.testing import paint_folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(script: str, *arguments: object) -> str:
    words = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_label_and_distill(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 16, seed=500)
    said = run("label_and_distill.py", tmp_path / "images", tmp_path / "out")
    assert "labelled 16 images with the classes ball, star, box" in said
    assert "started from random weights, architecture yolov8n-seg.yaml" in said


@pytest.mark.slow
def test_drop_in_for_autodistill(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 8, seed=500)
    said = run("drop_in_for_autodistill.py", tmp_path / "images", tmp_path / "images/scene_0000.png")
    assert "8 images labelled" in said
    assert (tmp_path / "images_labeled/data.yaml").is_file()
    assert list((tmp_path / "images_labeled").glob("*/labels/confidence-*.txt"))


@pytest.mark.slow
def test_demo_at_a_small_size(tmp_path: Path) -> None:
    said = run("demo.py", "--out", tmp_path / "demo", "--scenes", "12", "--epochs", "1")
    assert "teacher (mini) on 40 unseen scenes" in said
    assert "student (YOLOv8n) on the same 40" in said
    assert (tmp_path / "demo/contact_sheet.png").is_file()


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{script.name}"' in text for script in EXAMPLES.glob("*.py"))
