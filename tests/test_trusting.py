"""`quality` on whole runs, with instant models: figures, what is stored, and what trust does to the dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.datasets import read_yolo
from autodistill_grounded_sam.decisions import require_apart
from autodistill_grounded_sam.errors import ConfigError, DatasetError, ExportError, WrongRunError
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.trusting import assess, quality_to_json

ONTOLOGY = {"red circle": "circle", "blue square": "square"}
CONFIG = LabelConfig(
    see=SeeConfig(
        detector="autodistill_grounded_sam.testing:FakeDetector", segmenter="autodistill_grounded_sam.testing:FakeSegmenter"
    ),
    run=RunConfig(batch_size=8, device="cpu"),
    export=ExportConfig(formats=("yolo",)),
)
IMAGES, TRUE_FROM = 60, 0.6  # a label is right if it scores at least so much: the fake models see nothing that could be true


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of which `write_truth` makes a reference: what was found and scores well, and a missed object each."""
    home = tmp_path_factory.mktemp("home")
    paint_folder(home / "images", IMAGES, settings=PainterSettings(width=96, height=72))
    pipeline.label(home / "images", ONTOLOGY, home / "out", CONFIG)
    return home


def write_truth(home: Path, count: int = IMAGES // 2, name: str = "truth.json") -> Path:
    _, labelled = pipeline.decided_labels(home / "out")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, labels in list(labelled)[:count]:
        images.append({"id": len(images), "file_name": image.id, "width": image.width, "height": image.height})
        rows = zip(labels.class_id.tolist(), labels.xyxy.tolist(), labels.score, strict=True)
        boxes = [(class_id, *box) for class_id, box, score in rows if score >= TRUE_FROM]
        for class_id, x1, y1, x2, y2 in [*boxes, (0, 0, 0, 2, 2)]:
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": class_id + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0, "area": 1,
                }
            )  # fmt: skip
    categories = [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}]
    (home / name).write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return home / name


def all_labels(home: Path) -> list[tuple[str, float]]:
    _, labelled = pipeline.decided_labels(home / "out")
    return [(image.id, float(score)) for image, labels in labelled for score in labels.score]


