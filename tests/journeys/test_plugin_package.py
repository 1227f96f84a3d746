"""A third party's package, from its folder to a dataset: installed into a fresh environment, tested and used there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from autodistill_grounded_sam.testing import paint_folder

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "plugin"
ONTOLOGY = '{"red thing": "ball", "blue thing": "box"}'
MODELS = ("--detector", "sample-colour", "--segmenter", "sample-colour", "--device", "cpu")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the python of a new environment, which sees this checkout and what it needs, and where the sample is installed."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)  # it sees this one's pip
    python = next(path for path in (folder / "env").rglob("python*") if path.name in ("python", "python.exe"))
    site = next((folder / "env").rglob("site-packages"))
    (site / "needed.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    shutil.copytree(SAMPLE, folder / "plugin", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run(
            [python, *map(str, words)], capture_output=True, text=True, cwd=folder, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", folder / "plugin")
    shutil.rmtree(folder / "plugin" / "build", ignore_errors=True)
    (folder / "plugin" / "sample_plugin.py").unlink()  # what is used below is what was installed
    return run


@pytest.mark.slow
def test_the_samples_own_tests_pass_where_it_is_installed(fresh: Run) -> None:
    assert "3 passed" in fresh("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "plugin/test_sample_plugin.py")


@pytest.mark.slow
def test_label_decide_and_export_with_what_it_adds(fresh: Run, tmp_path: Path) -> None:
    def say(*words: object) -> dict[str, object]:
        return json.loads(fresh("-m", "autodistill_grounded_sam.cli", *words, "--json"))

    rows = say("plugins")["plugins"]
    added = {(row["role"], row["name"]): row for row in rows if row["from"] == "grounded-sam-sample-plugin"}
    assert set(added) == {("detectors", "sample-colour"), ("segmenters", "sample-colour"), ("formats", "sample-csv")}
    assert all(row["problem"] is None and row["licence"] == "Apache-2.0" for row in added.values())

    scenes = paint_folder(tmp_path / "images", 8, seed=40)
    out = tmp_path / "out"
    told = say("label", tmp_path / "images", "--ontology", ONTOLOGY, *MODELS, "--format", "sample-csv", "--out", out)
    with (out / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    assert told["labels"] == len(labels) > 0
    assert {row["class"] for row in labels} == {"ball", "box"}
    reds = [item.xyxy for item in scenes[0].objects if item.colour == "red"]
    found = [row for row in labels if row["image"] == "scene_0000.png" and row["class"] == "ball"]
    assert len(found) >= len(reds) > 0, "the first scene holds something red, and the sample finds red"

    fewer = say("decide", out, "--box-threshold", 0.7, "--format", "sample-csv")
    assert 0 < fewer["labels"] < told["labels"]
    assert say("export", out, "--format", "yolo-seg", "--out", tmp_path / "yolo")["labels"] == fewer["labels"]
