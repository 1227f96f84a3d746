"""Planted damage in painted scenes, found through the command line by predictions of a model that never saw the labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autodistill_grounded_sam.checking import FILE
from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset
from benchmarks.check_damage import damaged, figures
from tests.cli_kit import tool

TOOL = Path(sys.executable).with_name("grounded-sam")
NAMES = ["red circle", "blue square", "green star"]
PAIRS = tuple((name.split()[0], name.split()[1]) for name in NAMES)
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(2, 4), pairs=PAIRS)


@pytest.mark.slow
def test_label_and_let_the_run_judge_the_labels_of_people(tmp_path: Path) -> None:
    truth = paint_dataset(tmp_path, 40, SETTINGS, 83_000, NAMES)
    content, damage = damaged(json.loads(truth.read_text()), seed=1)
    labels = tmp_path / "damaged.json"
    labels.write_text(json.dumps(content))
    ontology = json.dumps({name: name for name in NAMES})
    tool("label", tmp_path / "images", "--ontology", ontology, "--detector", "mini", "--segmenter", "mini", "--device", "cpu",
         "--offline", "--out", tmp_path / "labelled")  # fmt: skip
    told = tool("check", labels, "--predictions", tmp_path / "labelled", "--out", tmp_path / "checked")
    assert told["labels"] == len(content["annotations"])
    lines = [json.loads(line) for line in (tmp_path / "checked" / FILE).read_text().splitlines()]
    assert lines[: len(told["first"])] == told["first"]
    assert figures(lines, damage, told["labels"])["in first k"]["all"] >= 0.8
    untouched = tool("check", truth, "--predictions", tmp_path / "labelled", "--out", tmp_path / "untouched")
    assert sum(untouched["likely"].values()) < sum(told["likely"].values())


@pytest.mark.slow
def test_folds_learn_judge_and_are_not_done_again(tmp_path: Path) -> None:
    truth = paint_dataset(tmp_path / "set", 12, SETTINGS, 84_000, NAMES)
    words = ("check", truth, "--steps", 8, "--device", "cpu", "--offline", "--out", tmp_path / "checked")
    told = tool(*words)
    assert told["images"] == 12
    folds = sorted((tmp_path / "checked" / "folds").glob("*/fold-*/predictions.json"))
    assert [file.parent.name for file in folds] == ["fold-0", "fold-1"]
    seen = [{Path(image["file_name"]).name for image in json.loads(file.read_text())["images"]} for file in folds]
    learnt = [json.loads((file.parent / "learnt.json").read_text()) for file in folds]
    for mine, others in zip(seen, learnt, strict=True):
        assert not mine & {Path(image["file_name"]).name for image in others["images"]}
    times = [file.stat().st_mtime_ns for file in folds]
    assert tool(*words) == told
    assert [file.stat().st_mtime_ns for file in folds] == times
    again = tool("check", truth, "--predictions", tmp_path / "checked" / "predictions.json", "--out", tmp_path / "again")
    assert (again["first"], again["all_of"]) == (told["first"], told["all_of"])


@pytest.mark.slow
def test_a_student_judges_too(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    truth = paint_dataset(tmp_path / "set", 8, SETTINGS, 85_000, NAMES)
    words = ("check", truth, "--student", "yolov8n.yaml", "--epochs", 1, "--side", 64, "--device", "cpu", "--offline")
    command = [TOOL, *map(str, words), "--out", tmp_path / "checked", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["images"] == 8
    assert len(list((tmp_path / "checked" / "folds").glob("*/fold-*/predictions.json"))) == 2
