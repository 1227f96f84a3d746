"""A user's whole story through the command line, with the mini models: words and images in, a measured student out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset

TOOL = Path(sys.executable).with_name("grounded-sam")
NAMES = ["red circle", "green star", "blue square", "yellow triangle"]
ONTOLOGY = json.dumps({name: name for name in NAMES})
MINI = ("--detector", "mini", "--segmenter", "mini", "--device", "cpu", "--offline")
FAKE = (
    "--detector", "autodistill_grounded_sam.testing:FakeDetector",
    "--segmenter", "autodistill_grounded_sam.testing:FakeSegmenter",
)  # fmt: skip
PAIRS = tuple((name.split()[0], name.split()[1]) for name in NAMES)
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(2, 4), pairs=PAIRS)


def tool(*words: object, code: int = 0) -> Any:
    """Run the console script in a process of its own; its JSON."""
    done = subprocess.run([str(TOOL), *map(str, words), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in ("run", "report.html")
    }


@pytest.mark.slow
def test_from_words_to_a_measured_student(tmp_path: Path) -> None:
    truth = paint_dataset(tmp_path / "scenes", 24, SETTINGS, 70_000, NAMES)
    dataset = tmp_path / "dataset"
    labelled = tool("label", tmp_path / "scenes/images", "--ontology", ONTOLOGY, *MINI, "--out", dataset)
    assert labelled["images"]["labelled"] + labelled["images"]["empty"] == 24
    quality = tool("evaluate", dataset, "--truth", truth)
    assert quality["mask"]["AP50"] > 0.8
    assert quality["operating_point"]["precision"] > 0.75
    assert quality["operating_point"]["recall"] > 0.75
    again = tool("decide", dataset, "--box-threshold", "0.9")
    assert again["labels"] < labelled["labels"]
    assert again["looked_at"] == 0
    assert tool("decide", dataset, "--box-threshold", "0.35")["labels"] == labelled["labels"]
    coco = tool("export", dataset, "--format", "coco", "--out", tmp_path / "coco")
    assert (coco["labels"], coco["round_trip_iou"]) == (labelled["labels"], 1.0)
    same = tool("evaluate", tmp_path / "coco", "--truth", truth)
    assert same["mask"]["AP50"] == pytest.approx(quality["mask"]["AP50"], abs=1e-6)
    trained = tool(
        "distill", dataset, "--target", "yolov8n-seg.yaml", "--epochs", 2, "--imgsz", 160, "--batch-size", 8, "--offline",
        "--device", "cpu", "--out", tmp_path / "student",
    )  # fmt: skip
    assert trained["started_from"] == "random weights, architecture yolov8n-seg.yaml"
    student = tool("evaluate", trained["weights"], "--truth", truth, "--images", tmp_path / "scenes/images")
    assert 0 <= student["box"]["AP50"] <= 1
    image = sorted((tmp_path / "scenes/images").iterdir())[0]
    seen = tool("predict", image, "--ontology", ONTOLOGY, *MINI, "--out", tmp_path / "p.png")
    assert Path(seen["picture"]).stat().st_size > 1000


def test_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    """Ctrl-C says how to go on; the same command then looks at what is left, and the dataset is that of an undisturbed run."""
    paint_dataset(tmp_path / "scenes", 16, SETTINGS, 71_000, NAMES)
    words = ["label", tmp_path / "scenes/images", "--ontology", ONTOLOGY, *FAKE, "--batch-size", 2, "--out"]
    log = tmp_path / "log"
    environment = {**os.environ, "AGS_FAKE_LOG": str(log), "AGS_FAKE_SECONDS": "0.3"}
    process = subprocess.Popen(
        [str(TOOL), *map(str, words), str(tmp_path / "out")], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not log.exists() or len(log.read_text().splitlines()) < 5:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "run the same command again to go on" in said
    seen = len(log.read_text().splitlines())
    assert seen < 16
    summary = tool(*words, tmp_path / "out")
    assert 0 < summary["looked_at"] <= 16 - seen + 4  # a batch that was under way, and the one decoded ahead
    tool(*words, tmp_path / "undisturbed")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_two_processes_on_one_run_folder(tmp_path: Path) -> None:
    paint_dataset(tmp_path / "scenes", 8, SETTINGS, 72_000, NAMES)
    words = ["label", tmp_path / "scenes/images", "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "out"]
    environment = {**os.environ, "AGS_FAKE_LOG": str(tmp_path / "log"), "AGS_FAKE_SECONDS": "1"}
    first = subprocess.Popen([str(TOOL), *map(str, words)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "log").exists():
            assert first.poll() is None
            time.sleep(0.02)
        second = subprocess.run([str(TOOL), *map(str, words)], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"is in use by process {first.pid}" in second.stderr
    finally:
        first.kill()
        first.communicate()
