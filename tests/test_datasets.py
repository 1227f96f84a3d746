"""Readers of datasets: what ultralytics and pycocotools accept is read as they read it, the rest is refused by name and line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autodistill_grounded_sam import datasets
from autodistill_grounded_sam.datasets import (
    fill_polygon,
    read_yolo,
    read_yolo_image,
    read_yolo_rows,
    yolo_class_names,
    yolo_image_paths,
    yolo_label_file,
)
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.masks import areas

YAML = "train: train/images\nval: valid/images\nnames: [cup, plate]\n"
BOX = "1 0.5 0.5 0.25 0.5\n"
RING = "0 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"


def yolo(folder: Path, labels: dict[str, str | None], settings: str = YAML) -> Path:
    """A dataset of 40 x 20 px images by `split/name.suffix`; None stands for no label file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(settings, encoding="utf-8")
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        split, _, file_name = name.partition("/")
        path = folder / split / "images" / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(path)
        if text is not None:
            label_file = (folder / split / "labels" / file_name).with_suffix(".txt")
            label_file.parent.mkdir(parents=True, exist_ok=True)
            label_file.write_text(text, encoding="utf-8")
    return folder


def test_yolo__boxes_rings_backgrounds_in_order(tmp_path: Path) -> None:
    labels = {
        "valid/a.png": "",
        "train/b.jpg": BOX,
        "train/B2.PNG": None,
        "train/sub/a.x.png": RING + RING.replace("0 ", "1 ", 1),
    }
    folder = yolo(tmp_path / "my images" / "set", labels)
    rows = list(read_yolo(folder))
    assert [(row.split, row.name) for row in rows] == [
        ("train", "B2.PNG"), ("train", "b.jpg"), ("train", "a.x.png"), ("valid", "a.png"),
    ]  # fmt: skip
    nothing, boxes, rings, empty = rows
    for row in (nothing, empty):
        assert (len(row.class_id), row.xyxy.shape, row.rle, row.score) == (0, (0, 4), (), None)
    assert (boxes.class_id.tolist(), boxes.xyxy.tolist(), boxes.rle) == ([1], [[15, 5, 25, 15]], None)
    assert (rings.width, rings.height, rings.class_id.tolist()) == (40, 20, [0, 1])
    assert rings.rle is not None and areas(rings.rle).tolist() == [11 * 11] * 2  # the outline is painted, as trainers do
    assert rings.xyxy[0].tolist() == [10, 5, 21, 16]


def test_yolo__image_paths_are_those_of_read_yolo_and_open_nothing(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/b.png": BOX, "train/a.png": "", "valid/c.png": RING})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"not an image")
    paths = yolo_image_paths(folder)
    assert [(path.name, split) for path, split in paths] == [("a.png", "train"), ("b.png", "train"), ("c.png", "valid")]
    assert yolo_image_paths(folder / "data.yaml", ["valid"]) == paths[2:]
    with pytest.raises(DatasetError, match=r"a\.png of the dataset cannot be opened"):
        list(read_yolo(folder))


def test_yolo__one_image_is_read_as_in_the_whole(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.png": RING, "valid/b.png": BOX})
    for (path, split), row in zip(yolo_image_paths(folder), read_yolo(folder), strict=True):
        one = read_yolo_image(path, split, 2)
        assert (one.path, one.split, one.rle) == (row.path, row.split, row.rle)
        assert (one.xyxy == row.xyxy).all()


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/train/images/a.jpg", "/d/train/labels/a.txt"),
        ("/images/x/images/sub/a.b.png", "/images/x/labels/sub/a.b.txt"),  # the last `images`
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
    ],
)
def test_yolo__label_file_is_where_ultralytics_looks(image: str, label: str) -> None:
    assert yolo_label_file(Path(image)) == Path(label)
    utils = pytest.importorskip("ultralytics.data.utils")
    assert utils.img2label_paths([image]) == [label]


