"""A few labelled images, new words: adapt, label with the result, measure; and a kill on the way that leaves no trace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodistill_grounded_sam.painting import PainterSettings, paint_dataset
from autodistill_grounded_sam.weights import find_weights
from tests.cli_kit import tool

# What is painted, and the word for it that `mini` never read; the class names of the truth are the words of the trade.
PAINTED, WORDS = ["green ring", "purple star", "yellow heart"], ["sprocket", "widget", "gadget"]
ONTOLOGY = json.dumps({word: word.upper() for word in WORDS})
PAIRS = tuple((name.split()[0], name.split()[1]) for name in PAINTED)
SETTINGS = PainterSettings(256, 192, objects=(2, 5), size=(0.14, 0.4), pairs=PAIRS, backgrounds=("waves", "stripes"))
SAVE_EVERY_STEP = (
    "import autodistill_grounded_sam.adapt.training as t; t.SAVE_SECONDS = 0.0; "
    "from autodistill_grounded_sam.cli import main; main()"
)
MINI = ("--device", "cpu", "--offline")


def scenes(folder: Path, count: int, seed: int) -> Path:
    """Painted scenes whose truth names the objects as the trade does; returns the json."""
    truth = paint_dataset(folder, count, SETTINGS, seed, PAINTED)
    content = json.loads(truth.read_text())
    content["categories"] = [{"id": number, "name": word.upper()} for number, word in enumerate(WORDS, 1)]
    truth.write_text(json.dumps(content))
    return truth


def adapt(folder: Path, out: Path, steps: int) -> list[str]:
    return [
        "adapt", "--images", str(folder / "images"), "--annotations", str(folder / "truth.json"),
        "--ontology", ONTOLOGY, "--detector", "mini", "--out", str(out), "--steps", str(steps), *MINI,
    ]  # fmt: skip


@pytest.mark.slow
def test_new_words_are_found_after_adapting(tmp_path: Path) -> None:
    scenes(tmp_path / "labelled", 20, 500)
    truth = scenes(tmp_path / "others", 24, 900)
    told = tool(*adapt(tmp_path / "labelled", tmp_path / "weights", 240))
    assert told["held_out"] == 4 and told["figures"]["AP50"] > told["figures_before"]["AP50"] + 0.3
    figures = {}
    for name, detector in (("before", "mini"), ("after", tmp_path / "weights")):
        dataset = tmp_path / name
        tool(
            "label", tmp_path / "others/images", "--ontology", ONTOLOGY, "--detector", detector, "--segmenter", "mini",
            "--box-threshold", "0.2", "--out", dataset, *MINI,
        )  # fmt: skip
        figures[name] = tool("evaluate", dataset, "--truth", truth)["box"]["AP50"]
    assert figures["before"] < 0.1
    assert figures["after"] > 0.75


@pytest.mark.slow
def test_a_killed_adaptation_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    scenes(tmp_path / "labelled", 8, 500)
    command = [sys.executable, "-c", SAVE_EVERY_STEP, *adapt(tmp_path / "labelled", tmp_path / "killed", 24)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    state = tmp_path / "killed/unfinished/state.pt"
    deadline = time.monotonic() + 300
    while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert state.is_file() and not (tmp_path / "killed/adapted.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    tool(*adapt(tmp_path / "labelled", tmp_path / "undisturbed", 24))
    killed, undisturbed = (find_weights(str(tmp_path / name), "detector") for name in ("killed", "undisturbed"))
    assert killed.identity == undisturbed.identity
    assert not (tmp_path / "killed/unfinished").exists()
