"""Painted masks: plain PNG, COCO panoptic and PASCAL VOC, in the eyes of plain readers and of the tools that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.painted import ious_with, paint_objects
from autodistill_grounded_sam.masks import decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.types import Labels, State
from autodistill_grounded_sam.voc_datasets import voc_palette
from tests.peers import peer

PAINTED = ("masks", "coco-panoptic", "voc")
every_painted = pytest.mark.parametrize("name", PAINTED)


def array(path: Path) -> Any:
    return np.asarray(Image.open(path)).astype(int)


@st.composite
def overlapping(draw: st.DrawFn) -> list[Any]:
    """Boxes anywhere in 12 x 9 pixels."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        x, y = draw(st.integers(0, 11)), draw(st.integers(0, 8))
        mask = np.zeros((9, 12), np.bool_)
        mask[y : y + draw(st.integers(1, 9)), x : x + draw(st.integers(1, 12))] = True
        found.append(mask)
    return found


@settings(max_examples=150, deadline=None)
@given(overlapping())
def test_paint__every_pixel_goes_to_the_smallest_that_covers_it(masks: list[Any]) -> None:
    rles = [encode_mask(mask) for mask in masks]
    picture = paint_objects(rles, 12, 9)
    order = sorted(range(len(masks)), key=lambda place: (masks[place].sum(), place))
    for y, x in np.ndindex(9, 12):
        wanted = next((place + 1 for place in order if masks[place][y, x]), 0)
        assert picture[y, x] == wanted
    for place, iou in enumerate(ious_with(picture, rles)):
        assert iou == pytest.approx(mask_iou(rles[place], encode_mask(picture == place + 1)))


def test_palette__is_that_of_voc() -> None:
    colours = np.array(voc_palette()).reshape(-1, 3)
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]] and colours[255].tolist() == [
        224,
        224,
        192,
    ]


@pytest.fixture
def stacked(kit: Any, two: Any) -> Any:
    """A plate, a cup on it, and a spoon of the cup's own pixels, so that one of the two cannot be seen; and an empty image."""
    cup = kit.box(10, 10, 20, 20)
    return [(two[0][0], kit.labels([kit.box(4, 4, 44, 40), cup, cup], [1, 0, 2], [0.9, 0.8, 0.7])), two[1]]


@every_painted
def test_overlaps__cost_the_lower_object_and_are_counted(kit: Any, stacked: Any, tmp_path: Path, name: str) -> None:
    summary = kit.export(stacked, name, tmp_path / "out", valid=["b.png"])
    assert (dict(summary.images), summary.empty) == ({"train": 1, "valid": 1}, 1)
    plate = (40 * 36 - 100) / (40 * 36)
    if name == "voc":
        assert summary.labels == 3 and summary.lowest_iou == 0
        assert summary.notes == ("1 object(s) lie wholly under smaller ones: they keep their box, not their mask",)
    else:
        assert dict(summary.per_class) == {"cup": 1, "plate": 1, "spoon": 0}  # the better of the two that are alike
        assert summary.lowest_iou == pytest.approx(plate)
        assert summary.notes == ("1 object(s) lie wholly under smaller ones and were left out",)


def test_masks__the_pictures(kit: Any, stacked: Any, tmp_path: Path) -> None:
    kit.export(stacked, "masks", tmp_path / "out", valid=["b.png"])
    out = tmp_path / "out"
    classes, objects = array(out / "train" / "classes" / "a.png"), array(out / "train" / "objects" / "a.png")
    assert classes.shape == (48, 64) and (classes[4, 4], classes[10, 10], classes[0, 0]) == (2, 1, 0)
    assert (objects[4, 4], objects[10, 10], objects[0, 0]) == (1, 2, 0)
    assert not array(out / "valid" / "classes" / "b.png").any()
    assert (out / "classes.txt").read_text() == "cup\nplate\nspoon\n"


