"""`check` on whole datasets, with given predictions: what is read, joined, left out, refused, and written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from autodistill_grounded_sam import cli
from autodistill_grounded_sam.checking import check_dataset, default_out
from autodistill_grounded_sam.cross_fitting import CrossFit, fold_of
from autodistill_grounded_sam.errors import ConfigError, DatasetError
from autodistill_grounded_sam.types import DatasetImage

WIDTH, HEIGHT = 320, 240
NAMES = ("Milk_Bottle", "can")
IMAGES = 30


def boxes(number: int) -> list[tuple[int, list[float]]]:
    """Two bottles and two cans an image: class and xywh."""
    return [(k % 2, [10.0 + 75 * k, 20.0 + number, 50.0 + 5 * k, 90.0]) for k in range(4)]


def coco(
    labels: list[list[tuple[int, list[float]]]], names: tuple[str, ...] = NAMES, score: float | None = None
) -> dict[str, Any]:
    rows = [(image, *one) for image, of_image in enumerate(labels) for one in of_image]
    annotations = [
        {"id": place, "image_id": image, "category_id": class_id, "bbox": box} | ({} if score is None else {"score": score})
        for place, (image, class_id, box) in enumerate(rows)
    ]
    images = [{"id": n, "file_name": f"{n:02}.png", "width": WIDTH, "height": HEIGHT} for n in range(len(labels))]
    return {"images": images, "annotations": annotations, "categories": [{"id": k, "name": name} for k, name in enumerate(names)]}


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write(tmp_path / "model" / "seen.json", coco([boxes(n) for n in range(IMAGES)], ("milk bottle", "CAN"), 0.9))


def damaged() -> list[list[tuple[int, list[float]]]]:
    """One label dropped in image 3, swapped in 5, moved in 7."""
    labels = [boxes(n) for n in range(IMAGES)]
    labels[3].pop(1)
    labels[5][2] = (1, labels[5][2][1])
    labels[7][0] = (0, [30.0, *labels[7][0][1][1:]])
    return labels


def test_the_list_begins_with_the_damage(tmp_path: Path, predictions: Path) -> None:
    result = check_dataset(write(tmp_path / "set" / "labels.json", coco(damaged())), predictions=predictions)
    assert result.file == tmp_path / "set_check" / "suspicions.jsonl"
    lines = [json.loads(line) for line in result.file.read_text().splitlines()]
    assert {(line["image"], line["kind"]) for line in lines[:3]} == {
        ("03.png", "overlooked"), ("05.png", "swapped"), ("07.png", "located")
    }  # fmt: skip
    by_kind = {line["kind"]: line for line in lines[:3]}
    assert (by_kind["swapped"]["class"], by_kind["swapped"]["proposed_class"]) == ("can", "Milk_Bottle")
    assert by_kind["swapped"]["label"] == 2
    x, y, w, h = boxes(3)[1][1]
    assert by_kind["overlooked"]["proposed_xyxy"] == [x, y, x + w, y + h]
    assert by_kind["overlooked"]["label"] is None
    assert by_kind["located"]["xyxy"][0] == 30
    assert (result.images, result.labels) == (IMAGES, 4 * IMAGES - 1)
    assert result.likely["overlooked"] <= result.all_of["overlooked"] == Counter(line["kind"] for line in lines)["overlooked"]


def test_labels_that_the_model_bears_out_are_not_listed(tmp_path: Path, predictions: Path) -> None:
    result = check_dataset(write(tmp_path / "set" / "l.json", coco([boxes(n) for n in range(IMAGES)])), predictions=predictions)
    assert list(result.suspicions) == []
    assert result.file.read_text() == ""


def test_yolo_images_are_named_by_their_place_in_the_dataset(tmp_path: Path) -> None:
    home = tmp_path / "yolo"
    for split in ("train", "valid"):  # both hold a 0.png
        for n in range(8):
            image, label = home / split / "images" / f"{n}.png", home / split / "labels" / f"{n}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(image)
            own = boxes(n)[1:] if (split, n) == ("valid", 0) else boxes(n)
            label.write_text("".join(
                f"{k} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n" for k, (x, y, w, h) in own
            ))  # fmt: skip
    (home / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [Milk_Bottle, can]\n")
    seen = coco([boxes(n % 8) for n in range(16)], score=0.9)
    for place, image in enumerate(seen["images"]):
        image["file_name"] = f"{('train', 'valid')[place // 8]}/images/{place % 8}.png"
    first = check_dataset(home, predictions=write(tmp_path / "p.json", seen)).suspicions[0]
    assert (first["image"], first["kind"], first["proposed_class"]) == ("valid/images/0.png", "overlooked", "Milk_Bottle")


def test_what_cannot_be_used_is_left_out_and_told(tmp_path: Path) -> None:
    content = coco(damaged())
    content["annotations"].append({"id": 999, "image_id": 0, "category_id": 7, "bbox": [1, 1, 2, 2]})
    seen = coco([[(2, box) if n == 4 else (k, box) for k, box in boxes(n)] for n in range(IMAGES - 1)], (*NAMES, "cup"), 0.9)
    result = check_dataset(write(tmp_path / "set" / "l.json", content), predictions=write(tmp_path / "p.json", seen))
    told = " ".join(result.notes)
    assert "1 annotation(s) or image(s)" in told
    assert "does not know are left out: cup" in told
    assert f"1 image(s) without predictions are left out: {IMAGES - 1}.png" in told
    assert result.images == IMAGES - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: [row.pop("score") for row in content["annotations"]], "need a score for every box"),
        (lambda content: [image.update(width=7) for image in content["images"]], "two frames cannot be compared"),
        (lambda content: [image.update(file_name=f"x{image['id']}.png") for image in content["images"]], "none of the 30 images"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path: Path, predictions: Path, change: Any, words: str) -> None:
    content = json.loads(predictions.read_text())
    change(content)
    with pytest.raises(DatasetError, match=words):
        check_dataset(write(tmp_path / "set" / "l.json", coco(damaged())), predictions=write(predictions, content))


def test_wrong_use_is_told(tmp_path: Path, predictions: Path) -> None:
    labels = write(tmp_path / "set" / "l.json", coco(damaged()))
    with pytest.raises(DatasetError, match="there is nothing at"):
        check_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="there are no predictions at"):
        check_dataset(labels, predictions=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="holds no label to check"):
        check_dataset(write(tmp_path / "empty.json", coco([[], []])), predictions=predictions)
    with pytest.raises(ConfigError, match="with predictions nothing is learnt"):
        check_dataset(labels, predictions=predictions, settings=CrossFit())
    with pytest.raises(ConfigError, match="folds must be 2 or more"):
        CrossFit(folds=1)
    with pytest.raises(DatasetError, match=r"30 image\(s\) of .* are not there: 00.png.*--images"):
        check_dataset(labels)


def test_wrong_use_of_learning_is_told(tmp_path: Path) -> None:
    for n in range(3):
        image = tmp_path / "set" / "images" / f"{n:02}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH if n else 10, 3), np.uint8)).save(image)
    labels = write(tmp_path / "set" / "l.json", coco([boxes(n) for n in range(3)]))
    with pytest.raises(ConfigError, match="the ontology has no class 'can' of the dataset"):
        check_dataset(labels, ontology={"a bottle": "milk bottle"})
    with pytest.raises(DatasetError, match=r"2 image\(s\) cannot be dealt into 3 folds"):  # one of three is of another size
        check_dataset(labels, settings=CrossFit(folds=3))
    with pytest.raises(ConfigError, match="must not lie in the images folder"):
        check_dataset(labels, out=tmp_path / "set" / "images" / "checked")


def test_folds_are_even_in_every_class() -> None:
    rows = [
        DatasetImage(None, f"{n}.png", "train", 9, 9, np.full(1, n % 3 == 0, np.int32), np.zeros((1, 4), np.float32))
        for n in range(60)
    ]
    fold = fold_of(rows, 2)
    assert Counter(fold) == {0: 30, 1: 30}
    assert Counter(number for number, row in zip(fold, rows, strict=True) if row.class_id[0]) == {0: 10, 1: 10}
    assert fold_of(rows, 2) == fold


def test_the_command_shows_a_table_and_the_first_lines(tmp_path: Path, predictions: Path) -> None:
    labels = write(tmp_path / "set" / "l.json", coco(damaged()))
    done = CliRunner().invoke(cli.app, ["check", str(labels), "--predictions", str(predictions)])
    assert done.exit_code == 0, done.output
    assert "119 labels in 30 images" in done.output
    assert "swapped: 05.png: can, rather Milk_Bottle at 160 25 220 115" in done.output
    assert str(default_out(labels) / "suspicions.jsonl") in done.output.replace("\n", "")


def test_a_dataset_of_one_class_has_no_swaps(tmp_path: Path) -> None:
    labels = [[(0, box) for _, box in boxes(n)] for n in range(IMAGES)]
    seen = write(tmp_path / "p.json", coco(labels, ("can",), 0.9))
    labels[2] = labels[2][1:]
    result = check_dataset(write(tmp_path / "set" / "l.json", coco(labels, ("can",))), predictions=seen)
    assert [(line["image"], line["kind"]) for line in result.suspicions] == [("02.png", "overlooked")]


@pytest.mark.parametrize("words", [["--student", "yolov8n.yaml", "--steps", "3"], ["--epochs", "3"]])
def test_steps_and_epochs_are_not_mixed_up(tmp_path: Path, words: list[str]) -> None:
    done = CliRunner().invoke(cli.app, ["check", str(tmp_path), *words])
    assert isinstance(done.exception, ConfigError)
    assert "--steps are of a detector, --epochs of a --student" in str(done.exception)
