"""What `evaluate`, `predict` and `doctor` answer, on every kind of source, without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam import measuring, pipeline
from autodistill_grounded_sam.coco_datasets import COCO_FILE, read_coco
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.distill.prediction import StudentPrediction
from autodistill_grounded_sam.distill.students import load_student
from autodistill_grounded_sam.errors import ConfigError, DatasetError, ExportError, ImageReadError
from autodistill_grounded_sam.evaluate.report import evaluation_to_json
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.types import Evaluation
from autodistill_grounded_sam.weights import known_models

ONTOLOGY = {"red circle": "circle", "blue square": "square"}
CONFIG = LabelConfig(
    see=SeeConfig(
        detector="autodistill_grounded_sam.testing:FakeDetector", segmenter="autodistill_grounded_sam.testing:FakeSegmenter"
    ),
    run=RunConfig(batch_size=3, device="cpu"),
    decide=DecideConfig(),
    export=ExportConfig(formats=("yolo-seg", "coco")),
)


class Labelled:
    """A folder that the fake models labelled, with one broken image, and a reference that is what they found."""

    def __init__(self, home: Path) -> None:
        self.images, self.out = home / "images", home / "out"
        paint_folder(self.images / "cam1", 5, settings=PainterSettings(width=96, height=72))
        (self.images / "broken.png").write_bytes(b"not an image")
        pipeline.label(self.images, ONTOLOGY, self.out, CONFIG)
        self.truth = home / "truth.json"
        self.truth.write_text(json.dumps(self.reference()))

    def reference(self) -> dict[str, Any]:
        """COCO json of the labels; file names are paths below the images folder; the broken image is in it too."""
        _, labelled = pipeline.decided_labels(self.out)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, labels in labelled:
            images.append({"id": len(images) + 1, "file_name": image.id, "width": image.width, "height": image.height})
            for class_id, (x1, y1, x2, y2), rle in zip(
                labels.class_id.tolist(), labels.xyxy.tolist(), labels.rle or (), strict=True
            ):
                row = {"id": len(annotations) + 1, "image_id": len(images), "category_id": class_id + 1, "iscrowd": 0}
                annotations.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": dict(rle)})
        images.append({"id": 99, "file_name": "broken.png", "width": 96, "height": 72})
        annotations.append(
            {"id": 999, "image_id": 99, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
        )
        categories = [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}]
        return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return Labelled(tmp_path_factory.mktemp("labelled"))


def figures(found: Evaluation) -> list[float]:
    return [found.box["AP"], found.operating_point["precision"], found.operating_point["recall"]]


# --- evaluate


@pytest.mark.parametrize("folder", [".", "run"])
def test_evaluate__a_run(labelled: Labelled, folder: str) -> None:
    found = measuring.evaluate(labelled.out / folder, labelled.truth)
    assert figures(found) == pytest.approx([1, 1, 1])
    assert found.mask == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    assert any("could not be read by the run and are left out: 'broken.png'" in note for note in found.notes)
    assert any("whatever the thresholds dropped counts as missed" in note for note in found.notes)


def test_evaluate__a_run_needs_no_images(labelled: Labelled, tmp_path: Path) -> None:
    shutil.copytree(labelled.out / "run", tmp_path / "run")
    assert figures(measuring.evaluate(tmp_path, labelled.truth, images=tmp_path / "moved")) == pytest.approx([1, 1, 1])


def test_evaluate__the_labels_are_those_decided_last(labelled: Labelled, tmp_path: Path) -> None:
    shutil.copytree(labelled.out / "run", tmp_path / "run")
    pipeline.redecide(tmp_path, DecideConfig(box_threshold=1.0, text_threshold=1.0))
    found = measuring.evaluate(tmp_path, labelled.truth)
    assert figures(found)[0] == 0
    assert found.operating_point["recall"] == 0


def exported(labelled: Labelled, folder: Path, format_: str) -> Path:
    """A dataset that left its run behind."""
    pipeline.export_run(labelled.out, format_, folder)
    return folder


@pytest.mark.parametrize("file", ["", "data.yaml"])
def test_evaluate__a_yolo_dataset(labelled: Labelled, tmp_path: Path, file: str) -> None:
    dataset = exported(labelled, tmp_path / "yolo", "yolo-seg")
    found = measuring.evaluate(dataset / file, labelled.truth)
    assert found.box["AP50"] > 0.9  # no scores and polygons: near, not equal
    assert found.operating_point["f1"] > 0.9
    assert found.mask is not None
    assert any("labels without scores" in note for note in found.notes)
    assert any("were not labelled, their objects count as missed: 'broken.png'" in note for note in found.notes)


@pytest.mark.parametrize("split", ["", "train"])
def test_evaluate__a_coco_dataset(labelled: Labelled, tmp_path: Path, split: str) -> None:
    dataset = exported(labelled, tmp_path / "coco", "coco")
    found = measuring.evaluate(dataset / split / COCO_FILE if split else dataset, labelled.truth)
    assert found.operating_point["precision"] == 1
    if not split:  # only the broken image's object is missed
        assert found.operating_point["recall"] == 1 - 1 / sum(row["truth"] for row in found.per_class.values())


def test_evaluate__a_reference_against_itself(labelled: Labelled) -> None:
    assert figures(measuring.evaluate(labelled.truth, labelled.truth)) == pytest.approx([1, 1, 1])


def test_evaluate__the_command_repeats_it(labelled: Labelled, tmp_path: Path) -> None:
    truth = tmp_path / "my truth.json"
    truth.write_bytes(labelled.truth.read_bytes())
    assert measuring.evaluate(truth, truth).command == f"grounded-sam evaluate '{truth}' --truth '{truth}'"
    assert measuring.evaluate(labelled.out, truth, images=Path("here")).command.endswith("--images here")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda folder: folder / "nowhere",
            r"there is nothing at .*nowhere; expected a folder that `label` made, a YOLO",
        ),
        (lambda folder: folder, r"holds no labels; expected .* a COCO json, or a student's weights \(\.pt, \.onnx or a folder\)"),
        (lambda folder: _touched(folder / "labels.csv"), r"labels.csv holds no labels"),
    ],
)
def test_evaluate__a_source_that_is_none(labelled: Labelled, tmp_path: Path, make: Any, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        measuring.evaluate(make(tmp_path), labelled.truth)


def _touched(path: Path) -> Path:
    path.touch()
    return path


# --- a student


class FakeStudent:
    """Knows the reference by heart and answers with it, one object of each image below the operating confidence."""

    answers: Mapping[str, StudentPrediction]
    usual_confidence = 0.25

    def __init__(self, weights: Path) -> None:
        self.classes = ["square", "circle"]  # another order than the reference's
        self.seen: list[str] = []

    def predict(self, image_rgb: Any, *, confidence: float, name: str) -> StudentPrediction:
        assert confidence == 0.001
        assert image_rgb.shape == (72, 96, 3)
        return self.answers[name]


@pytest.fixture
def student(labelled: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Weights of a fake student and, beside them, a reference of the readable images."""
    reference = labelled.reference()
    reference["images"].pop()
    reference["annotations"].pop()
    (tmp_path / "truth.json").write_text(json.dumps(reference))
    answers = {}
    for row in read_coco(tmp_path / "truth.json"):
        names = [("circle", "square")[class_id] for class_id in row.class_id]
        scores = np.linspace(0.9, 0.1, len(names), dtype=np.float32)
        answers[row.name] = StudentPrediction(row.name, 96, 72, names, row.xyxy, list(row.rle or ()), scores)
    monkeypatch.setattr(FakeStudent, "answers", answers, raising=False)
    monkeypatch.setattr(measuring, "load_student", FakeStudent)
    yield _touched(tmp_path / "best.pt")


