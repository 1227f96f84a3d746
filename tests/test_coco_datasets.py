"""COCO json as people and their tools lay it out: splits, ids, masks of any form, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.coco_datasets import COCO_FILE, coco_class_names, read_coco
from autodistill_grounded_sam.datasets import read_dataset
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import decode_mask, encode_mask


def coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    content: dict[str, Any] = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 20} for number in (10, 5)],
        "categories": [{"id": 9, "name": "plate"}, {"id": 7, "name": "cup"}],
        "annotations": [annotation, {**annotation, "id": 2, "category_id": 9, "iscrowd": 1}],
    }
    return {**content, **changes}


def written(folder: Path, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COCO_FILE).write_text(json.dumps(content) if not isinstance(content, str) else content)
    return folder / COCO_FILE


def with_masks(*segmentations: Any) -> dict[str, Any]:
    content = coco()
    for annotation, segmentation in zip(content["annotations"], segmentations, strict=True):
        annotation["segmentation"] = segmentation
    return content


def test_coco__classes_by_category_id_images_by_id(tmp_path: Path) -> None:
    file = written(tmp_path, coco())
    Image.new("RGB", (40, 20)).save(tmp_path / "5.png")
    assert coco_class_names(file) == ["cup", "plate"]
    five, ten = read_coco(file)
    assert (five.name, five.path, five.width, five.height) == ("5.png", tmp_path / "5.png", 40, 20)
    assert (five.class_id.tolist(), five.xyxy.tolist()) == ([0, 1], [[1, 2, 4, 6]] * 2)
    assert (five.rle, five.score) == (None, None)
    assert five.crowd is not None and five.crowd.tolist() == [False, True]
    assert (ten.name, ten.path, len(ten.class_id), ten.rle) == ("10.png", None, 0, ())


def test_coco__masks_of_any_form_and_scores(tmp_path: Path) -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[2:6, 1:4] = True
    content = with_masks([[1, 2, 4, 2, 4, 6, 1, 6]], encode_mask(mask))
    for annotation, score in zip(content["annotations"], (0.5, 0.25), strict=True):
        annotation["score"] = score
    row = next(read_coco(written(tmp_path, content)))
    assert row.rle is not None and all((decode_mask(rle) == mask).all() for rle in row.rle)
    assert row.score is not None and row.score.tolist() == [0.5, 0.25]


def test_coco__one_label_without_a_mask__is_an_image_of_boxes(tmp_path: Path) -> None:
    row = next(read_coco(written(tmp_path, with_masks([[1, 2, 4, 2, 4, 6]], []))))
    assert row.rle is None and len(row.xyxy) == 2


def test_coco__folder_of_splits(tmp_path: Path) -> None:
    written(tmp_path / "valid", coco())
    written(tmp_path / "train", coco(images=coco()["images"][:1], annotations=[]))
    assert [(row.split, row.name) for row in read_coco(tmp_path)] == [
        ("train", "10.png"),
        ("valid", "5.png"),
        ("valid", "10.png"),
    ]
    assert [row.split for row in read_coco(tmp_path / "valid" / COCO_FILE)] == ["valid", "valid"]
    assert coco_class_names(tmp_path) == ["cup", "plate"]


def test_coco__files_of_a_folder_with_ids_of_their_own__classes_are_known_by_name(tmp_path: Path) -> None:
    train = coco()
    train["annotations"][1] |= {"iscrowd": 0}
    written(tmp_path / "train", train)  # 7 cup, 9 plate
    categories = [{"id": 1, "name": "spoon"}, {"id": 2, "name": "plate"}]
    valid = coco(categories=categories, annotations=[{**train["annotations"][0], "category_id": k} for k in (1, 2)])
    written(tmp_path / "valid", valid)
    names = coco_class_names(tmp_path)
    found = {row.split: [names[k] for k in row.class_id] for row in read_coco(tmp_path) if len(row.class_id)}
    assert names == ["cup", "plate", "spoon"] and found == {"train": ["cup", "plate"], "valid": ["spoon", "plate"]}


@pytest.mark.parametrize("place", ["", "images/"])
def test_coco__its_own_layout(tmp_path: Path, place: str) -> None:
    (tmp_path / "annotations").mkdir()
    for subset, number in (("train2017", 5), ("val2017", 10), ("test2017", 10)):
        picture = tmp_path / f"{place}{subset}" / f"{number}.png"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (40, 20)).save(picture)
        content = coco(images=[image for image in coco()["images"] if image["id"] == number], annotations=[])
        (tmp_path / "annotations" / f"instances_{subset}.json").write_text(json.dumps(content))
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    found = [(row.split, row.path and row.path.parent.name) for row in read_dataset(tmp_path)]
    assert found == [("train", "train2017"), ("valid", "val2017")] and len(list(read_dataset(tmp_path, test=True))) == 3
    (alone,) = read_coco(tmp_path / "annotations" / "instances_val2017.json")
    assert alone.split == "valid" and alone.path == tmp_path / f"{place}val2017" / "10.png"


def test_coco__category_0_of_roboflow__is_no_class_unless_it_labels(tmp_path: Path) -> None:
    """It names the group; where a class is named as the group is, the file would have two classes of one name."""
    group = {"id": 0, "name": "cup", "supercategory": "none"}
    categories = [group, {"id": 1, "name": "cup", "supercategory": "cup"}, {"id": 2, "name": " plate ", "supercategory": "cup"}]
    annotations = [{**coco()["annotations"][0], "category_id": k} for k in (1, 2)]
    file = written(tmp_path, coco(categories=categories, annotations=annotations))
    assert coco_class_names(file) == ["cup", "plate"] and next(read_coco(file)).class_id.tolist() == [0, 1]
    file = written(tmp_path, coco(categories=categories, annotations=[{**annotations[0], "category_id": 0}]))
    assert coco_class_names(file) == ["cup", "cup", "plate"] and next(read_coco(file)).class_id.tolist() == [0]


def test_coco__no_annotations_key(tmp_path: Path) -> None:
    content = coco()
    del content["annotations"]
    assert [len(row.class_id) for row in read_coco(written(tmp_path, content))] == [0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"coco\.json is not json"),
        ([1], r"coco\.json is not a COCO dataset: images and categories missing"),
        ({"images": []}, r"is not a COCO dataset: categories missing"),
        (coco(images=[{"file_name": "a"}]), r"coco\.json is not after COCO: 'id' is missing"),
        (coco(annotations=[{"id": 1}]), r"is not after COCO: 'image_id' is missing"),
        (coco(categories=[{"id": "x", "name": "y"}]), r"is not after COCO: ValueError"),
        (
            coco(categories=[{"id": 7, "name": "cup"}]),
            r"image '5\.png' is not after COCO: .*category_id 9 is none of the file's categories \(7\)",
        ),
        (
            with_masks({"size": [2, 2], "counts": [4]}, [[1, 2, 4, 2, 4, 6]]),
            r"image '5\.png' is not after COCO: .*a mask is \[2, 2\]",
        ),
        (with_masks([[1, 2, 3, 4]], [[1, 2, 4, 2, 4, 6]]), r"image '5\.png' is not after COCO"),
    ],
)
def test_coco__wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        list(read_coco(written(tmp_path, content)))


def test_coco__missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset in .*: expected a data\.yaml \(YOLO\), train/_annotations"):
        list(read_coco(tmp_path))
    with pytest.raises(DatasetError, match=r"the COCO file .*x\.json cannot be read"):
        list(read_coco(tmp_path / "x.json"))


@pytest.mark.shared
def test_coco__people_of_every_reference_set(shared: Path) -> None:
    """Both forms of the same truth: polygons and run lengths agree."""
    folder = shared / "data" / "coco_ccby"
    exact = {row.name: row for row in read_coco(folder / "annotations.json")}
    assert len(exact) == 32 and sum(len(row.class_id) for row in exact.values()) == 180
    for row in read_coco(folder / "annotations_poly.json"):
        other = exact[row.name]
        assert row.class_id.tolist() == other.class_id.tolist()
        assert np.allclose(row.xyxy, other.xyxy, atol=2)