def test_yolo__confidence_files_hidden_files_and_others_are_not_read(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.png": BOX})
    (folder / "train" / "labels" / "confidence-a.txt").write_text("0.9\n")
    (folder / "train" / "images" / "._a.png").write_bytes(b"macOS")
    (folder / "train" / "images" / "notes.md").write_text("mine")
    assert [row.name for row in read_yolo(folder)] == ["a.png"]


def test_yolo__rows_with_scores(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.png": "1 0.5 0.5 0.25 0.5 0.75\n0 0.5 0.5 0.5 0.5 0.5\n"})
    (row,) = read_yolo(folder)
    assert row.score is not None and row.score.tolist() == [0.75, 0.5]
    assert row.xyxy.tolist() == [[15, 5, 25, 15], [10, 5, 30, 15]]


def test_yolo__byte_order_mark_blank_lines_and_float_classes(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.png": "\ufeff1.000 0.5 0.5 0.25 0.5\r\n\r\n  \r\n"})
    (row,) = read_yolo(folder)
    assert row.class_id.tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 9_999_999), min_size=4, max_size=12), max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 300), st.sampled_from("019. -\n:/eé\x1c")), max_size=2),
)
def test_yolo__rows_of_six_digits_are_read_as_any_others(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], changes: list[tuple[int, str]]
) -> None:
    """The short way reads what our writers wrote; what is changed by one character is read the long way, or as it."""
    text = "".join(f"{place} {' '.join(f'{number / 1e6:.6f}' for number in row)}\n" for place, row in enumerate(rows))
    for at, character in changes:
        text = text[:at] + character + text[at + 1 :]
    file = tmp_path_factory.mktemp("rows") / "a.txt"
    file.write_text(text, encoding="utf-8")
    try:
        class_id, expected = datasets._any_yolo_rows(file, text.splitlines())
    except (DatasetError, OverflowError) as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            read_yolo_rows(file)
        return
    found_id, found = read_yolo_rows(file)
    assert found_id.tolist() == class_id.tolist()
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]