def test_evaluate__a_student(labelled: Labelled, student: Path) -> None:
    found = measuring.evaluate(student, student.with_name("truth.json"), images=labelled.images)
    assert found.box["AP"] == pytest.approx(1)
    assert found.mask == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})
    confident = sum(int((answer.scores >= 0.25).sum()) for answer in FakeStudent.answers.values())
    objects = sum(len(answer.scores) for answer in FakeStudent.answers.values())
    assert confident < objects
    assert found.operating_point["recall"] == pytest.approx(confident / objects)
    assert sum(row["labels"] for row in found.per_class.values()) == confident
    assert re.search(r"above confidence 0\.001; .* at confidence 0\.25, its kind's default", found.notes[0])


@pytest.mark.parametrize("place", ["images", "."])
def test_evaluate__a_student_finds_images_beside_the_reference(labelled: Labelled, student: Path, place: str) -> None:
    shutil.copytree(labelled.images, student.parent / place, dirs_exist_ok=True)
    found = measuring.evaluate(student, student.with_name("truth.json"))
    assert found.box["AP"] == pytest.approx(1)


def test_evaluate__a_student_of_boxes(labelled: Labelled, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = {name: answer._replace(rles=None) for name, answer in FakeStudent.answers.items()}
    monkeypatch.setattr(FakeStudent, "answers", boxes)
    found = measuring.evaluate(student, student.with_name("truth.json"), images=labelled.images)
    assert found.mask is None
    assert "mask AP is left out: the labels hold boxes only" in found.notes


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (None, r"5 image\(s\) of .*truth.json are not in .*images and beside .*, 'cam1/.*' for one; say where .* --images"),
        (Path("elsewhere"), r"are not in elsewhere, 'cam1/"),
    ],
)
def test_evaluate__a_student_without_images(student: Path, images: Path | None, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        measuring.evaluate(student, student.with_name("truth.json"), images=images)


@pytest.mark.slow
def test_evaluate__a_real_student(labelled: Labelled, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget

    monkeypatch.setattr(measuring, "load_student", load_student)
    dataset = exported(labelled, student.parent / "yolo", "yolo-seg")
    result = UltralyticsTarget("yolov8n-seg.yaml").train(
        dataset, out=student.parent / "student", epochs=1, imgsz=64, batch=2, device="cpu"
    )
    found = measuring.evaluate(result.weights, student.with_name("truth.json"), images=labelled.images)
    assert 0 <= found.box["AP"] <= 1
    assert json.dumps(evaluation_to_json(found), allow_nan=False)


# --- predict_picture


def test_predict_picture(labelled: Labelled, tmp_path: Path) -> None:
    image = sorted((labelled.images / "cam1").iterdir())[0]
    picture = tmp_path / "new" / "seen.png"
    found = measuring.predict_picture(image, ONTOLOGY, CONFIG, picture)
    _, rows = pipeline.decided_labels(labelled.out)
    labels = next(labels for record, labels in rows if record.path.name == image.name)
    assert [row["class"] for row in found] == [("circle", "square")[k] for k in labels.class_id]
    assert np.allclose([row["xyxy"] for row in found], labels.xyxy)
    assert np.allclose([(row["score"], row["margin"]) for row in found], np.stack([labels.score, labels.margin], axis=1))
    assert json.dumps(found)
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width % 96 == drawn.height % 72 == 0
        assert len(labels) == 0 or np.asarray(drawn).any()
    assert [path.name for path in picture.parent.iterdir()] == ["seen.png"]
    assert all(decode_mask(code).any() for code in labels.rle or ())


def test_predict_picture__an_image_that_cannot_be_read(labelled: Labelled, tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"not_an_image: .*broken.png"):
        measuring.predict_picture(labelled.images / "broken.png", ONTOLOGY, CONFIG, tmp_path / "seen.png")
    assert list(tmp_path.iterdir()) == []


def test_predict_picture__refusals(labelled: Labelled, tmp_path: Path) -> None:
    image = sorted((labelled.images / "cam1").iterdir())[0]
    before = image.read_bytes()
    with pytest.raises(ConfigError, match=r"must be a .png, got .*seen.jpg"):
        measuring.predict_picture(image, ONTOLOGY, CONFIG, tmp_path / "seen.jpg")
    with pytest.raises(ConfigError, match=r"would overwrite the image itself"):
        measuring.predict_picture(image, ONTOLOGY, CONFIG, image)
    assert image.read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"cannot write the picture .*file/seen.png"):
        measuring.predict_picture(image, ONTOLOGY, CONFIG, tmp_path / "file" / "seen.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ExportError, match=r"cannot write the picture .*taken.png"):
        measuring.predict_picture(image, ONTOLOGY, CONFIG, tmp_path / "taken.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.png"]


# --- examine


def test_examine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    import huggingface_hub.constants

    def no_network(*args: Any, **more: Any) -> None:
        raise AssertionError("doctor asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    facts = measuring.examine()
    assert list(facts) == ["machine", "devices", "packages", "weights"]
    assert json.loads(json.dumps(facts)) == facts
    assert list(facts["machine"]) == ["python", "platform", "cores", "memory", "free disk"]
    assert facts["machine"]["cores"] >= 1
    assert facts["devices"]["auto"] in ("cpu", "cuda", "mps")
    assert facts["packages"]["numpy"] == np.__version__
    assert len(facts["weights"]) == len(known_models())
    assert facts["weights"]["mini (detector)"].startswith("here: ")
    for model in known_models():
        told = facts["weights"][f"{model.name} ({model.role})"]
        assert told.startswith("here: ") or told == f"not here: `grounded-sam prefetch {model.name}` brings it ({model.size})"


def test_examine__what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "_version", lambda package: "")
    monkeypatch.setattr("autodistill_grounded_sam.weights._MINI", tmp_path)
    facts = measuring.examine()
    assert facts["packages"]["ultralytics"] == "missing: pip install 'autodistill-grounded-sam[yolo]'"
    assert facts["packages"]["torch"] == "missing: pip install autodistill-grounded-sam"
    assert re.match(r"not here: .* is not a whole segmenter: config.json, .* missing; .*", facts["weights"]["mini (segmenter)"])


FOR_MAINTAINERS = ("dev", "docs", "browser")


def test_examine__extras_are_those_of_setup() -> None:
    declared = {
        (re.split(r"[<>=\[]", line)[0], extra[1])
        for line in requires("autodistill-grounded-sam") or ()
        if (extra := re.search(r'extra == "(\w+)"', line)) and extra[1] not in FOR_MAINTAINERS
    }
    assert set(measuring._OF_EXTRAS.items()) == declared
