"""SegInW from the command line: the table, its JSON, other words, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam import cli
from tests.seginw_kit import NAMES, paint_tree

MODELS = ("--segmenter", "autodistill_grounded_sam.testing:FakeSegmenter", "--device", "cpu")
SOME = [word for name in NAMES for word in ("--dataset", name)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return paint_tree(tmp_path / "seginw")


def test_the_table_and_its_json(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(*words: object) -> Any:
        monkeypatch.setattr(sys, "argv", ["grounded-sam", "benchmark", "seginw", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    asked = ("--root", tree, "--detector", "tests.seginw_kit:Spots", *MODELS, "--out", tmp_path / "out")
    code, said, _ = say(*asked, *SOME)
    assert code == 0
    head, *lines, mean, note = said.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert mean.startswith("mean of 3 of 25") and "B+HQ-SAM2" in head
    assert note.startswith("note: COCOeval never finds an annotation with id 0")
    code, said, _ = say(*asked, *SOME, "--prompts", "names", "--prompts", "better", "--json")
    assert code == 0
    facts = json.loads(said)
    assert [row["prompts"] for row in facts["rows"]] == ["names", "better"]
    assert facts["rows"][0]["per_dataset"]["Hand"]["images"] == 4
    assert facts["detector"]["name"].startswith("tests.seginw_kit:Spots")
    assert "Hand has no class 'Hand-Segmentation', 'hand': words for it were not used" in facts["rows"][1]["notes"]
    code, said, _ = say(*asked, *SOME, "--fuse", "autodistill_grounded_sam.testing:FakeDetector", "--json")
    alone, fused = json.loads(said)["rows"]
    assert "+" in json.loads(said)["fused"]["detector"]["name"]
    assert code == 0 and (alone, fused["prompts"]) == (facts["rows"][0], "names fused")
    _, said, _ = say(*asked[:3], f"{asked[3]}+autodistill_grounded_sam.testing:FakeDetector", *asked[4:], *SOME, "--json")
    (joined,) = json.loads(said)["rows"]
    assert joined["mean"] == fused["mean"] != alone["mean"]
    code, _, why = say("--root", tree, "--segmenter", "detector", "--detector", "mini", *SOME)
    assert code == 2 and "SegInW's protocol cuts out the boxes with a segmenter" in why
    code, _, why = say(*asked)
    assert code == 2 and "lacks 22 of 25 datasets" in why
    code, _, why = say(*asked, "--dataset", "Hands")
    assert code == 2 and "SegInW has no dataset 'Hands'" in why


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_goes_on(tree: Path, tmp_path: Path) -> None:
    log = tmp_path / "looked_at"
    command = [
        sys.executable, "-m", "autodistill_grounded_sam.cli", "benchmark", "seginw", "--root", tree, "--out", tmp_path / "out",
        "--detector", "autodistill_grounded_sam.testing:FakeDetector", *MODELS, *SOME, "--json",
    ]  # fmt: skip
    slowly = {**os.environ, "AGS_FAKE_LOG": str(log), "AGS_FAKE_SECONDS": "0.3"}
    started = subprocess.Popen(command, env=slowly, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while started.poll() is None and (not log.exists() or len(log.read_text().split()) < 6):
        time.sleep(0.05)
    started.kill()
    assert started.wait() == -signal.SIGKILL, started.communicate()
    before = log.read_text().split()
    done = subprocess.run(command, env={**slowly, "AGS_FAKE_SECONDS": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["datasets"] == 3
    again = log.read_text().split()[len(before) :]
    assert len(set(before) | set(again)) == 12
    assert len(set(before) & set(again)) <= 1, "only the image that the kill fell on is looked at twice"
