"""COCO on disk: the layout that rfdetr looks for, ids that pycocotools can count with, masks that are the very same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.coco_datasets import COCO_FILE, coco_class_names, read_coco
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.coco import CocoWriter
from autodistill_grounded_sam.export.json_files import append_rows
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Labels, State


def content(out: Path, split: str = "train") -> Any:
    return json.loads((out / split / COCO_FILE).read_text(encoding="utf-8"))


def test_layout__is_the_documented_one(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "coco", tmp_path / "out", valid=["b.png"])
    assert set(kit.tree(tmp_path / "out")) == {
        ".grounded-sam-dataset.json", "train/_annotations.coco.json", "train/a.png",
        "valid/_annotations.coco.json", "valid/b.png",
    }  # fmt: skip


def test_json__ids_boxes_areas_and_our_scores(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "coco", tmp_path / "out", valid=["b.png"])
    train = content(tmp_path / "out")
    assert train["categories"] == [
        {"id": place + 1, "name": name, "supercategory": "none"} for place, name in enumerate(kit.names)
    ]
    assert train["images"] == [{"id": 1, "file_name": "a.png", "width": 64, "height": 48, "source": "a.png"}]
    first, second = train["annotations"]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 1, 3, 0)
    assert (first["bbox"], first["area"], first["score"], first["margin"]) == ([4, 6, 26, 34], 26 * 34, 0.9, 0.25)
    assert first["segmentation"] == encode_mask(kit.box(4, 6, 30, 40))
    assert (second["id"], second["category_id"]) == (2, 1)
    valid = content(tmp_path / "out", "valid")
    assert (len(valid["images"]), valid["annotations"], valid["categories"]) == (1, [], train["categories"])
    assert coco_class_names(tmp_path / "out") == list(kit.names)


def test_json__names_of_any_alphabet(kit: Any, two: Any, tmp_path: Path) -> None:
    names = ['la "tasse" \\', "日本\u2028茶碗", "café ☕"]
    kit.export(two, "coco", tmp_path / "out", names=names)
    assert coco_class_names(tmp_path / "out") == names


def test_no_masks__boxes_alone(kit: Any, two: Any, tmp_path: Path) -> None:
    (image, _), _ = two
    boxes = np.array([[1.25, 2, 11, 22.5]], np.float32)
    one = np.zeros(1, np.float32)
    labels = Labels(State.LABELLED, np.zeros(1, np.int32), one, one, boxes, np.zeros(1, np.int32), None)
    summary = kit.export([(image, labels)], "coco", tmp_path / "out")
    (annotation,) = content(tmp_path / "out")["annotations"]
    assert (annotation["segmentation"], annotation["bbox"], annotation["area"]) == ([], [1.25, 2, 9.75, 20.5], 199.875)
    assert summary.round_trip_iou is None
    (row,) = read_coco(tmp_path / "out")
    assert row.rle is None and row.xyxy.tolist() == boxes.tolist()


def test_round_trip__is_exact(kit: Any, scenes: Any, tmp_path: Path) -> None:
    valid = [scenes[0][0].id, scenes[5][0].id]
    summary = kit.export(scenes, "coco", tmp_path / "out", valid=valid)
    assert summary.round_trip_iou == summary.lowest_iou == 1.0
    source = {image.id: labels for image, labels in scenes}
    rows = {row.name: row for row in read_coco(tmp_path / "out")}
    assert rows.keys() == source.keys()
    for name, row in rows.items():
        labels = source[name]
        assert row.split == ("valid" if name in valid else "train")
        assert row.rle == labels.rle and row.path is not None
        assert row.class_id.tolist() == labels.class_id.tolist() and (row.xyxy == labels.xyxy).all()
        assert row.score is None if not len(labels) else np.allclose(row.score, labels.score)


def change(key: str, value: Any) -> Any:
    def tamper(lines: list[str]) -> list[str]:
        place = next(place for place, line in enumerate(lines) if '"bbox"' in line)
        row = json.loads(lines[place].rstrip(","))
        return [*lines[:place], json.dumps({**row, key: value}) + ",", *lines[place + 1 :]]

    return tamper


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (change("category_id", 1), r"coco dataset .*out: label 0 of a\.png was not read back"),
        (change("bbox", [4, 6, 27, 34]), r"a box of a\.png came back in another place"),
        (change("segmentation", encode_mask(np.ones((48, 64)))), r"a mask came back changed \(IoU 0\.288\)"),
        (lambda lines: [line for line in lines if '"id": 2' not in line], r"label 1 of a\.png was not read back"),
        (lambda lines: [line for line in lines for _ in range(1 + ('"bbox"' in line))], r"label 1 of a\.png was not read back"),
        (lambda lines: [*lines[:-2], "," + lines[-3].replace('"id": 2', '"id": 3'), *lines[-2:]], "cannot be read back"),
        (lambda lines: [line.replace('"bbox"', '"box"') for line in lines], "cannot be read back: 'bbox'"),
    ],
)
def test_tampered__is_an_error(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Any, message: str
) -> None:
    complete = CocoWriter._complete

    def change_it(self: Any) -> None:
        complete(self)
        file = self.partial / "train" / COCO_FILE
        file.write_text("\n".join(tamper(file.read_text().splitlines())) + "\n")

    monkeypatch.setattr(CocoWriter, "_complete", change_it)
    with pytest.raises(ExportError, match=message):
        kit.export(two, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_than_was_written__is_an_error(kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = CocoWriter._complete

    def add_one(self: Any) -> None:
        append_rows(self._part_file("valid", "annotations"), [{"id": 9}])
        complete(self)

    monkeypatch.setattr(CocoWriter, "_complete", add_one)
    with pytest.raises(ExportError, match=r"valid/_annotations\.coco\.json holds more labels than were written"):
        kit.export(two, "coco", tmp_path / "out")


def test_pycocotools__loads_it_and_its_masks_are_ours(kit: Any, scenes: Any, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    from autodistill_grounded_sam.masks import decode_mask

    kit.export(scenes, "coco", tmp_path / "out")
    coco = COCO(str(tmp_path / "out" / "train" / COCO_FILE))
    source = {image.id: labels for image, labels in scenes}
    assert len(coco.anns) == sum(map(len, source.values()))
    for image in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for annotation, rle in zip(annotations, source[image["source"]].rle, strict=True):
            assert (coco.annToMask(annotation).astype(np.bool_) == decode_mask(rle)).all()
            assert coco.loadCats(annotation["category_id"])[0]["name"] == kit.names[annotation["category_id"] - 1]


@pytest.mark.slow
def test_supervision__loads_it(kit: Any, scenes: Any, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    from autodistill_grounded_sam.masks import decode_mask

    kit.export(scenes, "coco", tmp_path / "out")
    train = tmp_path / "out" / "train"
    dataset = sv.DetectionDataset.from_coco(str(train), str(train / COCO_FILE), force_masks=True)
    assert dataset.classes == list(kit.names) and len(dataset) == len(scenes)
    source = {image.id: labels for image, labels in scenes}
    for path, _, found in dataset:
        labels = source[Path(path).name]
        assert found.class_id.tolist() == labels.class_id.tolist()
        assert (found.mask == np.stack([decode_mask(rle) for rle in labels.rle])).all()