def test_masks__more_than_255_objects_are_16_bits(kit: Any, two: Any, tmp_path: Path) -> None:
    pixels = [kit.box(k % 64, k // 64, k % 64 + 1, k // 64 + 1) for k in range(300)]
    summary = kit.export([(two[0][0], kit.labels(pixels))], "masks", tmp_path / "out")
    assert summary.labels == 300 and summary.lowest_iou == 1.0
    assert array(tmp_path / "out" / "train" / "objects" / "a.png").max() == 300
    few = kit.export([(two[0][0], kit.labels(pixels))], "voc", tmp_path / "voc")
    assert "1 image(s) with over 254 objects or classes have boxes only: VOC's masks hold no more" in few.notes


def test_panoptic__pictures_and_segments_fit(kit: Any, stacked: Any, tmp_path: Path) -> None:
    kit.export(stacked, "coco-panoptic", tmp_path / "out", valid=["b.png"])
    folder = tmp_path / "out" / "annotations"
    content = json.loads((folder / "panoptic_train.json").read_text())
    (row,) = content["annotations"]
    rgb = array(folder / "panoptic_train" / row["file_name"])
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {names[segment["category_id"]]: segment for segment in row["segments_info"]}
    assert set(found) == {"plate", "cup"} and found["cup"]["bbox"] == [10, 10, 10, 10]
    assert all((ids == segment["id"]).sum() == segment["area"] for segment in found.values())
    (image,) = content["images"]
    assert image["id"] == row["image_id"] and (tmp_path / "out" / "images" / "train" / image["file_name"]).is_file()
    assert json.loads((folder / "panoptic_valid.json").read_text())["annotations"][0]["segments_info"] == []


@pytest.mark.parametrize("name", ["masks", "coco-panoptic"])
def test_without_masks__there_is_nothing_to_paint(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    one, score = np.zeros(1, np.int32), np.full(1, 0.5, np.float32)
    labels = Labels(State.LABELLED, one, score, score, np.array([[1, 2, 9, 9]], np.float32), one, None)
    with pytest.raises(ExportError, match=rf"a\.png has no masks .*, so {name} cannot be written: use --format coco"):
        kit.export([(two[0][0], labels)], name, tmp_path / "out")


@every_painted
def test_a_picture_corrected_by_hand__is_not_overwritten(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    kit.export(two, name, tmp_path / "out")
    where = {"masks": "train/objects", "coco-panoptic": "annotations/panoptic_train", "voc": "SegmentationObject"}[name]
    Image.new("L", (64, 48)).save(tmp_path / "out" / where / "a.png")
    with pytest.raises(ExportError, match="were changed by hand"):
        kit.export(two, name, tmp_path / "out")


# --- VOC


def test_voc__the_files(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "voc", tmp_path / "out", valid=["b.png"])
    out = tmp_path / "out"
    root = ElementTree.parse(out / "Annotations" / "a.xml").getroot()
    assert (root.findtext("filename"), root.findtext("size/width"), root.findtext("size/height")) == ("a.png", "64", "48")
    first = root.findall("object")[0]
    corners = [first.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    assert (first.findtext("name"), corners) == ("spoon", ["5", "7", "30", "40"])  # pixels 4 to 29, counted from 1
    objects, classes = array(out / "SegmentationObject" / "a.png"), array(out / "SegmentationClass" / "a.png")
    assert (objects[6, 4], classes[6, 4], objects[10, 40], classes[10, 40]) == (1, 3, 2, 1)
    assert (out / "ImageSets" / "Main" / "train.txt").read_text() == "a\n"
    assert (out / "ImageSets" / "Main" / "val.txt").read_text() == "b\n"
    assert (out / "labelmap.txt").read_text().splitlines()[:3] == [
        "# label:color_rgb:parts:actions", "background:0,0,0::", "cup:128,0,0::",
    ]  # fmt: skip


def test_voc__our_reader_opens_it(kit: Any, scenes: Any, tmp_path: Path) -> None:
    kit.export(scenes, "voc", tmp_path / "out", valid=["scene_0003.png"])
    assert dataset_class_names(tmp_path / "out") == list(kit.names)
    found = {row.name: row for row in read_dataset(tmp_path / "out")}
    assert {row.name for row in found.values() if row.split == "valid"} == {"scene_0003.png"}
    for image, labels in scenes:
        row = found[image.id]
        assert row.class_id.tolist() == labels.class_id.tolist() and np.array_equal(row.xyxy, labels.xyxy)
        assert min(map(mask_iou, row.rle or (), labels.rle), default=1.0) == 1.0


@pytest.mark.slow
def test_voc__supervision_loads_it(kit: Any, scenes: Any, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    kit.export(scenes, "voc", tmp_path / "out")
    out = tmp_path / "out"
    dataset = sv.DetectionDataset.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    source = {image.id: labels for image, labels in scenes}
    assert len(dataset) == len(scenes)
    for path, _, found in dataset:
        labels = source[Path(path).name]
        assert [dataset.classes[place] for place in found.class_id] == [kit.names[place] for place in labels.class_id]
        assert np.array_equal(found.xyxy, labels.xyxy)


@pytest.mark.slow
def test_voc__torchvision_loads_it(kit: Any, two: Any, tmp_path: Path) -> None:
    """torchvision takes the devkit's folder layout and file names, so the images must be JPEG."""
    torchvision = pytest.importorskip("torchvision.datasets")
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    (tmp_path / "jpg").mkdir()
    Image.fromarray(noise).save(tmp_path / "jpg" / "a.jpg")
    rows = kit.rows(tmp_path / "jpg", {"a.jpg": two[0][1]})
    kit.export(rows, "voc", tmp_path / "root" / "VOCdevkit" / "VOC2012")
    detection = torchvision.VOCDetection(str(tmp_path / "root"), "2012", "train")
    (_, target), (_, mask) = detection[0], torchvision.VOCSegmentation(str(tmp_path / "root"), "2012", "train")[0]
    assert [item["name"] for item in target["annotation"]["object"]] == ["spoon", "cup"]
    assert sorted(np.unique(np.asarray(mask))) == [0, 1, 3]


def test_datumaro__loads_voc_and_panoptic(kit: Any, scenes: Any, tmp_path: Path) -> None:
    dm = peer("datumaro")
    kit.export(scenes, "coco-panoptic", tmp_path / "panoptic")
    dataset = dm.Dataset.import_from(str(tmp_path / "panoptic"), "coco_panoptic")
    source = {Path(image.id).stem: labels for image, labels in scenes}
    assert {item.id for item in dataset if item.subset == "train"} == set(source)
    for item in dataset:
        masks = [one for one in item.annotations if one.type == dm.AnnotationType.mask]
        assert [one.label for one in masks] == source[item.id].class_id.tolist()
        for one, rle in zip(masks, source[item.id].rle, strict=True):
            assert (np.asarray(one.image, bool) == decode_mask(rle)).all()
    kit.export(scenes, "voc", tmp_path / "voc")
    dataset = dm.Dataset.import_from(str(tmp_path / "voc"), "voc")
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    counts = {item.id: sum(one.type == dm.AnnotationType.bbox for one in item.annotations) for item in dataset}
    assert counts == {stem: len(labels) for stem, labels in source.items()} and names[1:4] == list(kit.names)


def test_datumaro__masks_of_its_voc_are_read_by_us(kit: Any, scenes: Any, tmp_path: Path) -> None:
    """It paints objects in VOC's colours, and numbers them in another order than it lists them."""
    datumaro = peer("datumaro")
    kit.export(scenes, "voc", tmp_path / "ours")
    datumaro.Dataset.import_from(str(tmp_path / "ours"), "voc").export(str(tmp_path / "theirs"), "voc", save_media=True)
    for ours, theirs in zip(read_dataset(tmp_path / "ours"), read_dataset(tmp_path / "theirs"), strict=True):
        assert (ours.name, ours.class_id.tolist()) == (theirs.name, theirs.class_id.tolist())
        assert min(map(mask_iou, ours.rle or (), theirs.rle or ()), default=1) == 1
