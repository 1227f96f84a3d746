"""A folder is labelled in the background: progress is told, and stopping keeps what was looked at."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autodistill_grounded_sam.app.folder import FolderJob
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.testing import paint_folder
from tests.app.app_kit import CONFIG, SIZE, WORDS, playground

ONTOLOGY = Ontology.load(WORDS)


def start(job: FolderJob, folder: Path, out: Path) -> None:
    label = playground().material.label
    job.start(lambda own: label(folder, ONTOLOGY, out, CONFIG.see, DecideConfig(), ("coco",), own))


def test_a_folder_is_labelled_and_counted(tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 6, settings=SIZE)
    job = FolderJob()
    assert job.standing.phase == "idle"
    start(job, tmp_path / "images", tmp_path / "out")
    standing = job.wait(60)
    assert (standing.phase, standing.done, standing.images) == ("done", 6, 6)
    assert standing.summary.looked_at == 6 and standing.summary.labels == sum((standing.counts or {}).values()) > 0
    assert (tmp_path / "out/train/_annotations.coco.json").is_file()


def test_stopping_keeps_what_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_folder(tmp_path / "images", 24, settings=SIZE)
    monkeypatch.setenv("AGS_FAKE_SECONDS", "0.05")
    job = FolderJob()
    start(job, tmp_path / "images", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"a folder is being labelled already; stop it first"):
        start(job, tmp_path / "images", tmp_path / "other")
    while not job.standing.done:
        time.sleep(0.01)
    job.stop()
    assert job.standing.phase == "stopping"
    stopped = job.wait(60)
    assert stopped.phase == "stopped" and 0 < stopped.done < 24
    assert not (tmp_path / "out/train").exists()
    monkeypatch.setenv("AGS_FAKE_SECONDS", "0")
    start(job, tmp_path / "images", tmp_path / "out")
    assert 0 < job.wait(60).summary.looked_at < 24
    assert sum(job.standing.summary.images.values()) == 24


def test_a_fault_is_told_in_words(tmp_path: Path) -> None:
    job = FolderJob()
    start(job, tmp_path / "nowhere", tmp_path / "out")
    assert (job.wait(60).phase, "the image folder" in job.standing.message) == ("failed", True)
    assert "nowhere does not exist" in job.standing.message
    job.start(lambda _: 1 / 0)
    assert job.wait(60).message == "ZeroDivisionError: division by zero"
    job.stop()  # of nothing
    assert job.standing.phase == "failed"
