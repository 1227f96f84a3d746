"""LabelMe, CVAT and Label Studio: what each tool's own library reads from our files, and that nothing moves on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.formats import FORMATS
from autodistill_grounded_sam.export.label_studio import decode_brush, encode_brush
from autodistill_grounded_sam.export.shapes import Crop, shapes_of
from autodistill_grounded_sam.export.writing import Written
from autodistill_grounded_sam.masks import decode_mask, encode_mask, from_coco, mask_iou
from autodistill_grounded_sam.types import Labels, State
from tests.peers import peer

Mask = npt.NDArray[np.bool_]
TOOLS = ("labelme", "cvat", "label-studio")
every_tool = pytest.mark.parametrize("name", TOOLS)


def iou(first: Mask, second: Mask) -> float:
    return float((first & second).sum() / (first | second).sum())


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Any mask of 1 to 14 pixels a side: parts, holes, lines, all of the image; at least one pixel."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    cells = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(cells).reshape(height, width)
    mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return mask


# --- the shape of an object


@settings(max_examples=200, deadline=None)
@given(masks())
def test_shapes__a_plain_outline_is_a_polygon_and_anything_else_comes_back_exactly(mask: Mask) -> None:
    height, width = mask.shape
    rle = encode_mask(mask)
    ys, xs = np.nonzero(mask)
    box = [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]
    (shape,) = shapes_of(Written("train", "a.png", width, height, [0], [box], [rle]))
    if shape.ring is not None:
        assert shape.crop is None and (shape.ring > 0).all() and (shape.ring < (width, height)).all()
        back = decode_mask(from_coco([shape.ring.reshape(-1).tolist()], width, height))
        assert iou(back, mask) >= 0.99
    else:
        assert shape.crop is not None
        back = np.zeros_like(mask)
        rows, columns = shape.crop.mask.shape
        back[shape.crop.top : shape.crop.top + rows, shape.crop.left : shape.crop.left + columns] = shape.crop.mask
        assert (back == mask).all()


@settings(max_examples=100, deadline=None)
@given(masks())
def test_brush__any_mask_comes_back(mask: Mask) -> None:
    height, width = mask.shape
    rle = encode_brush(Crop(0, 0, mask), width, height)
    assert all(0 <= byte < 256 for byte in rle)
    assert (decode_brush(rle, width, height) == mask).all()


def test_brush__of_another_size_is_refused() -> None:
    rle = encode_brush(Crop(0, 0, np.ones((2, 3), np.bool_)), 3, 2)
    with pytest.raises(ValueError, match="a brush mask holds 24 values, not 4 of each of 4x2 pixels"):
        decode_brush(rle, 4, 2)


# --- what is written


@pytest.fixture
def shaped(kit: Any, two: Any) -> Any:
    """One image with a plain object, one with a hole, one in two parts, one at the edges; and an empty image."""
    frame = kit.box(10, 10, 50, 40) & ~kit.box(20, 20, 40, 30)
    parts = kit.box(1, 1, 5, 9) | kit.box(30, 1, 40, 9)
    labels = kit.labels([kit.box(4, 6, 30, 40), frame, parts, kit.box(60, 44, 64, 48)], [2, 0, 1, 0], [0.9, 0.8, 0.7, 0.6])
    return [(two[0][0], labels), two[1]]


@every_tool
def test_every_tool__counts_classes_and_masks_come_back(kit: Any, shaped: Any, tmp_path: Path, name: str) -> None:
    summary = kit.export(shaped, name, tmp_path / "out", valid=["b.png"])
    assert (dict(summary.images), summary.empty) == ({"train": 1, "valid": 1}, 1)
    assert dict(summary.per_class) == {"cup": 2, "plate": 1, "spoon": 1}
    assert summary.lowest_iou == 1.0


@every_tool
def test_every_tool__without_masks_there_are_boxes(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    one = np.zeros(1, np.int32)
    score = np.full(1, 0.5, np.float32)
    labels = Labels(State.LABELLED, one, score, score, np.array([[-3, 4.25, 20.5, 60]], np.float32), one, None)
    summary = kit.export([(two[0][0], labels)], name, tmp_path / "out")
    assert summary.round_trip_iou is None and summary.labels == 1
    if name != "label-studio":
        (row,) = read_dataset(tmp_path / "out")
        assert row.rle is None and np.allclose(row.xyxy, [[0, 4.25, 20.5, 48]], atol=0.01)  # cut at the image's edges


@every_tool
def test_every_tool__an_edit_by_hand_is_not_overwritten(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    kit.export(two, name, tmp_path / "out")
    kit.export(two, name, tmp_path / "out")
    file = {"labelme": "train/a.json", "cvat": "annotations.xml", "label-studio": "tasks.json"}[name]
    path = tmp_path / "out" / file
    path.write_text(path.read_text().replace("cup", "mug"))
    with pytest.raises(ExportError, match="were changed by hand"):
        kit.export(two, name, tmp_path / "out")


@every_tool
def test_every_tool__names_with_markup_are_text(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    names = ["<b>&\"'", "größe", "日本 🍕"]
    kit.export(two, name, tmp_path / "out", names=names)
    if name != "label-studio":
        assert dataset_class_names(tmp_path / "out") == names


@every_tool
def test_every_tool__a_label_that_goes_missing_is_an_error(
    kit: Any, two: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = FORMATS[name]._complete

    def lose_one(self: Any) -> None:
        complete(self)
        file = {"labelme": "train/a.json", "cvat": "annotations.xml", "label-studio": "tasks.json"}[name]
        path = self.partial / file
        text = path.read_text()
        path.write_text(text.replace('"spoon"', '"cup"'))

    monkeypatch.setattr(FORMATS[name], "_complete", lose_one)
    with pytest.raises(ExportError, match=r"a\.png has labels of classes \[2, 0\], but \[0, 0\] were read back"):
        kit.export(two, name, tmp_path / "out")


# --- plain readers


def test_labelme__the_file(kit: Any, shaped: Any, tmp_path: Path) -> None:
    kit.export(shaped, "labelme", tmp_path / "out", valid=["b.png"])
    content = json.loads((tmp_path / "out" / "train" / "a.json").read_text())
    assert (content["imagePath"], content["imageWidth"], content["imageHeight"]) == ("a.png", 64, 48)
    kinds = [(shape["label"], shape["shape_type"]) for shape in content["shapes"]]
    assert kinds == [("spoon", "polygon"), ("cup", "mask"), ("plate", "mask"), ("cup", "polygon")]
    assert content["shapes"][1]["points"] == [[10, 10], [49, 39]]  # first and last pixel
    assert [shape["score"] for shape in content["shapes"]] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert json.loads((tmp_path / "out" / "valid" / "b.json").read_text())["shapes"] == []
    assert (tmp_path / "out" / "labels.txt").read_text() == "cup\nplate\nspoon\n"


def test_cvat__the_file(kit: Any, shaped: Any, tmp_path: Path) -> None:
    kit.export(shaped, "cvat", tmp_path / "out", valid=["b.png"])
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == list(kit.names)
    first, second = root.findall("image")
    assert first.attrib == {"id": "0", "name": "a.png", "subset": "train", "width": "64", "height": "48"}
    assert (second.get("name"), len(second)) == ("b.png", 0)
    assert [shape.tag for shape in first] == ["polygon", "mask", "mask", "polygon"]
    frame = first[1]
    assert [frame.get(key) for key in ("left", "top", "width", "height")] == ["10", "10", "40", "30"]
    assert frame.get("rle", "").startswith("0, 410, 20, 20, 20, ")  # ten full rows and a side, then hole and sides in turn
    assert frame.findtext("attribute") == "0.8000"


def test_label_studio__the_task(kit: Any, shaped: Any, tmp_path: Path) -> None:
    kit.export(shaped, "label-studio", tmp_path / "out", valid=["b.png"])
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=images/train/a.png", "/data/local-files/?d=images/valid/b.png",
    ]  # fmt: skip
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == 0.6
    kinds = [(result["type"], *result["value"][result["type"]], result["score"]) for result in prediction["result"]]
    assert kinds == [
        ("polygonlabels", "spoon", 0.9), ("brushlabels", "cup", 0.8), ("brushlabels", "plate", 0.7),
        ("polygonlabels", "cup", 0.6),
    ]  # fmt: skip
    points = np.array(prediction["result"][0]["value"]["points"])
    assert np.allclose(np.sort(np.unique(points[:, 0])), [100 * 4.25 / 64, 100 * 29.75 / 64], atol=1e-4)
    view = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot()
    assert [label.get("value") for label in view.findall("PolygonLabels/Label")] == list(kit.names)


@pytest.mark.parametrize("name", ["labelme", "cvat"])
def test_our_reader__opens_what_we_wrote(kit: Any, scenes: Any, tmp_path: Path, name: str) -> None:
    kit.export(scenes, name, tmp_path / "out", valid=["scene_0003.png"])
    assert dataset_class_names(tmp_path / "out") == list(kit.names)
    found = {Path(row.name).name: row for row in read_dataset(tmp_path / "out")}
    assert [row.split for file, row in found.items() if file == "scene_0003.png"] == ["valid"]
    for image, labels in scenes:
        row = found[image.id]
        assert row.path is not None and row.class_id.tolist() == labels.class_id.tolist()
        assert min(map(mask_iou, row.rle or (), labels.rle), default=1.0) >= 0.99


# --- the tools' own libraries; docs/formats.md says how to install them


def test_labelme_itself__loads_it(kit: Any, shaped: Any, tmp_path: Path) -> None:
    labelme = peer("labelme")
    from labelme.utils import shape_to_mask

    kit.export(shaped, "labelme", tmp_path / "out", valid=["b.png"])
    loaded = labelme.LabelFile(str(tmp_path / "out" / "train" / "a.json"))
    labels = shaped[0][1]
    assert [shape["label"] for shape in loaded.shapes] == [kit.names[place] for place in labels.class_id]
    for shape, rle in zip(loaded.shapes, labels.rle, strict=True):
        if shape["shape_type"] == "mask":
            (left, top), (right, bottom) = np.array(shape["points"], int)
            mask = np.zeros((48, 64), np.bool_)
            mask[top : bottom + 1, left : right + 1] = shape["mask"]
        else:
            mask = shape_to_mask((48, 64), shape["points"], shape["shape_type"])
        assert (mask == decode_mask(rle)).all()


def test_datumaro__loads_cvat(kit: Any, scenes: Any, tmp_path: Path) -> None:
    dm = peer("datumaro")
    kit.export(scenes, "cvat", tmp_path / "out")
    dataset = dm.Dataset.import_from(str(tmp_path / "out"), "cvat")
    source = {Path(image.id).stem: labels for image, labels in scenes}
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    assert names == list(kit.names) and len(dataset) == len(scenes)
    for item in dataset:
        labels = source[item.id]
        assert [one.label for one in item.annotations] == labels.class_id.tolist()
        for one, rle in zip(item.annotations, labels.rle, strict=True):
            height, width = rle["size"]
            is_mask = one.type == dm.AnnotationType.mask
            back = np.asarray(one.image, bool) if is_mask else decode_mask(from_coco([list(one.points)], width, height))
            assert iou(back, decode_mask(rle)) >= (1.0 if is_mask else 0.99)


def test_label_studio_sdk__reads_the_brush_and_the_config(kit: Any, shaped: Any, tmp_path: Path) -> None:
    brush = peer("label_studio_sdk.converter.brush")
    from label_studio_sdk.label_interface import LabelInterface

    kit.export(shaped, "label-studio", tmp_path / "out", valid=["b.png"])
    interface = LabelInterface((tmp_path / "out" / "label_config.xml").read_text())
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [interface.validate_prediction(task["predictions"][0], return_errors=True) for task in tasks] == [[], []]
    results = tasks[0]["predictions"][0]["result"]
    for result, rle in zip(results, shaped[0][1].rle, strict=True):
        if result["type"] == "brushlabels":
            back = brush.decode_rle(result["value"]["rle"]).reshape(48, 64, 4)[..., 3] > 0
            assert (back == decode_mask(rle)).all()
