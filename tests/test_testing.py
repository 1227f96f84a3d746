"""The fakes keep the contract, and the checks find who does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.testing import FakeDetector, FakeSegmenter, check_detector, check_segmenter, paint_folder
from autodistill_grounded_sam.types import Candidates, RgbImage


def test_the_fakes_keep_the_contract() -> None:
    check_detector(FakeDetector())
    check_segmenter(FakeSegmenter())


class Detects(FakeDetector):
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        answers = super().detect(images, prompts)
        if self.fault == "short":
            return answers[1:]
        if self.fault == "tuple":
            return tuple(answers)  # type: ignore[return-value]
        if self.fault == "columns":
            return [replace(answer, scores=answer.scores[:, :1]) for answer in answers]
        if self.fault == "batch":
            return [replace(answer, scores=answer.scores / np.float32(len(images))) for answer in answers]
        if self.fault == "writes":
            for image in images:
                image[0, 0] = 0
        if self.fault == "empty" and not images:
            return [Candidates.none(len(prompts))]
        if self.fault == "boxes":
            return [answer.xyxy for answer in answers]  # type: ignore[misc]
        return answers


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("short", "detect must return one Candidates an image, in order: expected 3, got 2"),
        ("tuple", "detect must return a list, got tuple"),
        ("columns", "detect must give a score for each of the 3 prompts, got 1 columns"),
        ("batch", "detect must not depend on the batch: image 0 got another answer alone than with 2 others"),
        ("writes", "detect must not write into the images"),
        ("empty", "detect must give an empty list for an empty batch"),
        ("boxes", "detect must return Candidates, got ndarray"),
    ],
)
def test_a_detector_that_breaks_the_contract(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_detector(Detects(fault))


class Segments(FakeSegmenter):
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        answers = super().segment(images, candidates)
        if self.fault == "boxes":
            return [replace(answer, xyxy=answer.xyxy / 2) for answer in answers]
        if self.fault == "none":
            return [replace(answer, rle=None) for answer in answers]
        if self.fault == "size":
            return super().segment([image[:-1] for image in images], candidates)
        if self.fault == "batch" and len(images) == 1:
            return [replace(answer, rle=tuple(reversed(answer.rle or ()))) for answer in answers]
        return answers


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("boxes", "segment must leave boxes and scores as they came; it changed those of image 0"),
        ("none", "segment must fill rle and mask_score"),
        ("size", r"a mask must be of the image's size \[64, 96\] \(height, width\), got \[63, 96\]"),
        ("batch", "segment must not depend on the batch: image 0 got other masks alone"),
    ],
)
def test_a_segmenter_that_breaks_the_contract(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_segmenter(Segments(fault))


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
