"""The worker: what it keeps of a detector's answer, and what becomes of images and memories that fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.engine.worker import SeeWorker, trim
from autodistill_grounded_sam.errors import ConfigError, PluginError
from autodistill_grounded_sam.loading import pick_device
from autodistill_grounded_sam.masks import areas, encode_mask
from autodistill_grounded_sam.testing import FakeDetector, FakeSegmenter, paint_folder
from autodistill_grounded_sam.types import Candidates, ImageRecord, RgbImage, Status

FAKE = "autodistill_grounded_sam.testing:"
PROMPTS = ("red circle", "blue square")


def spec(**see: Any) -> dict[str, Any]:
    config = SeeConfig(detector=f"{FAKE}FakeDetector", segmenter=f"{FAKE}FakeSegmenter", **see)
    return {"see": config.model_dump(), "device": "auto", "offline": True, "prompts": PROMPTS, "prompt_groups": []}


@pytest.fixture
def painted(tmp_path: Path) -> list[ImageRecord]:
    paint_folder(tmp_path, 6)
    paths = sorted(tmp_path.iterdir())
    return [ImageRecord(path.name, "", path.parent, *Image.open(path).size) for path in paths]


def candidates(rows: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]) -> Candidates:
    return Candidates(np.array(rows, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(len(rows), -1))


def test_boxes_are_clipped_sorted_merged_and_cut() -> None:
    seen = candidates(
        [[-5, 2, 4, 4], [0, 2, 4, 4], [20, 0, 30, 5], [3, 3, 3, 9], [1, 1, 2, 2], [5, 5, 6, 6]],
        [[0.2, 0.5], [0.4, 0.1], [0.9, 0.9], [0.9, 0.9], [0.8, 0.0], [0.05, 0.09]],
    )
    kept = trim(seen, 10, 8, floor=0.1, max_candidates=100)
    np.testing.assert_array_equal(kept.xyxy, np.array([[1, 1, 2, 2], [0, 2, 4, 4]], np.float32))
    np.testing.assert_array_equal(kept.scores, np.array([[0.8, 0.0], [0.4, 0.5]], np.float32))
    assert len(trim(seen, 10, 8, floor=0.1, max_candidates=1)) == 1


@given(order=st.permutations(range(6)), values=st.lists(st.sampled_from([0.2, 0.5]), min_size=6, max_size=6))
def test_the_order_of_what_is_kept_does_not_depend_on_the_detectors_order(order: list[int], values: list[float]) -> None:
    boxes = [[n % 3, n // 3, 5, 5] for n in range(6)]
    first = trim(candidates(boxes, [[value] for value in values]), 10, 10, 0.1, 4)
    second = trim(candidates([boxes[n] for n in order], [[values[n]] for n in order]), 10, 10, 0.1, 4)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert list(first.scores.max(1)) == sorted(first.scores.max(1), reverse=True)


def test_of_equal_boxes_the_surest_ones_mask_stays() -> None:
    masks = tuple({"size": [10, 10], "counts": name} for name in (b"a", b"b", b"c"))
    seen = candidates([(0, 0, 5, 5), (1, 1, 8, 8), (0, 0, 5, 5)], [[0.3, 0.4], [0.5, 0.0], [0.7, 0.1]])
    kept = trim(replace(seen, rle=masks, mask_score=np.array([0.1, 0.2, 0.3], np.float32)), 10, 10, 0.1, 4)
    assert kept.rle == (masks[2], masks[1]) and kept.mask_score.tolist() == pytest.approx([0.3, 0.2])
    np.testing.assert_array_equal(kept.scores, np.array([[0.7, 0.4], [0.5, 0.0]], np.float32))


def test_without_masks_a_detectors_own_are_left_out(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SeeWorker(spec(masks="none"))
    plain = worker(painted)

    class WithMasks:
        def detect(self, images: Any, prompts: Any) -> list[Candidates]:
            found = detector.detect(images, prompts)
            return [replace(one, rle=tuple(encode_mask(np.ones(images[0].shape[:2], bool)) for _ in one.xyxy)) for one in found]

    detector = worker._detector
    worker._detector = WithMasks()  # type: ignore[assignment]
    for first, second in zip(plain, worker(painted), strict=True):
        assert second.candidates is not None and second.candidates.rle is None
        np.testing.assert_array_equal(first.candidates.xyxy, second.candidates.xyxy)


def test_nothing_seen_stays_nothing() -> None:
    assert len(trim(Candidates.none(3), 10, 10, 0.1, 100)) == 0
    assert trim(Candidates.none(3), 10, 10, 0.1, 100).scores.shape == (0, 3)


def test_a_batch_is_seen_in_order_and_as_one_by_one(painted: list[ImageRecord]) -> None:
    worker = SeeWorker(spec())
    together = worker(painted)
    assert [sighting.image for sighting in together] == painted
    assert {sighting.status for sighting in together} == {Status.SEEN}
    for image, sighting in zip(painted, together, strict=True):
        (alone,) = worker([image])
        assert alone.candidates is not None and sighting.candidates is not None
        np.testing.assert_array_equal(alone.candidates.scores, sighting.candidates.scores)
        assert alone.candidates.rle == sighting.candidates.rle
        assert alone.dhash == sighting.dhash
        assert len(sighting.candidates.rle or ()) == len(sighting.candidates)
    assert set(worker.seconds) == {"decode", "detect", "segment"}


def test_broken_images_are_set_aside_and_the_others_seen(painted: list[ImageRecord], tmp_path: Path) -> None:
    painted[1].path.write_bytes(painted[1].path.read_bytes()[:500])
    painted[3].path.unlink()
    Image.new("RGB", (7, 9)).save(painted[4].path)
    sightings = SeeWorker(spec())(painted)
    assert [sighting.status for sighting in sightings] == [
        Status.FAILED if number in (1, 3, 4) else Status.SEEN for number in range(6)
    ]
    assert sightings[1].reason == "truncated"
    assert sightings[3].reason == "missing"
    assert (sightings[4].reason, sightings[4].detail) == ("changed", "was 256x192 when listed, is now 7x9")


def test_any_error_of_a_decoder_is_a_failed_image(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: ImageRecord, **settings: Any) -> RgbImage:
        raise IndexError("list index out of range")

    monkeypatch.setattr("autodistill_grounded_sam.engine.worker.read_image", broken)
    (sighting,) = SeeWorker(spec())(painted[:1])
    assert (sighting.reason, sighting.detail) == ("unreadable", "IndexError: list index out of range")


def test_without_masks_no_segmenter_is_built(painted: list[ImageRecord]) -> None:
    settings = spec(masks="none")
    settings["see"]["segmenter"] = "nowhere.to.be:Found"
    sightings = SeeWorker(settings)(painted)
    assert all(sighting.candidates is not None and sighting.candidates.rle is None for sighting in sightings)


def test_unwanted_candidates_get_an_empty_mask(painted: list[ImageRecord]) -> None:
    class FirstOnly(SeeWorker):
        def wanted(self, image: ImageRecord, candidates: Candidates) -> np.ndarray:
            return np.arange(len(candidates)) < 1

    some, all_ = FirstOnly(spec())(painted), SeeWorker(spec())(painted)
    assert max(len(sighting.candidates or ()) for sighting in some) > 1
    for first, second in zip(some, all_, strict=True):
        assert first.candidates is not None and second.candidates is not None
        np.testing.assert_array_equal(first.candidates.xyxy, second.candidates.xyxy)
        assert (first.candidates.rle or ())[:1] == (second.candidates.rle or ())[:1]
        assert not areas((first.candidates.rle or ())[1:]).any()


def test_an_image_without_boxes_never_meets_the_segmenter(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDetector, "detect", lambda self, images, prompts: [Candidates.none(len(prompts)) for _ in images])
    monkeypatch.setattr(FakeSegmenter, "segment", lambda self, images, candidates: 1 / 0)
    sightings = SeeWorker(spec())(painted)
    assert [sighting.candidates.rle for sighting in sightings if sighting.candidates is not None] == [()] * 6


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def test_an_image_too_large_even_alone_is_set_aside(
    painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, broken = FakeDetector._detect_one, FakeSegmenter._segment_one

    def too_large(self: FakeDetector, image: RgbImage, prompts: Sequence[str]) -> Candidates:
        if (image == first).all():
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)\nand more")
        return real(self, image, prompts)

    def segment_too_large(self: FakeSegmenter, image: RgbImage, found: Candidates) -> Candidates:
        if (image == second).all():
            raise OutOfMemoryError("no")
        return broken(self, image, found)

    first, second = (np.asarray(Image.open(painted[n].path)) for n in (0, 1))
    monkeypatch.setattr(FakeDetector, "_detect_one", too_large)
    monkeypatch.setattr(FakeSegmenter, "_segment_one", segment_too_large)
    sightings = SeeWorker(spec(floor=0.0))(painted)
    assert sightings[0].reason == "out_of_memory"
    assert sightings[0].detail == "does not fit in the memory of the device: MPS backend out of memory (MPS allocated: 8 GB)"
    assert {sighting.status for sighting in sightings[2:]} == {Status.SEEN}
    if sightings[1].candidates is None:
        assert sightings[1].reason == "out_of_memory"
    assert f"{painted[0].id} does not fit in the memory of the device and is set aside" in caplog.text


def test_out_of_memory_is_remembered_for_each_stage(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = SeeWorker(spec(floor=0.0))(painted)
    asked: dict[str, list[int]] = {"detect": [], "segment": []}
    detect, segment = FakeDetector.detect, FakeSegmenter.segment

    def small_detect(self: FakeDetector, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        asked["detect"].append(len(images))
        if len(images) > 2:
            raise OutOfMemoryError("no")
        return detect(self, images, prompts)

    def small_segment(self: FakeSegmenter, images: Sequence[RgbImage], found: Sequence[Candidates]) -> list[Candidates]:
        asked["segment"].append(len(images))
        if len(images) > 1:
            raise OutOfMemoryError("no")
        return segment(self, images, found)

    monkeypatch.setattr(FakeDetector, "detect", small_detect)
    monkeypatch.setattr(FakeSegmenter, "segment", small_segment)
    worker = SeeWorker(spec(floor=0.0))
    for _ in range(40):
        for sighting, same in zip(worker(painted), expected, strict=True):
            assert sighting.candidates is not None and same.candidates is not None
            np.testing.assert_array_equal(sighting.candidates.scores, same.candidates.scores)
            assert sighting.candidates.rle == same.candidates.rle
    assert [count for count in asked["detect"] if count > 2] == [6, 3]
    assert len([count for count in asked["segment"] if count > 1]) <= 3


def test_images_that_hit_the_cap_are_counted_and_told_once(painted: list[ImageRecord], caplog: pytest.LogCaptureFixture) -> None:
    free = SeeWorker(spec(floor=0.0))
    numbers = [len(sighting.candidates or ()) for sighting in free(painted)]
    assert free.capped == 0 and not caplog.records
    assert sorted(numbers)[-2] > 1, "two images at least must be over the cap"
    worker = SeeWorker(spec(floor=0.0, max_candidates=1))
    with caplog.at_level(logging.DEBUG, logger="autodistill_grounded_sam.engine.worker"):
        sightings = worker(painted)
    assert [len(sighting.candidates or ()) for sighting in sightings] == [min(number, 1) for number in numbers]
    over = [n for n, number in enumerate(numbers) if number > 1]
    assert worker.capped == len(over)
    assert [record.levelname for record in caplog.records] == ["WARNING"] + ["DEBUG"] * (len(over) - 1)
    for record, n in zip(caplog.records, over, strict=True):
        assert record.getMessage().startswith(
            f"{painted[n].id} has {numbers[n]} candidates above the floor of 0; max_candidates is 1, "
            f"so the {numbers[n] - 1} weakest are left out"
        )


def test_a_fault_of_a_model_goes_up(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDetector, "detect", lambda self, images, prompts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        SeeWorker(spec())(painted)


def test_a_model_that_answers_too_little_is_named(painted: list[ImageRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDetector, "detect", lambda self, images, prompts: [])
    with pytest.raises(PluginError, match="a model must answer one Candidates an image: expected 6, got 0"):
        SeeWorker(spec())(painted)
    monkeypatch.undo()
    monkeypatch.setattr(FakeSegmenter, "segment", lambda self, images, candidates: list(candidates))
    with pytest.raises(PluginError, match=r"must give each candidate a mask and a mask_score; it did not for 'scene_\d+.png'"):
        SeeWorker(spec(floor=0.0))(painted)


def test_a_device_that_is_named_is_taken_as_it_is() -> None:
    assert pick_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_told(device: str) -> None:
    settings = spec() | {"device": device}
    settings["see"]["segmenter"] = "mini"
    with pytest.raises(ConfigError, match=rf"device '{device}' cannot be used: .*; `grounded-sam doctor` lists"):
        SeeWorker(settings)


def test_plugins_alone_need_no_torch(painted: list[ImageRecord]) -> None:
    code = (
        "import sys; from autodistill_grounded_sam.engine.worker import SeeWorker; "
        f"SeeWorker({spec()!r}); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_guess_of_masks_reaches_the_segmenter(painted: list[ImageRecord]) -> None:
    settings = spec(mask_guess="hq-only")
    settings["see"]["segmenter"] = "mini"
    with pytest.raises(ConfigError, match="mask_guess 'hq-only' is of SAM-HQ, and mini is SAM"):
        SeeWorker(settings)
