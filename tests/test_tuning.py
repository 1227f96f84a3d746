"""`tune` on whole runs and folders, with instant models: what is looked at, written, refused, and how to go on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodistill_grounded_sam import cli, pipeline, trusting
from autodistill_grounded_sam.config import ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, DatasetError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.reviews import FILE, Review, append_reviews
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.tuning import tune, tuning_to_json
from autodistill_grounded_sam.types import ImageRecord, Labels

ONTOLOGY = {"red circle": "circle", "blue square": "square", "green star": "star"}
CONFIG = LabelConfig(
    see=SeeConfig(
        detector="autodistill_grounded_sam.testing:FakeDetector", segmenter="autodistill_grounded_sam.testing:FakeSegmenter"
    ),
    run=RunConfig(batch_size=8, device="cpu"),
    export=ExportConfig(formats=("yolo",)),
)
IMAGES = 40
BAR = {0: 0.7, 1: 0.1}  # what a person calls a circle scores 0.7 or more; every square is one; of stars the person marks none


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    paint_folder(home / "images" / "cam", IMAGES, settings=PainterSettings(width=96, height=72))
    pipeline.label(home / "images", ONTOLOGY, home / "out", CONFIG)
    write_truth(home)
    return home


def write_truth(home: Path, count: int = 30, name: str = "truth.json") -> Path:
    """A reference for the first images: labels at the lowest threshold that reach the bar of their class."""
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": 0.1, "text_threshold": 0.1}))
    _, labelled = pipeline.decided_labels(home / "out")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, labels in list(labelled)[:count]:
        images.append({"id": len(images), "file_name": image.id, "width": image.width, "height": image.height})
        for class_id, (x1, y1, x2, y2), score in zip(labels.class_id.tolist(), labels.xyxy.tolist(), labels.score, strict=True):
            if score >= BAR.get(class_id, 1.0):
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0, "area": 1}
                annotations.append({"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": class_id + 1, **box})
    pipeline.redecide(home / "out", config)
    categories = [{"id": 1, "name": "Circle"}, {"id": 2, "name": "square"}]
    (home / name).write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return home / name


def test_a_run_is_tuned_without_a_model_and_its_ontology_written_with_evidence(home: Path) -> None:
    tuned = tune(home / "out", home / "truth.json")
    circle, square, star = tuned.choices
    assert circle.threshold == pytest.approx(0.7, abs=0.05)
    assert square.threshold is not None
    assert square.threshold < 0.25
    assert (star.verdict, star.objects) == ("refused", 0)
    assert tuned.ontology.class_names == ("circle", "square", "star")
    assert Ontology.load(tuned.out) == tuned.ontology
    text = tuned.out.read_text()
    assert tuned.out == home / "out/run/tuned.yaml"
    assert all(f"  # {why}\n" in text for why in tuned.evidence)
    assert not (home / "out/run/tune").exists()
    assert (tuned.images, tuned.label_again) == (30, False)
    assert tuned.command.startswith(f"grounded-sam decide {home / 'out'} --ontology {tuned.out}")
    assert json.loads(json.dumps(tuning_to_json(tuned)))["choices"][0]["verdict"] == "changed"


def test_the_tuned_ontology_decides_better_on_images_that_tuning_never_saw(home: Path) -> None:
    few = write_truth(home, 20, "few.json")
    tuned = tune(home / "out", few, out=home / "few.yaml")
    rest = write_truth(home, IMAGES, "all.json")
    content = json.loads(rest.read_text())
    kept = {image["id"] for image in content["images"]} - set(range(20))
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    rest.write_text(json.dumps(content))
    from autodistill_grounded_sam import measuring

    before = measuring.evaluate(home / "out", rest).operating_point["f1"]
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", tuned.decide, tuned.ontology)
    after = measuring.evaluate(home / "out", rest).operating_point["f1"]
    pipeline.redecide(home / "out", config, ONTOLOGY)
    assert after > before + 0.05


def test_new_words_are_looked_at_on_the_labelled_images_alone(home: Path) -> None:
    tuned = tune(home / "out", home / "truth.json", words={"star": ["shining star"]}, forms=True, config=CONFIG)
    looks = list((home / "out/run/tune").iterdir())
    store = Store(looks[0])
    assert {"shining star", "red circles", "a green star"} <= set(store.prompts)
    assert len(list(store.seen())) == 30
    assert Store(home / "out").prompts == tuple(ONTOLOGY)
    before = sorted(path.stat().st_mtime_ns for path in (home / "out/run/tune").rglob("*.parquet"))
    assert tune(home / "out", home / "truth.json", words={"star": ["shining star"]}, forms=True, config=CONFIG) == tuned
    assert sorted(path.stat().st_mtime_ns for path in (home / "out/run/tune").rglob("*.parquet")) == before


def test_a_folder_of_images_is_looked_at_where_it_is_labelled(home: Path) -> None:
    tuned = tune(home / "images", home / "truth.json", ontology=ONTOLOGY, config=CONFIG, out=home / "folder.yaml")
    of_run = tune(home / "out", home / "truth.json")
    assert tuned.choices == of_run.choices
    assert tuned.label_again
    assert f"label {home / 'images'} --ontology {home / 'folder.yaml'} --detector" in tuned.command
    assert {sum(1 for _ in Store(look).seen()) for look in (home / "images_tuning/tune").iterdir()} == {30}


def test_a_folder_needs_truth_and_ontology(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"images is no run: to tune on a folder of images, give --truth and --ontology"):
        tune(home / "images", ontology=ONTOLOGY, config=CONFIG)
    with pytest.raises(ConfigError, match=r"give --truth and --ontology"):
        tune(home / "images", home / "truth.json", config=CONFIG)


def test_the_same_words_of_other_models_are_another_look(home: Path) -> None:
    first = tune(home / "images", home / "truth.json", ontology=ONTOLOGY, config=CONFIG, out=home / "first.yaml")
    see = CONFIG.see.model_copy(update={"masks": "none"})
    without = CONFIG.model_copy(update={"see": see})
    again = tune(home / "images", home / "truth.json", ontology=ONTOLOGY, config=without, out=home / "again.yaml")
    assert again.images == first.images
    assert len(list((home / "images_tuning/tune").iterdir())) == 2


def test_a_run_that_was_decided_with_trust_can_be_tuned_from_another_ontology(home: Path) -> None:
    config = pipeline.last_settings(home / "out")[0]
    trusting.assess(home / "out", home / "truth.json")
    pipeline.redecide(home / "out", config.model_copy(update={"trust": 0.5}))
    tuned = tune(home / "out", home / "truth.json", ontology={"red circle": "circle", "blue square": "square"})
    pipeline.redecide(home / "out", config)
    assert [choice.name for choice in tuned.choices] == ["circle", "square"]
    assert tuned.decide.trust == 0


def test_models_of_a_run_are_its_own(home: Path) -> None:
    result = CliRunner().invoke(cli.app, ["tune", str(home / "out"), "--truth", str(home / "truth.json"), "--detector", "mini"])
    assert result.exit_code != 0
    assert "has its own models" in " ".join(str(result.exception or result.output).split())


def test_truth_of_other_images_is_refused(home: Path) -> None:
    content = json.loads((home / "truth.json").read_text())
    for image in content["images"]:
        image["file_name"] = "other/" + image["file_name"].rpartition("/")[2].replace("scene", "photo")
    (home / "other.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"none of the 30 images of .*other.json is among the labelled ones"):
        tune(home / "out", home / "other.json")
    with pytest.raises(DatasetError, match=r"none of the 30 images of .*other.json is among the 40 images of the folder"):
        tune(home / "images", home / "other.json", ontology=ONTOLOGY, config=CONFIG)


def test_yolo_truth_says_the_same_as_coco(home: Path) -> None:
    content = json.loads((home / "truth.json").read_text())
    folder = home / "yolo"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [circle, square]\n")
    for image in content["images"]:
        name = Path(image["file_name"]).name
        (folder / "images" / name).write_bytes((home / "images" / image["file_name"]).read_bytes())
        rows = []
        for row in content["annotations"]:
            if row["image_id"] == image["id"]:
                x, y, w, h = row["bbox"]
                rows.append(f"{row['category_id'] - 1} {(x + w / 2) / 96:.6f} {(y + h / 2) / 72:.6f} {w / 96:.6f} {h / 72:.6f}")
        (folder / "labels" / name).with_suffix(".txt").write_text("\n".join(rows) + "\n")
    by_yolo, by_coco = tune(home / "out", folder), tune(home / "out", home / "truth.json")
    assert by_yolo.choices == by_coco.choices


def test_by_reviews_alone_no_threshold_goes_below_that_of_the_run(home: Path) -> None:
    """All labels of the run were accepted; those below its threshold were never shown, and would cost nothing."""
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": 0.6, "text_threshold": 0.6}))
    ontology, labelled = pipeline.decided_labels(home / "out")
    reviews = [
        Review(image.id, image.digest, tuple(box), ontology.class_names[class_id], "accepted", "2026-11-24T16:00:00Z")
        for image, labels in list(labelled)[:30]
        for class_id, box in zip(labels.class_id.tolist(), labels.xyxy.tolist(), strict=True)
    ]
    below = [  # of a decision before this one, at a lower threshold: they would speak for going down to it
        Review(image.id, image.digest, tuple(box), ontology.class_names[class_id], "accepted", "2026-11-24T15:00:00Z")
        for image, labels in _decided_at(home, 0.1)
        for class_id, box in zip(labels.class_id.tolist(), labels.xyxy.tolist(), strict=True)
    ]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": 0.6, "text_threshold": 0.6}))
    append_reviews(home / "out/run" / FILE, [*reviews, *below])
    tuned = tune(home / "out")
    assert all(choice.threshold is None or choice.threshold >= 0.6 for choice in tuned.choices)
    assert any(choice.gain is not None for choice in tuned.choices)
    pipeline.redecide(home / "out", config)
    (home / "out/run" / FILE).unlink()


def _decided_at(home: Path, threshold: float) -> list[tuple[ImageRecord, Labels]]:
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": threshold, "text_threshold": threshold}))
    return list(pipeline.decided_labels(home / "out")[1])[:15]


def test_by_reviews_alone(home: Path) -> None:
    """A person looked at the labels of 30 images and refused the circles below 0.7."""
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": 0.2, "text_threshold": 0.2}))
    ontology, labelled = pipeline.decided_labels(home / "out")
    reviews = [
        Review(
            image.id, image.digest, tuple(box), ontology.class_names[class_id],
            "accepted" if class_id or score >= 0.7 else "rejected", "2026-11-24T16:00:00Z",
        )
        for image, labels in list(labelled)[:30]
        for class_id, box, score in zip(labels.class_id.tolist(), labels.xyxy.tolist(), labels.score, strict=True)
    ]  # fmt: skip
    append_reviews(
        home / "out/run" / FILE, [*reviews, Review("cam/gone.png", "00", (0, 0, 1, 1), "circle", "accepted", "2026-11-24")]
    )
    tuned = tune(home / "out")
    assert tuned.choices[0].threshold == pytest.approx(0.7, abs=0.06)
    assert tuned.choices[1].verdict == "kept"
    assert "1 review(s) are of images that changed, or of unknown classes: left out" in tuned.notes
    with pytest.raises(ConfigError, match=r"other words .* need labelled images \(--truth\)"):
        tune(home / "out", words={"star": ["shining star"]})
    with pytest.raises(ConfigError, match=r"other words .* need labelled images \(--truth\)"):
        tune(home / "out", forms=True)
    pipeline.redecide(home / "out", config)
    (home / "out/run" / FILE).unlink()
    with pytest.raises(DatasetError, match=re.escape("there are no reviews in") + r".*write a JSON object a line"):
        tune(home / "out")


def test_labels_of_another_class_speak_against_the_class_they_had(home: Path) -> None:
    """A person renamed the circles below 0.7, and found one in every image that has none."""
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"box_threshold": 0.2, "text_threshold": 0.2}))
    ontology, labelled = pipeline.decided_labels(home / "out")
    circle, other = ontology.class_names[:2]
    time = "2026-11-24T16:00:00Z"
    reviews = []
    for image, labels in list(labelled)[:30]:
        for class_id, box, score in zip(labels.class_id.tolist(), labels.xyxy.tolist(), labels.score, strict=True):
            wrong = class_id == 0 and score < 0.7
            verdict, name = ("corrected", other) if wrong else ("accepted", "")
            one = Review(image.id, image.digest, tuple(box), ontology.class_names[class_id], verdict, time, to_class=name)
            reviews.append(one)
        if 0 not in labels.class_id:
            reviews.append(Review(image.id, image.digest, (0.0, 0.0, 3.0, 3.0), circle, "added", time))
    append_reviews(home / "out/run" / FILE, [*reviews, Review(image.id, image.digest, None, "", "complete", time)])
    assert tune(home / "out").choices[0].threshold == pytest.approx(0.7, abs=0.06)
    pipeline.redecide(home / "out", config)
    (home / "out/run" / FILE).unlink()
