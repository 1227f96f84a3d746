"""The fakes and our own classes keep the contracts; whoever breaks one reads what was expected, what came, and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.export.coco import CocoWriter
from autodistill_grounded_sam.export.yolo import YoloBoxWriter, YoloSegWriter
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.testing import (
    FakeDetector,
    FakeSegmenter,
    check_detector,
    check_format,
    check_segmenter,
    check_tagger,
    check_target,
)
from autodistill_grounded_sam.types import Candidates, DatasetSummary, ImageRecord, Labels, RgbImage, Split, State, TrainResult


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
        if self.fault == "raises":
            return [replace(answer, scores=answer.scores.astype(np.float64)) for answer in answers]
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
        (
            "raises",
            "detect of 3 images must work, but raised RecordError: Candidates.scores must be float32 .* Images are uint8 RGB",
        ),
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
        if self.fault == "unrated":
            return [replace(answer, mask_score=np.full(len(answer), 3.5, np.float32)) for answer in answers]
        if self.fault == "bytes":
            codes = [[{**code, "counts": code["counts"].encode()} for code in answer.rle or ()] for answer in answers]
            return [replace(answer, rle=tuple(code)) for answer, code in zip(answers, codes, strict=True)]  # type: ignore[arg-type]
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
        ("none", "segment must fill rle and mask_score, also where there are no boxes; image 0 has none: give"),
        ("unrated", "mask_score is an estimate of the mask's IoU and must be in 0..1, got 0.0 to 3.5: clip it"),
        ("bytes", "the counts of a mask must be str, got bytes: masks.encode_mask gives them"),
        ("size", r"a mask must be of the image's size \[64, 96\] \(height, width\), got \[63, 96\]"),
        ("batch", "segment must not depend on the batch: image 0 got other masks alone"),
    ],
)
def test_a_segmenter_that_breaks_the_contract(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_segmenter(Segments(fault))


class Tags:
    """A tagger that keeps its contract, but for a fault: how bright an image is."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]:
        bright = [float(image.mean()) / 255 for image in images]
        answers = [[Tag("bright", value), Tag("dark", 1 - value)] for value in bright]
        faults: dict[str, Any] = {
            "flat": [Tag("bright", value) for value in bright],
            "words": [["bright"] for _ in images],
            "blank": [[Tag(" bright", value)] for value in bright],
            "logit": [[Tag("bright", 4.2)] for _ in images],
            "twice": [[*tags, tags[0]] for tags in answers],
            "batch": [[Tag("bright", value / len(images))] for value in bright],
        }
        return faults.get(self.fault, answers)


def test_a_tagger_that_keeps_the_contract() -> None:
    check_tagger(Tags())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("flat", "tag must give each image a list of Tag, got Tag for image 0"),
        (
            "words",
            r"tag must give Tag\(name, score\) of protocols, got 'bright' for image 0: build each as Tag\('milk bottle', 0.8\)",
        ),
        ("blank", r"got Tag\(name=' bright', score=.*: the name must be words, stripped"),
        ("logit", r"score=4.2\) for image 0: the score must be a probability in 0..1; a logit needs a sigmoid first"),
        ("twice", "tag must name a thing once an image, got bright twice for image 0: keep the best score"),
        ("batch", "tag must not depend on the batch: image 0 got other tags alone than with 2 others"),
    ],
)
def test_a_tagger_that_breaks_the_contract(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_tagger(Tags(fault))


class JsonWriter:
    """A format that keeps its contract, but for `fault`: one file with the labels of each image."""

    fault = ""

    def __init__(self, out: Path, class_names: Sequence[str], stems: Any, *, notes: Sequence[str] = ()) -> None:
        self.out, self.names, self.rows = out, class_names, {}  # type: ignore[var-annotated]
        self.count = {"train": 0, "valid": 0}

    def __enter__(self) -> JsonWriter:
        return self

    def write(self, image: ImageRecord, labels: Labels, split: Split) -> None:
        if self.fault == "draws":
            image.path.write_bytes(image.path.read_bytes() + b" ")
        if labels.state is not State.REVIEW or self.fault == "review":
            self.rows[image.id] = labels.class_id.tolist()
            self.count[split] += 1

    def finish(self) -> DatasetSummary:
        ids = [place for found in self.rows.values() for place in found]
        per_class = {name: ids.count(place) for place, name in enumerate(self.names)}
        empty = sum(not found for found in self.rows.values())
        return DatasetSummary("json", self.out, self.count, empty, len(ids) + (self.fault == "counts"), per_class)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is None or self.fault == "leaves":
            self.out.mkdir(parents=True, exist_ok=True)
            if self.fault != "nothing":
                (self.out / "labels.json").write_text(json.dumps(self.rows))
            if self.fault == "alone":
                (self.out / "run" / "run.json").unlink()
        return self.fault == "swallows"


@pytest.mark.parametrize("writer", [JsonWriter, YoloSegWriter, YoloBoxWriter, CocoWriter])
def test_formats_that_keep_the_contract(writer: Any, tmp_path: Path) -> None:
    check_format(writer, tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "review",
            r"DatasetSummary.images must be {'train': 2, 'valid': 1}, got {'train': 3, .*wait for review .* are not written",
        ),
        ("counts", "DatasetSummary.labels must be"),
        ("nothing", "a clean exit must leave the dataset in .*out, but nothing new is there"),
        ("alone", "what else is in the output folder must stay: .*run is gone or changed"),
        ("draws", "a format must not change the images in .*: copy them"),
        ("leaves", "an error in the with-block must leave nothing behind, got labels.json"),
        ("swallows", "__exit__ must let an error through"),
    ],
)
def test_a_format_that_breaks_the_contract(fault: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonWriter, "fault", fault)
    with pytest.raises(AssertionError, match=said):
        check_format(JsonWriter, tmp_path)


