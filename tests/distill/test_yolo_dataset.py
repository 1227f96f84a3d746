"""A dataset that ultralytics would read with gaps is refused, and the message names the file."""

from pathlib import Path

import pytest

from autodistill_grounded_sam.distill.yolo_dataset import check_yolo_dataset
from autodistill_grounded_sam.errors import DatasetError

BOX = "0 0.5 0.5 0.2 0.2\n"
POLYGON = "1 0.1 0.1 0.5 0.1 0.5 0.5\n"


def dataset(folder: Path, *, train: str = BOX, valid: str = BOX, yaml: str | None = None) -> Path:
    for split, text in (("train", train), ("valid", valid)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        (folder / split / "images" / "a.png").write_bytes(b"never opened")
        (folder / split / "labels" / "a.txt").write_text(text)
    (folder / "data.yaml").write_text(yaml or "train: train/images\nval: valid/images\nnames: [cup, plate]\nnc: 2\n")
    return folder


def test_check__folder_and_yaml_are_the_same(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", train=BOX + BOX + "\n", valid=POLYGON)
    data = check_yolo_dataset(folder)
    assert data == check_yolo_dataset(folder / "data.yaml")
    assert data.classes == ("cup", "plate")
    assert data.objects == 2
    assert data.train == ((folder / "train" / "images").resolve(),)
    assert data.file_with_boxes == (folder / "train" / "labels" / "a.txt").resolve()


def test_check__polygons_only(tmp_path: Path) -> None:
    assert check_yolo_dataset(dataset(tmp_path, train=POLYGON, valid="")).file_with_boxes is None


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\nnames: {0: cup, 1: plate}\n",  # as Roboflow writes it
        "path: .\ntrain: [train/images]\nval: [valid/images]\nnames: [cup, plate]\n",
        "train: train/images\nvalid: valid/images\nnames: [cup, plate]\n",
    ],
)
def test_check__forms_of_data_yaml(tmp_path: Path, yaml: str) -> None:
    assert check_yolo_dataset(dataset(tmp_path / "x", yaml=yaml)).valid == ((tmp_path / "x" / "valid" / "images").resolve(),)


@pytest.mark.parametrize("valid", ["train/images", "./train/../train/images", "[train/images, valid/images]"])
def test_check__train_folder_as_val__counts_objects_once(tmp_path: Path, valid: str) -> None:
    yaml = f"train: [train/images, train/images]\nval: {valid}\nnames: [cup, plate]\n"
    assert check_yolo_dataset(dataset(tmp_path, train=BOX * 3, yaml=yaml)).objects == 3


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: train/images\nval: valid/images\n", r"data\.yaml must hold a list or mapping `names`, got None"),
        ("train: train/images\nval: valid/images\nnames: {1: a, 2: b}\n", r"must number its 2 `names` from 0 .*, got \[1, 2\]"),
        ("train: train/images\nnames: [a, b]\n", r"has no 'val' images; a student needs both"),
        ("train: train/images\nval: test/images\nnames: [a, b]\n", r"the folder of 'val' does not exist: .*test/images"),
    ],
)
def test_check__wrong_yaml(tmp_path: Path, yaml: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_yolo_dataset(dataset(tmp_path, yaml=yaml))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", r"has no object to learn from: the label files of 'train'"),
        ("0 0.5 0.5 0.2\n", r"a\.txt:1 must hold a class and a box .*, got 3 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9\n", r"a\.txt: rows hold a score after the box; ultralytics would drop the whole image"),
        (BOX + POLYGON, r"a\.txt: boxes and polygons in one file; ultralytics would drop the whole image"),
        ("2 0.5 0.5 0.2 0.2\n", r"a\.txt: classes must be 0\.\.1, got 2\.\.2"),
        (BOX + "-1 0.5 0.5 0.2 0.2\n", r"a\.txt: classes must be 0\.\.1, got -1\.\.0"),
    ],
)
def test_check__wrong_labels(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_yolo_dataset(dataset(tmp_path, train=train))


def test_check__missing(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"no YOLO dataset at .*nowhere: expected a folder with a data\.yaml, or the path of one"
    ):
        check_yolo_dataset(tmp_path / "nowhere")


def test_check__empty_validation_folder(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    (folder / "valid" / "images" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"the folder of 'val' holds no image: .*valid/images; export with --valid above 0"):
        check_yolo_dataset(folder)
