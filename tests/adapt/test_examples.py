from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.adapt.examples import read_labelled
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.ontology import Ontology
from tests.adapt.adapt_kit import coco

WORDS = Ontology.from_dict({"red blood cell": "RBC", "white blood cell": "WBC", "platelet": "Platelets"})
NAMES = ("rbc", "white_blood cell", "dust")  # by name whatever its case, by a prompt, not at all


def box(image: int, category: int, *xywh: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(xywh), **more}


def read(folder: Path, *annotations: dict[str, Any]) -> Any:
    file = coco(folder, list(annotations), {"b.png": (100, 80), "a.png": (60, 40)}, NAMES)
    return read_labelled(folder / "images", file, WORDS)


def test_classes_are_joined_by_name_and_by_prompt(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 1, 10, 20, 30, 40), box(1, 2, 0, 0, 5, 5), box(2, 1, 1, 2, 3, 4))
    assert [example.name for example in found.examples] == ["a.png", "b.png"]
    first, second = found.examples
    assert first.class_id.tolist() == [0] and first.xyxy.tolist() == [[1, 2, 4, 6]] and (first.width, first.height) == (60, 40)
    assert second.class_id.tolist() == [0, 1] and second.xyxy.tolist() == [[10, 20, 40, 60], [0, 0, 5, 5]]
    np.testing.assert_allclose(second.shares[0], [0.1, 0.25, 0.4, 0.75])
    assert found.faults == ()


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (box(1, 1, 200, 10, 20, 20), "outside the image", r"the 'rbc' box \[200.0, 10.0, 220.0, 30.0\] of an image 100x80"),
        (box(1, 1, -30, 10, 30, 20), "outside the image", r"\[-30.0, 10.0, 0.0, 30.0\]"),
        (box(1, 1, 10, 10, 0, 20), "no area", r"\[10.0, 10.0, 10.0, 30.0\]"),
        (box(1, 1, 10, 10, -5, 20), "no area", r"\[10.0, 10.0, 5.0, 30.0\]"),
        (box(1, 1, float("nan"), 10, 5, 20), "no area", "nan"),
        (box(1, 3, 10, 10, 5, 20), "class not in the ontology", "'dust' is no class and no prompt of the ontology"),
        (box(9, 1, 10, 10, 5, 20), "unknown image", "annotation 2 is of an image that .*truth.json does not list"),
        (box(1, 1, 10, 10, 5, 20, iscrowd=1), "crowd region", "marks many objects at once"),
        (box(1, 1, 200, 10, 0.5, 20), "outside the image", r"\[200.0, 10.0, 200.5, 30.0\]"),
        (box(1, 1, 100, 10, 0.5, 20), "outside the image", r"\[100.0, 10.0, 100.5, 30.0\]"),
        (
            box(1, 7, 10, 10, 5, 20),
            "cannot be read",
            r"annotation 2 is not after COCO: .*category_id 7 is none of the file's categories",
        ),
        ({"image_id": 1, "category_id": 1}, "cannot be read", r"annotation 2 is not after COCO: 'bbox' is missing"),
        (box(1, 1, 10, 10, 5), "cannot be read", "annotation 2 is not after COCO: .*a bbox must be 4 numbers"),
        (box(1, 1, 10, 10, 5, 20, segmentation=[[]]), "cannot be read", "annotation 2 is not after COCO"),
        (box(1, 1, 10, 10, 5, 20, segmentation="x"), "cannot be read", "annotation 2 is not after COCO"),
        ({"category_id": 1, "bbox": [1, 2, 3, 4]}, "unknown image", "annotation 2 is of an image that"),
    ],
)
def test_a_bad_annotation_is_listed_and_left_out(tmp_path: Path, bad: dict[str, Any], reason: str, detail: str) -> None:
    found = read(tmp_path, box(2, 1, 1, 2, 3, 4), bad)
    assert [example.name for example in found.examples] == ["a.png", "b.png"]
    assert sum(len(example.class_id) for example in found.examples) == 1
    (fault,) = found.faults
    assert fault.reason == reason
    assert fault.image in ("b.png", "image id 9", "image id None")
    assert re.search(detail, fault.detail), fault.detail


def test_a_box_over_the_edge_is_cut_there(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 1, 90, -10, 30, 40))
    assert found.examples[1].xyxy.tolist() == [[90, 0, 100, 30]]
    assert found.faults == ()


def test_a_good_label_beside_a_bad_one_is_learnt(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 7, 10, 10, 5, 20), box(1, 1, 1, 2, 3, 4), box(1, 1, 1, 2))
    assert found.examples[1].xyxy.tolist() == [[1, 2, 4, 6]]
    assert [(fault.image, fault.reason) for fault in found.faults] == [("b.png", "cannot be read")] * 2


def test_an_object_thinner_than_a_pixel_is_learnt(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 1, 10, 10, 0.5, 20))
    assert found.examples[1].xyxy.tolist() == [[10, 10, 10.5, 30]]
    assert found.faults == ()


def test_an_image_without_a_size_is_listed(tmp_path: Path) -> None:
    file = coco(tmp_path, [box(1, 1, 1, 2, 3, 4), box(2, 1, 1, 2, 3, 4)], {"b.png": (100, 80), "a.png": (60, 40)}, NAMES)
    content = json.loads(file.read_text())
    del content["images"][0]["width"]
    file.write_text(json.dumps(content))
    found = read_labelled(tmp_path / "images", file, WORDS)
    assert [example.name for example in found.examples] == ["a.png"]
    assert [(fault.image, fault.reason) for fault in found.faults] == [("b.png", "cannot be read")]