def test_figures_are_those_of_the_labelled_images(home: Path) -> None:
    quality = assess(home / "out", write_truth(home))
    known = {image["file_name"] for image in json.loads((home / "truth.json").read_text())["images"]}
    scores = [score for image, score in all_labels(home) if image in known]
    right = sum(score >= TRUE_FROM for score in scores)
    of_all = np.mean([score >= TRUE_FROM for _, score in all_labels(home)])
    precision = quality.overall.precision
    assert precision.low <= of_all <= precision.high
    assert abs(precision.value - of_all) < abs(right / len(scores) - of_all)  # the other labels' scores say something too
    assert precision.count == len(scores)
    assert quality.overall.missed.value == pytest.approx(len(known) / (len(known) + right))
    assert quality.per_class["square"].missed.value == 0
    assert (quality.labelled_images, quality.run_images) == (IMAGES // 2, IMAGES)
    assert quality.overall.precision.low < quality.overall.precision.value < quality.overall.precision.high
    assert json.loads((home / "out/run/quality.json").read_text())["quality"] == json.loads(json.dumps(quality_to_json(quality)))


def test_the_queue_holds_all_labels_that_nobody_judged_most_doubtful_first(home: Path) -> None:
    quality = assess(home / "out", write_truth(home))
    known = {image["file_name"] for image in json.loads((home / "truth.json").read_text())["images"]}
    queue = [json.loads(line) for line in quality.queue.read_text().splitlines()]
    trust = [row["trust"] for row in queue]
    assert len(queue) == sum(image not in known for image, _ in all_labels(home))
    assert not {row["image"] for row in queue} & known
    assert trust == sorted(trust)
    wrong = [row["score"] < TRUE_FROM for row in queue]
    assert np.mean(wrong[: len(wrong) // 4]) > 1.5 * np.mean(wrong)
    assert set(queue[0]) == {"image", "digest", "xyxy", "class", "score", "trust"}


def test_all_images_labelled_leaves_nothing_uncertain(home: Path) -> None:
    precision = assess(home / "out", write_truth(home, IMAGES, "all.json")).overall.precision
    assert precision.low == precision.value == precision.high


def test_trust_keeps_doubtful_images_out_of_the_splits_and_apart(home: Path) -> None:
    quality = assess(home / "out", write_truth(home), trust=0.5)
    assert quality.trusted is not None
    config = pipeline.last_settings(home / "out")[0].model_copy(update={"trust": 0.5})
    summary = pipeline.redecide(home / "out", config, export=ExportConfig(formats=("yolo",)))
    kept, waiting = list(read_yolo(home / "out")), list(read_yolo(home / "out/review"))
    assert (len(kept), len(waiting)) == (quality.trusted.images, quality.trusted.waiting)
    assert len(kept) + len(waiting) == IMAGES
    assert not {row.name for row in kept} & {row.name for row in waiting}
    assert sum(len(row.class_id) for row in kept) == quality.trusted.labels
    assert all(len(row.class_id) for row in waiting)
    assert summary.images["review"] == len(waiting)
    assert any("with a label below trust 0.5 are in" in note for note in summary.datasets[0].notes)
    doubtful = {json.loads(line)["image"] for line in quality.queue.read_text().splitlines() if json.loads(line)["trust"] < 0.5}
    known = {image["file_name"] for image in json.loads((home / "truth.json").read_text())["images"]}
    assert {row.name for row in waiting} - known == doubtful
    back = pipeline.redecide(home / "out", config.model_copy(update={"trust": 0.0}), export=ExportConfig(formats=("yolo",)))
    assert back.images["review"] == 0
    assert len(list(read_yolo(home / "out"))) == IMAGES
    assert not (home / "out/review").exists()


def test_where_most_images_wait_a_note_says_why(home: Path) -> None:
    assess(home / "out", write_truth(home))
    config = pipeline.last_settings(home / "out")[0]
    found = {}
    for trust in (1.0, 0.5, 0.0):  # the last leaves the run as the other tests take it
        summary = pipeline.redecide(home / "out", config.model_copy(update={"trust": trust}))
        waiting, kept = summary.images["review"], summary.images["labelled"]
        found[trust] = [note for note in summary.notes if "holds back its whole image" in note]
        assert bool(found[trust]) == (waiting > kept)
        assert all(note.startswith(f"{waiting} of {waiting + kept} images") for note in found[trust])
    assert found[1.0], "nothing is certain enough for trust 1"


def test_review_labels_corrected_by_hand_are_not_taken_away(home: Path) -> None:
    assess(home / "out", write_truth(home))
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"trust": 0.5}), export=ExportConfig(formats=("yolo",)))
    label_file = next(path for path in sorted((home / "out/review").rglob("labels/*.txt")) if path.stat().st_size)
    before = label_file.read_bytes()
    label_file.write_bytes(b"")
    with pytest.raises(ExportError, match=r"changed by hand"):
        pipeline.redecide(home / "out", config, export=ExportConfig(formats=("yolo",)))
    label_file.write_bytes(before)
    pipeline.redecide(home / "out", config, export=ExportConfig(formats=("yolo",)))


def test_coco_carries_the_trust(home: Path) -> None:
    assess(home / "out", write_truth(home))
    config = pipeline.last_settings(home / "out")[0]
    pipeline.redecide(home / "out", config.model_copy(update={"trust": 0.3}))
    pipeline.export_run(home / "out", "coco", home / "coco")
    pipeline.redecide(home / "out", config)
    rows = json.loads((home / "coco/train/_annotations.coco.json").read_text())["annotations"]
    assert rows
    assert all(row["trust"] >= 0.3 for row in rows)
    doubtful = json.loads((home / "coco/review/train/_annotations.coco.json").read_text())["annotations"]
    assert min(row["trust"] for row in doubtful) < 0.3


