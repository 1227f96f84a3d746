"""The fakes and the painted folders, which tests of this package and of plugins are made of."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.testing import FakeDetector, paint_folder


def test_the_fake_detector_logs_and_can_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGS_FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("AGS_FAKE_SECONDS", "0.05")
    images = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 1)]
    started = time.perf_counter()
    FakeDetector().detect(images, ["x"])
    assert time.perf_counter() - started >= 0.15
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == 3
    assert lines[0] == lines[2] != lines[1]


def test_painted_folders_are_the_same_each_time(tmp_path: Path) -> None:
    scenes = paint_folder(tmp_path / "a", 2, seed=3)
    paint_folder(tmp_path / "b", 2, seed=3)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["scene_0000.png", "scene_0001.png"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert len(scenes) == 2