class Target:
    """A student that keeps its contract, but for a fault: it learns how many label files there are."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def train(self, dataset: Path, *, out: Path, epochs: int, device: str, **settings: Any) -> TrainResult:
        weights = (dataset if self.fault == "elsewhere" else out) / "student.json"
        if self.fault != "unsaved":
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_text(str(len(list(dataset.rglob("*.txt")))))
        if self.fault == "changes":
            (dataset / "data.yaml").unlink()
        figures = {"loss": float("inf") if self.fault == "infinite" else 0.5}
        return TrainResult(weights, "" if self.fault == "silent" else "nothing", figures, "train")


def test_a_target_that_keeps_the_contract(tmp_path: Path) -> None:
    check_target(Target(), tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unsaved", "train must name the file of the trained weights, got .*student.json'\\), and it is not there: save them"),
        ("elsewhere", "train must save its weights below out=.*student, got .*dataset/student.json"),
        ("changes", "train must not change the dataset, but data.yaml changed: work on a copy below out="),
        ("infinite", "TrainResult.figures must be finite numbers .* got {'loss': inf}"),
        ("silent", "TrainResult.started_from must say so in words, got ''"),
    ],
)
def test_a_target_that_breaks_the_contract(fault: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        check_target(Target(fault), tmp_path)


@pytest.mark.slow
def test_our_own_target_keeps_the_contract(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget

    check_target(UltralyticsTarget("yolov8n-seg.yaml"), tmp_path)


class Predicts:
    def predict(self) -> None: ...


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (
            check_detector,
            r"a Detector must have detect\(images: Sequence\[RgbImage\], prompts: .* Predicts has not \(its methods: predict\)",
        ),
        (check_segmenter, r"a Segmenter must have segment\(images"),
        (check_tagger, r"a Tagger must have tag\(images"),
        (
            lambda thing: check_target(thing, Path("unused")),
            r"a Target must have train\(dataset: Path, \*\*settings: Any\) -> TrainResult",
        ),
    ],
)
def test_missing_methods_are_named_with_their_form(check: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(Predicts())
    with pytest.raises(AssertionError, match=r"expected an instance, got the class Predicts: give Predicts\(\)"):
        check(Predicts)


def test_a_format_is_told_how_it_is_built_and_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"Writer\(out, class_names, stems, notes=\[\]\) must work, but raised TypeError"):
        check_format(Predicts, tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(
        AssertionError, match=r"a DatasetWriter must have write\(image: ImageRecord.* and finish\(\) -> DatasetSummary"
    ):
        check_format(lambda *_, **__: Predicts(), tmp_path / "b")  # type: ignore[arg-type, return-value]