def test_trust_before_quality_is_told_what_to_do(home: Path) -> None:
    (home / "out/run/quality.json").unlink(missing_ok=True)
    with pytest.raises(WrongRunError, match=r"trust needs to know .* measure it .* with `grounded-sam quality"):
        pipeline.redecide(home / "out", pipeline.last_settings(home / "out")[0].model_copy(update={"trust": 0.5}))


def test_quality_of_other_classes_is_refused(home: Path) -> None:
    assess(home / "out", write_truth(home))
    config = pipeline.last_settings(home / "out")[0]
    other = {"red circle": "ball", "blue square": "box"}
    with pytest.raises(WrongRunError, match=r"was measured for another decision .* run `quality` again"):
        pipeline.redecide(home / "out", config.model_copy(update={"trust": 0.5}), other)


@pytest.mark.parametrize("change", [{"box_threshold": 0.5}, {"duplicate_iou": 0.5}])
def test_quality_of_other_settings_is_refused_until_it_is_measured_again(home: Path, change: dict[str, float]) -> None:
    truth = write_truth(home)
    assess(home / "out", truth)
    config = pipeline.last_settings(home / "out")[0]
    other = config.model_copy(update=change)
    with pytest.raises(WrongRunError, match=r"was measured for another decision .* at trust 0"):
        pipeline.redecide(home / "out", other.model_copy(update={"trust": 0.5}))
    pipeline.redecide(home / "out", other)
    assess(home / "out", truth)
    assert pipeline.redecide(home / "out", other.model_copy(update={"trust": 0.5})).images["review"] > 0
    pipeline.redecide(home / "out", config)


def test_what_waits_for_review_is_not_labelled_into_its_own_dataset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must not lie in the dataset"):
        require_apart(tmp_path / "review" / "train" / "images", tmp_path)


@pytest.mark.parametrize("trust", [7, -0.1, float("nan")])
def test_trust_is_a_probability(home: Path, trust: float) -> None:
    with pytest.raises(ConfigError, match=r"trust is a probability, from 0 to 1; got"):
        assess(home / "out", home / "truth.json", trust=trust)


def test_too_few_images(home: Path) -> None:
    with pytest.raises(DatasetError, match=r"4 image\(s\) of .* are in the run .*; quality needs at least 5, and 20 or more"):
        assess(home / "out", write_truth(home, 4, "few.json"))


def test_images_that_the_run_does_not_hold_are_left_out(home: Path) -> None:
    truth = json.loads(write_truth(home).read_text())
    truth["images"].append({"id": 999, "file_name": "elsewhere.png", "width": 10, "height": 10})
    (home / "more.json").write_text(json.dumps(truth))
    quality = assess(home / "out", home / "more.json")
    assert quality.labelled_images == IMAGES // 2
    assert "1 image(s) of the reference were not labelled, are left out: 'elsewhere.png'" in quality.notes


def test_images_that_the_detector_has_learnt_from_do_not_judge_it(home: Path) -> None:
    truth = write_truth(home, 20, "learnt.json")
    digests, run = {image.id: image.digest for image, _ in pipeline.decided_labels(home / "out")[1]}, home / "out/run/run.json"
    named = [image["file_name"] for image in json.loads(truth.read_text())["images"]]
    before = run.read_text()

    def learnt(count: int) -> None:
        run.write_text(json.dumps({**json.loads(before), "learnt_from": [digests[name] for name in named[:count]]}))

    try:
        learnt(12)
        apart = assess(home / "out", truth)
        assert apart.labelled_images == 8
        assert "12 labelled image(s) that the detector has learnt from do not judge it" in " ".join(apart.notes)
        assert not {json.loads(line)["image"] for line in apart.queue.read_text().splitlines()} & set(named)
        learnt(17)
        flattered = assess(home / "out", truth)
        assert flattered.labelled_images == 20
        assert "these figures flatter it: label 2 more images" in " ".join(flattered.notes)
    finally:
        run.write_text(before)