def test_yolo__turned_jpeg_has_the_size_that_people_see(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.jpg": BOX})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "train" / "images" / "a.jpg", exif=exif)
    (row,) = read_yolo(folder)
    assert (row.width, row.height, row.xyxy.tolist()) == (20, 40, [[7.5, 10, 12.5, 30]])


@pytest.mark.parametrize(
    "settings",
    [
        "path: .\ntrain: [train/images]\nval: [valid/images]\nnames: {1: plate, 0: cup}\n",
        "train: ../train/images\nval: ../valid/images\nnames: [cup, plate]\n",  # as Roboflow writes it
        "path: {root}\ntrain: {root}/train/images\nval: valid/images\nnames: [cup, plate]\n",
        "train: list.txt\nval: valid/images\nnames: {{'0': cup, '1': plate}}\n",
    ],
)
def test_yolo__forms_of_data_yaml(tmp_path: Path, settings: str) -> None:
    folder = yolo(tmp_path / "x", {"train/a.png": BOX, "valid/b.png": BOX})
    text = settings.format(root=folder.as_posix()) if "{root}" in settings or "{{" in settings else settings
    (folder / "data.yaml").write_text(text)
    (folder / "list.txt").write_text("./train/images/a.png\n\n")
    assert yolo_class_names(folder) == ["cup", "plate"]
    assert [(row.name, row.split, row.class_id.tolist()) for row in read_yolo(folder)] == [
        ("a.png", "train", [1]), ("b.png", "valid", [1]),
    ]  # fmt: skip


def test_yolo__val_that_is_train_is_read_once(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a.png": BOX}, YAML.replace("valid/", "train/"))
    assert [(row.name, row.split) for row in read_yolo(folder)] == [("a.png", "train")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.2\n", r"a\.txt:1 must hold a class and a box \(4 numbers\) or a ring of x y pairs, got 3 numbers"),
        (BOX + "0 .1 .1 .2 .2 .3 .3 .4\n", r"a\.txt:2 must hold a class and a box .* got 7 numbers"),
        ("cup 0.5 0.5 0.2 0.2\n", r"a\.txt:1 must hold numbers only, got 'cup 0\.5 0\.5 0\.2 0\.2'"),
        ("0 nan 0.5 0.2 0.2\n", r"a\.txt:1 must hold a whole class number and finite numbers, got '0 nan"),
        ("nan 0.5 0.5 0.2 0.2\n", r"must hold a whole class number"),
        ("0.5 0.5 0.5 0.2 0.2\n", r"must hold a whole class number"),
        ("2 0.5 0.5 0.2 0.2\n", r"a\.txt holds classes 2 to 2, but data\.yaml names 0 to 1"),
        (BOX + "-1 0.5 0.5 0.2 0.2\n", r"a\.txt holds classes -1 to 1, but data\.yaml names 0 to 1"),
        (BOX + RING, r"a\.txt mixes boxes and rings; ultralytics would drop the whole image"),
    ],
)
def test_yolo__wrong_rows(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        list(read_yolo(yolo(tmp_path, {"train/a.png": text})))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("train: [", r"data\.yaml is not YAML"),
        ("- a\n", r"data\.yaml must hold a mapping with train, val and names, got list"),
        ("train: train/images\nnames: cup\n", r"data\.yaml must hold a list or mapping `names`, got 'cup'"),
        ("train: nowhere/images\nnames: [a]\n", r"data\.yaml names .*nowhere/images, which is not there; keep data\.yaml beside"),
    ],
)
def test_yolo__wrong_settings(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        list(read_yolo(yolo(tmp_path, {"train/a.png": BOX}, settings)))


def test_yolo__missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no YOLO dataset at .*x: expected a folder with a data\.yaml, or the path of one"):
        list(read_yolo(tmp_path / "x"))


def test_yolo__unreadable_image_with_ultralytics_about__installs_nothing(tmp_path: Path) -> None:
    """Once imported, ultralytics replaces `PIL.Image.open` by one that asks pip for a plugin wherever a file is no image."""
    pytest.importorskip("ultralytics")
    import ultralytics.utils.patches  # noqa: F401

    folder = yolo(tmp_path, {"train/a.png": BOX})
    (folder / "train" / "images" / "a.png").write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"a\.png of the dataset cannot be opened: not_an_image"):
        list(read_yolo(folder))


def test_fill_polygon__is_what_ultralytics_paints() -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    rng = np.random.default_rng(0)
    for _ in range(30):
        ring = rng.uniform(0, 1, (int(rng.integers(3, 30)), 2)) * (40, 20) // 0.25 * 0.25 + 0.1
        painted = utils.polygon2mask((20, 40), [ring.astype(np.float32).reshape(-1)])
        assert (fill_polygon(ring, 40, 20) == painted.astype(np.bool_)).all()


@pytest.mark.parametrize("names", ["{1: cup, 2: plate}", "{0: cup, 2: plate}", "{a: cup}"])
def test_yolo__names_with_a_gap__would_give_a_class_another_name(tmp_path: Path, names: str) -> None:
    folder = yolo(tmp_path, {"train/a.png": BOX})
    (folder / "data.yaml").write_text(f"train: train/images\nval: train/images\nnames: {names}\n")
    with pytest.raises(DatasetError, match=r"must number its \d `names` from 0 without a gap"):
        yolo_class_names(folder)


def test_yolo__yaml_and_lists_of_another_machine(tmp_path: Path) -> None:
    folder = yolo(tmp_path, {"train/a b.png": BOX, "train/c.png": BOX})
    (folder / "train.txt").write_bytes("\ufeff./train/images/a b.png\r\n.\\train\\images\\c.png\r\n".encode())
    (folder / "data.yaml").write_text("path: /nowhere/cups\ntrain: [train.txt]\nval:\nnames: [cup, plate]\n")
    assert [path.name for path, _ in yolo_image_paths(folder)] == ["a b.png", "c.png"]