def test_images_that_are_missing_broken_or_of_another_size_are_listed(tmp_path: Path) -> None:
    file = coco(tmp_path, [box(k, 1, 1, 1, 9, 9) for k in (1, 2, 3, 4)], {
        "gone.png": (40, 30), "broken.png": (40, 30), "turned.png": (40, 30), "good.png": (40, 30)
    }, NAMES)  # fmt: skip
    (tmp_path / "images/gone.png").unlink()
    (tmp_path / "images/broken.png").write_bytes(b"no picture")
    content = json.loads(file.read_text())
    content["images"][2].update(width=30, height=40)
    file.write_text(json.dumps(content))
    found = read_labelled(tmp_path / "images", file, WORDS)
    assert [example.name for example in found.examples] == ["good.png"]
    assert {fault.image: fault.reason for fault in found.faults} == {
        "gone.png": "unknown image", "broken.png": "image: not_an_image", "turned.png": "another size",
    }  # fmt: skip
    assert "30x40, the upright image is 40x30" in next(f.detail for f in found.faults if f.image == "turned.png")


def test_where_nothing_can_be_learnt_the_first_fault_is_told_in_words(tmp_path: Path) -> None:
    file = coco(tmp_path, [box(1, 1, 1, 1, 9, 9)], {"turned.png": (40, 30)}, NAMES)
    content = json.loads(file.read_text())
    content["images"][0].update(width=30, height=40)
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"1 x another size; the first, turned\.png: the annotations say 30x40"):
        read_labelled(tmp_path / "images", file, WORDS)


def test_an_image_is_found_by_its_file_name_where_that_is_one(tmp_path: Path) -> None:
    sizes = {"deep/a.png": (40, 30), "x/twin.png": (40, 30), "y/twin.png": (40, 30)}
    file = coco(tmp_path, [box(k, 1, 1, 1, 9, 9) for k in (1, 2, 3)], sizes, NAMES)
    file.write_text(file.read_text().replace("deep/a.png", "a.png").replace("x/twin.png", "twin.png"))
    found = read_labelled(tmp_path / "images", file, WORDS)
    assert [example.name for example in found.examples] == ["a.png", "y/twin.png"]
    assert [fault.image for fault in found.faults] == ["twin.png"]  # it could be either


def test_few_images_of_a_class_are_told(tmp_path: Path) -> None:
    found = read(tmp_path, box(1, 1, 1, 2, 3, 4), box(2, 1, 1, 2, 3, 4))
    assert len(found.warnings) == 3
    assert found.warnings[0].startswith("class 'RBC' is in 2 image(s): expect it to be found where it looks as it does there")
    assert found.warnings[1].startswith("class 'WBC' has no label: it is not asked while learning")


def test_nothing_to_learn_from_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"2 x class not in the ontology.*its classes are rbc, white_blood cell, dust, the ontol"
    ):
        read(tmp_path, box(1, 3, 1, 2, 3, 4), box(2, 3, 1, 2, 3, 4))


def test_yolo_labels_are_read_as_well(tmp_path: Path) -> None:
    coco(tmp_path, [], {"a.png": (100, 80), "b.png": (60, 40)}, NAMES)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.5\n2 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [RBC, WBC, dust]\n")
    found = read_labelled(tmp_path / "images", tmp_path / "data.yaml", WORDS)
    assert [example.name for example in found.examples] == ["a.png", "b.png"]
    np.testing.assert_allclose(found.examples[0].xyxy, [[40, 20, 60, 60]], atol=1e-4)
    assert len(found.examples[1].class_id) == 0  # no label file: an image in which nothing is
    assert [fault.reason for fault in found.faults] == ["class not in the ontology"]


@pytest.mark.parametrize(
    "bad", [b"0 0.5 0.5 0.2\n", b"0 0.5 0.5 0.2 dog\n", b"7 0.5 0.5 0.2 0.5\n", b"1e300 0 0 1 1\n", b"\xff\xfe\n"]
)
def test_an_image_with_a_bad_yolo_label_file_is_listed(tmp_path: Path, bad: bytes) -> None:
    coco(tmp_path, [], {"a.png": (100, 80), "b.png": (60, 40), "c.png": (60, 40)}, NAMES)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    (tmp_path / "labels/b.txt").write_bytes(bad)
    (tmp_path / "images/c.png").write_bytes(b"no picture")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [RBC, WBC, dust]\n")
    found = read_labelled(tmp_path / "images", tmp_path / "data.yaml", WORDS)
    assert [example.name for example in found.examples] == ["a.png"]
    assert [(fault.image, fault.reason) for fault in found.faults] == [("b.png", "cannot be read"), ("c.png", "cannot be read")]


def test_the_digest_is_of_masks_too(tmp_path: Path) -> None:
    one, same, other = (
        read(tmp_path / name, box(1, 1, 1, 2, 3, 4, segmentation=[[1, 2, 4, 2, 4, y]]), box(2, 1, 1, 2, 3, 4)).digest
        for name, y in (("one", 6), ("same", 6), ("other", 4))
    )
    assert one == same != other


def test_the_digest_is_of_what_is_learnt(tmp_path: Path) -> None:
    one, same, other = (
        read(tmp_path / name, box(1, 1, 1, 2, 3, size)).digest for name, size in (("one", 4), ("same", 4), ("other", 5))
    )
    assert one == same != other
