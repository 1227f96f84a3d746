"""Datasets as people's tools write them, not as ours does: odd places, groups, turned boxes, and what is no object."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import areas, decode_mask
from autodistill_grounded_sam.voc_datasets import voc_palette


def picture(path: Path, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def told(dataset: Path) -> tuple[list[Any], list[tuple[str, str, str]]]:
    """The rows, and what was left out."""
    faults: list[tuple[str, str, str]] = []
    return list(read_dataset(dataset, on_bad=lambda *fault: faults.append(fault))), faults


# --- PASCAL VOC


def voc(name: str, *objects: str, size: str = "<size><width>64</width><height>48</height></size>") -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def box(name: str, *corners: float) -> str:
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"


def test_voc__xml_beside_the_images_as_roboflow_exports_it(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("valid", "b")):
        picture(tmp_path / split / f"{name}.jpg")
        (tmp_path / split / f"{name}.xml").write_text(voc(f"{name}.jpg", box("cup", 0, 0, 10, 20), box("plate", 11, 5, 64, 48)))
    first, second = read_dataset(tmp_path)
    assert dataset_class_names(tmp_path) == ["cup", "plate"]
    assert (first.split, second.split) == ("train", "valid") and first.path == tmp_path / "train" / "a.jpg"
    assert first.xyxy.tolist() == [[0, 0, 10, 20], [10, 4, 64, 48]] and first.rle is None  # cut at the image's edge


def test_voc__a_renamed_image_without_a_size_is_found_by_the_name_of_the_xml(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.png", 30, 20)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(voc("C:\\old\\place\\a.png", box("cup", 1, 1, 5, 5), size=""))
    (row,) = read_dataset(tmp_path)
    assert (row.name, row.width, row.height, row.split) == ("a.png", 30, 20, "train")


def test_voc__the_lists_say_the_split(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(voc(f"{name}.jpg"))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    (tmp_path / "ImageSets" / "Main" / "cup_val.txt").write_text("a -1\n")  # of one class: no list of a split
    assert [(row.name, row.split) for row in read_dataset(tmp_path)] == [("a.jpg", "train"), ("b.jpg", "valid")]


def test_voc__lists_with_blanks_and_flags_and_a_test_list(tmp_path: Path) -> None:
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("my cup", "b", "c", "d"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(voc(f"{name}.jpg", box("cup", 1, 1, 5, 5)))
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("my cup\r\nb  -1\r\n")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("d\n")
    sides = {row.name: (row.split, row.test) for row in read_dataset(tmp_path)}
    valid = ("valid", False)
    assert sides == {"my cup.jpg": valid, "b.jpg": valid, "c.jpg": ("train", False), "d.jpg": ("valid", True)}


def test_voc__classes_that_look_like_the_labelmap_s_own_lines(tmp_path: Path) -> None:
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "background:128,0,0::", "#1:0,128,0::", "a:b:1,2,3::"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    (tmp_path / "a.xml").write_text(voc("a.jpg", box("#1", 1, 1, 5, 5), box("background", 1, 1, 5, 5)))
    (row,) = read_dataset(tmp_path)
    assert dataset_class_names(tmp_path) == ["background", "#1", "a:b"] and row.class_id.tolist() == [1, 0]


def test_voc__masks_in_another_order_than_the_objects(tmp_path: Path) -> None:
    """As Datumaro numbers them; a mask that is partly covered still lies in its box."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "SegmentationObject").mkdir()
    numbers = np.zeros((48, 64), np.uint8)
    numbers[20:24, 30:32], numbers[:10, :10], numbers[40:48, 40:60] = 1, 2, 3
    boxes = box("cup", 1, 1, 10, 20), box("plate", 31, 21, 32, 24), box("cup", 41, 41, 60, 48)
    (tmp_path / "Annotations" / "a.xml").write_text(voc("a.jpg", *boxes))
    Image.fromarray(numbers).save(tmp_path / "SegmentationObject" / "a.png")
    (row,) = read_dataset(tmp_path)
    assert areas(row.rle or ()).tolist() == [100, 8, 160]


