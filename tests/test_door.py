"""The door: what code written for autodistill expects, with instant models; the published README snippet never changes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision as sv
from autodistill.detection import CaptionOntology, DetectionBaseModel
from autodistill.detection.detection_base_model import NmsSetting
from PIL import Image

import autodistill_grounded_sam.weights as weights
from autodistill_grounded_sam import GroundedSAM, YOLOv8
from autodistill_grounded_sam.config import DecideConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, OntologyError, WeightsError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.testing import paint_folder

ONTOLOGY = {"red circle": "ball", "orange circle": "ball", "blue square": "box"}
FAKE = {
    "detector": "autodistill_grounded_sam.testing:FakeDetector",
    "segmenter": "autodistill_grounded_sam.testing:FakeSegmenter",
}

# From the README of the published plugin (0.1.2). It is history and so never changes.
PUBLISHED_SNIPPET = """
from autodistill_grounded_sam import GroundedSAM
from autodistill.detection import CaptionOntology
from autodistill.utils import plot
import cv2

# define an ontology to map class names to our GroundedSAM prompt
# the ontology dictionary has the format {caption: class}
# where caption is the prompt sent to the base model, and class is the label that will
# be saved for that caption in the generated annotations
# then, load the model
base_model = GroundedSAM(
    ontology=CaptionOntology(
        {
            "person": "person",
            "shipping container": "shipping container",
        }
    )
)

# run inference on a single image
results = base_model.predict("logistics.jpeg")

plot(
    image=cv2.imread("logistics.jpeg"),
    classes=base_model.ontology.classes(),
    detections=results
)