def test_voc__masks_in_the_colours_of_voc_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "SegmentationObject").mkdir()
    numbers = np.zeros((48, 64), np.uint8)
    numbers[:10, :10], numbers[20:24, 30:32] = 1, 2
    for name, picture_ in (("a", np.array(voc_palette(), np.uint8).reshape(-1, 3)[numbers]), ("b", numbers.T)):
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            voc(f"{name}.jpg", box("cup", 1, 1, 10, 10), box("cup", 31, 21, 32, 24))
        )
        Image.fromarray(np.ascontiguousarray(picture_)).save(tmp_path / "SegmentationObject" / f"{name}.png")
    (first, second), faults = told(tmp_path)
    assert first.rle is not None and areas(first.rle).tolist() == [100, 8]
    assert second.rle is None and len(second.xyxy) == 2
    assert [reason for _, reason, _ in faults] == ["masks of another size"]


def test_voc__what_is_wrong_is_told_or_raised(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc("a.jpg", box("cup", 9, 9, 5, 5), box("cup", 1, 1, 5, 5)))
    with pytest.raises(DatasetError, match=r"a\.jpg is not after PASCAL VOC: shape 1: a bndbox needs xmin <= xmax"):
        list(read_dataset(tmp_path))
    ((row,), faults) = told(tmp_path)
    assert len(row.class_id) == 1 and [fault[0] for fault in faults] == ["a.jpg"]
    (tmp_path / "a.xml").write_text("<annotation><object>")
    with pytest.raises(DatasetError, match=r"a\.xml is not XML"):
        list(read_dataset(tmp_path))


# --- LabelMe


def labelme(path: Path, *shapes: dict[str, Any], **more: Any) -> None:
    picture(path.with_suffix(".jpg"))
    whole = [{"group_id": None, "flags": {}, **shape} for shape in shapes]
    path.write_text(json.dumps({"version": "5.4.1", "imagePath": path.with_suffix(".jpg").name, "shapes": whole, **more}))


def polygon(label: str, *points: tuple[float, float], group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": "polygon", "group_id": group}


def test_labelme__parts_of_one_group_are_one_object(tmp_path: Path) -> None:
    square = ((0, 0), (10, 0), (10, 10), (0, 10))
    moved = tuple((x + 20, y) for x, y in square)
    labelme(tmp_path / "a.json", polygon("cup", *square, group=1), polygon("cup", *moved, group=1), polygon("cup", *moved))
    (row,) = read_dataset(tmp_path)
    assert areas(row.rle or ()).tolist() == [200, 100] and row.xyxy.tolist() == [[0, 0, 30, 10], [20, 0, 30, 10]]


def test_labelme__a_box_makes_the_image_one_of_boxes(tmp_path: Path) -> None:
    turned = {"label": "plate", "points": [[30, 40], [5, -3]], "shape_type": "rectangle"}
    labelme(tmp_path / "a.json", turned, polygon("cup", (0, 0), (10, 0), (10, 10)))
    (row,) = read_dataset(tmp_path)
    assert row.rle is None and row.xyxy[0].tolist() == [5, 0, 30, 40]  # corners in any order, cut at the edge


def test_labelme__its_mask_is_taken_as_it_is(tmp_path: Path) -> None:
    crop = np.eye(4, dtype=np.uint8) * 255
    data = io.BytesIO()
    Image.fromarray(crop).save(data, "PNG")
    shape = {"label": "cup", "shape_type": "mask", "points": [[3, 5], [6, 8]], "mask": base64.b64encode(data.getvalue()).decode()}
    labelme(tmp_path / "a.json", shape)
    (row,) = read_dataset(tmp_path)
    assert (decode_mask((row.rle or ())[0])[5:9, 3:7] == np.eye(4, dtype=bool)).all()


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (
            {"label": "cup", "points": [[1, 1]], "shape_type": "point"},
            "shape_type 'point' is neither polygon, rectangle nor mask",
        ),
        ({"label": "cup", "points": [[1, 1], [2, 2]], "shape_type": "polygon"}, "a polygon needs 3 points, got 2"),
        ({"label": "cup", "points": [[1, 1], [2, 2]], "shape_type": "mask", "mask": "no"}, "its mask is no PNG"),
    ],
)
def test_labelme__what_is_no_object_is_told_or_raised(tmp_path: Path, shape: dict[str, Any], why: str) -> None:
    labelme(tmp_path / "a.json", polygon("plate", (0, 0), (10, 0), (10, 10)), shape)
    with pytest.raises(DatasetError, match=rf"a\.jpg is not after LabelMe: shape 2: {why}"):
        list(read_dataset(tmp_path))
    ((row,), faults) = told(tmp_path)
    assert len(row.class_id) == 1 and why in faults[0][2]


# --- CVAT


def cvat(folder: Path, body: str, labels: tuple[str, ...] = ("cup", "plate")) -> Path:
    picture(folder / "images" / "a.jpg")
    names = "".join(f"<label><name>{name}</name></label>" for name in labels)
    image = f'<image id="0" name="a.jpg" width="64" height="48">{body}</image>'
    text = f"<annotations><version>1.1</version><meta><task><labels>{names}</labels></task></meta>{image}</annotations>"
    (folder / "annotations.xml").write_text(text)
    return folder


def test_cvat__boxes_turned_boxes_polygons_and_masks(tmp_path: Path) -> None:
    cvat(
        tmp_path,
        '<box label="cup" xtl="10" ytl="20" xbr="30" ybr="30" rotation="90"/>'
        '<polygon label="plate" points="0,0;10,0;10,10;0,10"/>'
        '<mask label="cup" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>',
    )
    (row,) = read_dataset(tmp_path)
    assert dataset_class_names(tmp_path) == ["cup", "plate"] and row.class_id.tolist() == [0, 1, 0]
    assert row.xyxy.tolist() == [[15, 15, 25, 35], [0, 0, 10, 10], [5, 5, 7, 6]]  # turned by a quarter around its middle
    assert next(iter(read_dataset(tmp_path / "annotations.xml"))).path == tmp_path / "images" / "a.jpg"


def test_cvat__tags_are_no_objects_and_other_shapes_are_told(tmp_path: Path) -> None:
    cvat(tmp_path, '<tag label="cup"/><polyline label="cup" points="0,0;9,9"/><box label="cup" xtl="1" ytl="1" xbr="2" ybr="2"/>')
    with pytest.raises(DatasetError, match=r"a\.jpg is not after CVAT for images 1\.1: shape 1: a <polyline> is neither box"):
        list(read_dataset(tmp_path))
    ((row,), faults) = told(tmp_path)
    assert row.xyxy.tolist() == [[1, 1, 2, 2]] and len(faults) == 1


def test_cvat__a_mask_beyond_the_image_and_a_video_are_refused(tmp_path: Path) -> None:
    cvat(tmp_path, '<mask label="cup" rle="0, 6" left="62" top="5" width="3" height="2"/>')
    with pytest.raises(DatasetError, match=r"a mask of 3x2 at 62, 5 reaches beyond the image of 64x48"):
        list(read_dataset(tmp_path))
    cvat(tmp_path, "")
    text = (tmp_path / "annotations.xml").read_text().replace("<image", '<track id="0" label="cup"></track><image', 1)
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DatasetError, match=r"holds tracks of a video: export it from CVAT as"):
        list(read_dataset(tmp_path))


def test_a_label_that_the_dataset_does_not_list_is_an_error(tmp_path: Path) -> None:
    cvat(tmp_path, '<box label="spoon" xtl="1" ytl="1" xbr="2" ybr="2"/>')
    with pytest.raises(DatasetError, match=r"a\.jpg has a label 'spoon', which is none of the classes cup, plate"):
        list(read_dataset(tmp_path))
    ((row,), faults) = told(tmp_path)
    assert len(row.class_id) == 0 and faults[0][:2] == ("a.jpg", "unknown class")


def test_one_bad_file__is_told_and_does_not_cost_the_others(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(voc("a.jpg", box("cup", 1, 1, 5, 5)))
    (tmp_path / "voc" / "b.xml").write_text(voc("b.jpg", box("cup", 1, 1, 5, 5))[:-20])
    (tmp_path / "labelme").mkdir()
    labelme(tmp_path / "labelme" / "a.json", {"label": "cup", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]})
    (tmp_path / "labelme" / "b.json").write_text('{"shapes": [')
    for tool in ("voc", "labelme"):
        rows, faults = told(tmp_path / tool)
        assert len(rows) == 1 and len(faults) == 1 and faults[0][0].startswith("b."), tool


def test_scores_and_blanks_around_names(tmp_path: Path) -> None:
    box_ = {"label": "cup", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    labelme(tmp_path / "a.json", {**box_, "label": "cup ", "score": 0.25}, box_)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncup\n", encoding="utf-8-sig")
    (row,) = read_dataset(tmp_path)
    assert dataset_class_names(tmp_path) == ["cup"] and row.score is not None and row.score.tolist() == [0.25, 1]