# label all images in a folder called `context_images`
base_model.label("./context_images", extension=".jpeg")
"""


def door(ontology: Any = ONTOLOGY, **settings: Any) -> GroundedSAM:
    return GroundedSAM(ontology if not isinstance(ontology, dict) else CaptionOntology(ontology), **{**FAKE, **settings})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    paint_folder(tmp_path / "images", 12)
    return tmp_path / "images"


def test_published_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged code; only the hub is played: its two models are answered with the tiny ones of the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda *_, **__: None)
    asked = []

    def from_hub(name: str, role: str, offline: bool) -> Path:
        asked.append(name)
        return Path(weights.__file__).parent / "mini" / role

    monkeypatch.setattr(weights, "_from_hub", from_hub)
    paint_folder(tmp_path / "context_images", 4)
    for path in sorted((tmp_path / "context_images").glob("*.png")):
        Image.open(path).save(path.with_suffix(".jpeg"))
    Image.open(path).save(tmp_path / "logistics.jpeg")
    scope: dict[str, Any] = {}
    exec(PUBLISHED_SNIPPET, scope)
    assert set(asked) == {"IDEA-Research/grounding-dino-tiny", "facebook/sam-vit-huge"}
    assert isinstance(scope["results"], sv.Detections)
    assert scope["results"].mask is not None
    labelled = tmp_path / "context_images_labeled"
    assert (labelled / "data.yaml").is_file()
    assert len(list(labelled.glob("*/images/*.jpg"))) == 4  # the .png files were not asked for
    assert not list(labelled.glob("*/images/*.png"))


def test_signatures_are_those_of_autodistill() -> None:
    theirs = inspect.signature(DetectionBaseModel.label).parameters
    ours = inspect.signature(GroundedSAM.label).parameters
    assert list(ours) == list(theirs)
    assert {name: p.default for name, p in ours.items() if name != "extension"} == {
        name: p.default for name, p in theirs.items() if name != "extension"
    }
    assert list(inspect.signature(GroundedSAM).parameters)[:3] == ["ontology", "box_threshold", "text_threshold"]
    model = door(box_threshold=0.4)
    assert (model.box_threshold, model.text_threshold) == (0.4, 0.25)
    assert issubclass(GroundedSAM, DetectionBaseModel)
    assert len({model, door()}) == 2  # hashable, as autodistill's dataclass base is not


def test_predict_takes_path_bgr_array_and_pil(images: Path) -> None:
    path = images / "scene_0003.png"
    model = door(box_threshold=0.2)
    by_path = model.predict(str(path))
    assert len(by_path)
    assert by_path.mask.shape == (len(by_path), 192, 256)
    assert by_path.mask.dtype == np.bool_
    assert set(by_path.data["class_name"]) <= {"ball", "box"}
    for other in (path, cv2.imread(str(path)), Image.open(path)):
        found = model.predict(other)
        np.testing.assert_array_equal(found.xyxy, by_path.xyxy)
        np.testing.assert_array_equal(found.mask, by_path.mask)
    rgb = np.asarray(Image.open(path))  # RGB where BGR is expected is another picture, and gives another answer
    assert not np.array_equal(model.predict(rgb).xyxy, by_path.xyxy)
    with pytest.raises(ConfigError, match="an image must be a path, a BGR array or a PIL image, got int"):
        model.predict(3)


def test_predict_on_an_image_with_nothing_in_it(images: Path) -> None:
    found = door(box_threshold=1.0).predict(str(images / "scene_0000.png"))
    assert len(found) == 0
    assert found.mask.shape == (0, 192, 256)


def test_thresholds_may_be_set_between_calls(images: Path) -> None:
    model = door(box_threshold=0.1, text_threshold=0.1)
    many = len(model.predict(str(images / "scene_0003.png")))
    model.box_threshold = 0.7
    assert len(model.predict(str(images / "scene_0003.png"))) < many


def test_two_prompts_of_one_class_are_one_class(images: Path) -> None:
    model = door()
    assert model.ontology.classes() == ["ball", "box"]  # autodistill's own would be ball, ball, box
    assert model.ontology.prompts() == list(ONTOLOGY)
    assert model.ontology.promptToClass("orange circle") == "ball"
    dataset = model.label(str(images))
    assert dataset.classes == ["ball", "box"]
    plain = CaptionOntology({"red circle": "ball", "blue square": "box"})
    assert door(plain).ontology is plain
    assert door(Ontology.load("painted_shapes_small")).ontology.classes()[0] == "red circle"
    with pytest.raises(OntologyError):
        GroundedSAM("no_such_ontology")


def test_label_leaves_autodistills_layout_and_a_lazy_dataset(images: Path) -> None:
    dataset = door(box_threshold=0.2).label(str(images))
    out = images.with_name("images_labeled")
    assert {path.name for path in out.iterdir()} >= {"data.yaml", "train", "valid", "run"}
    assert isinstance(dataset, sv.DetectionDataset)
    assert len(dataset) == 12
    path, image, detections = dataset[0]
    assert image.shape == (192, 256, 3)
    assert detections.mask is None or detections.mask.shape[1:] == (192, 256)
    counts = [len(row) for _, _, row in dataset]
    assert sum(counts) == sum(len(file.read_text().splitlines()) for file in out.glob("*/labels/*.txt"))
    assert dataset.annotations[path].xyxy.shape == (counts[0], 4)
    with pytest.raises(KeyError):
        dataset.annotations["elsewhere.png"]


def test_lazy_dataset_works_with_supervision(images: Path, tmp_path: Path) -> None:
    dataset = door(box_threshold=0.2).label(str(images))
    dataset.as_coco(images_directory_path=str(tmp_path / "ci"), annotations_path=str(tmp_path / "coco.json"))
    assert (tmp_path / "coco.json").stat().st_size > 100
    first, second = dataset.split(split_ratio=0.5, random_state=1, shuffle=False)
    assert len(first) + len(second) == 12
    reread = sv.DetectionDataset.from_yolo(
        str(images.with_name("images_labeled") / "train/images"),
        str(images.with_name("images_labeled") / "train/labels"),
        str(images.with_name("images_labeled") / "data.yaml"),
    )
    assert reread.classes == dataset.classes


def test_extension_filters_in_any_case(images: Path) -> None:
    (images / "scene_0001.png").rename(images / "scene_0001.PNG")
    Image.open(images / "scene_0002.png").save(images / "other.jpg")
    assert len(door().label(str(images), extension=".png")) == 12
    assert len(door().label(str(images), extension="jpg", output_folder=str(images.with_name("jpg")))) == 1


def test_record_confidence(images: Path) -> None:
    door(box_threshold=0.2).label(str(images), record_confidence=True)
    out = images.with_name("images_labeled")
    labels = [file for file in out.glob("*/labels/*.txt") if not file.name.startswith("confidence-")]
    assert len(labels) == 12
    for file in labels:
        scores = [float(line) for line in file.with_name(f"confidence-{file.name}").read_text().split()]
        assert len(scores) == len(file.read_text().splitlines())
        assert all(0.2 <= score <= 1 for score in scores)


def test_nms_settings(images: Path) -> None:
    several = door(box_threshold=0.1, text_threshold=0.1)
    plain = several.label(str(images), output_folder=str(images.with_name("plain")))
    agnostic = several.label(str(images), output_folder=str(images.with_name("agnostic")), nms_settings=NmsSetting.CLASS_AGNOSTIC)
    assert sum(len(d) for *_, d in agnostic) <= sum(len(d) for *_, d in plain)


def test_sahi_looks_at_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 1300, 3), np.uint8)).save(tmp_path / "images/a.png")
    monkeypatch.setenv("AGS_FAKE_LOG", str(tmp_path / "log"))
    door().label(str(tmp_path / "images"), sahi=True)
    assert len((tmp_path / "log").read_text().splitlines()) == 1 + 3 * 2 + 2  # the whole picture, 3 x 2 tiles, two second looks
    (tmp_path / "log").unlink()
    door().label(str(tmp_path / "images"), output_folder=str(tmp_path / "out"))
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_config_and_keywords(images: Path) -> None:
    model = door(config=LabelConfig(see=SeeConfig(floor=0.2)), batch_size=2, device="cpu")
    assert (model.config.see.floor, model.config.run.batch_size) == (0.2, 2)
    with pytest.raises(ConfigError, match="box_threshold"):
        door(box_threshold=1.5)


def test_default_weights_offline_say_what_to_do(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    model = GroundedSAM(CaptionOntology(ONTOLOGY), offline=True)
    with pytest.raises(WeightsError, match=r"(?s)grounding-dino-tiny.*grounded-sam prefetch.*mini"):
        model.label(str(images))


def test_yolov8_is_a_target_model() -> None:
    from autodistill.detection import DetectionTargetModel

    assert issubclass(YOLOv8, DetectionTargetModel)
    assert list(inspect.signature(YOLOv8.train).parameters)[:3] == ["self", "dataset_yaml", "epochs"]


def test_config_is_kept_where_nothing_is_given_beside_it(images: Path) -> None:
    config = LabelConfig(
        see=SeeConfig(detector="mini", segmenter="mini"),
        run=RunConfig(device="cpu", batch_size=2, offline=True),
        decide=DecideConfig(box_threshold=0.2),
    )
    model = GroundedSAM(ONTOLOGY, config=config)
    assert model.config == config
    assert (model.box_threshold, model.text_threshold) == (0.2, 0.25)
    assert GroundedSAM(ONTOLOGY, 0.4, config=config).box_threshold == 0.4
    assert GroundedSAM(ONTOLOGY).config.see.segmenter == "facebook/sam-vit-huge"


def test_broken_images_are_told(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    (images / "broken.jpg").write_bytes(b"nothing")
    door().label(str(images))
    assert "set aside 1 of the images" in caplog.text
