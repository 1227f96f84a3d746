"""A labelled dataset as a run: what goes in comes out, sides are kept, and missing classes are added from a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import DatasetError, WrongRunError
from autodistill_grounded_sam.importing import import_dataset
from autodistill_grounded_sam.masks import areas, mask_iou
from autodistill_grounded_sam.pipeline import decided_labels, export_run, redecide
from autodistill_grounded_sam.testing import paint_folder

NAMES = ("cup", "plate")


def people(folder: Path, count: int = 4, names: tuple[str, ...] = NAMES) -> Path:
    """A YOLO dataset as people make it: a plate, a cup wholly inside it, and the same plate labelled twice."""
    paint_folder(folder / "pool", count, seed=3)
    for place, image in enumerate(sorted((folder / "pool").glob("*.png"))):
        side = folder / ("valid" if place == 1 else "train")
        (side / "images").mkdir(parents=True, exist_ok=True)
        (side / "labels").mkdir(exist_ok=True)
        image.rename(side / "images" / image.name)
        rows = ["1 0.5 0.5 0.4 0.4", "1 0.5 0.5 0.1 0.1", "1 0.5 0.5 0.4 0.4"] if place == 0 else ["0 0.25 0.25 0.5 0.5"]
        (side / "labels" / image.with_suffix(".txt").name).write_text("\n".join(rows[: 3 * (place < 3)]))
    shutil.rmtree(folder / "pool")
    settings = f"train: train/images\nval: valid/images\nnames: {json.dumps(list(names))}\n"
    (folder / "data.yaml").write_text(settings)
    return folder


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    dataset = people(tmp_path / "in")
    summary = import_dataset(dataset, tmp_path / "run")
    assert dict(summary.per_class) == {"cup": 2, "plate": 3}  # equal and nested labels stay: nothing is judged
    assert (summary.images["labelled"], summary.images["empty"], summary.failed) == (3, 1, [])
    export_run(tmp_path / "run", "yolo", tmp_path / "out")
    before, after = ({row.name: row for row in read_dataset(place)} for place in (dataset, tmp_path / "out"))
    assert dataset_class_names(tmp_path / "out") == list(NAMES) and len(before) == len(after) == 4
    for name, row in before.items():
        found = next(other for key, other in after.items() if key.endswith(name))
        assert (found.split, found.class_id.tolist()) == (row.split, row.class_id.tolist())
        assert np.allclose(found.xyxy, row.xyxy, atol=0.01)


@pytest.mark.parametrize("format_", ["yolo-seg", "coco", "voc", "labelme", "cvat"])
def test_every_format_that_can_be_read(kit: Any, tmp_path: Path, format_: str) -> None:
    kit.paint(tmp_path / "in" / "a.png", seed=1)
    kit.paint(tmp_path / "in" / "b.png", seed=2)
    frame = kit.box(10, 10, 50, 40) & ~kit.box(20, 20, 40, 30)
    labels = {"a.png": kit.labels([frame, kit.box(1, 1, 9, 9)], [2, 0])}
    rows = kit.rows(tmp_path / "in", labels)
    kit.export(rows, format_, tmp_path / "dataset", valid=["b.png"])
    summary = import_dataset(tmp_path / "dataset", tmp_path / "run")
    assert dict(summary.per_class) == {"cup": 1, "plate": 0, "spoon": 1} and summary.images["empty"] == 1
    ontology, found = decided_labels(tmp_path / "run")
    (_, first), (_, second) = sorted(found, key=lambda item: Path(item[0].id).name)
    assert len(second) == 0 and sorted(ontology.class_names[k] for k in first.class_id) == ["cup", "spoon"]
    by_class = {int(k): rle for k, rle in zip(first.class_id, first.rle or (), strict=True)}
    assert mask_iou(by_class[2], labels["a.png"].rle[0]) >= 0.99


def test_again__goes_on_and_other_labels_are_refused(tmp_path: Path) -> None:
    dataset = people(tmp_path / "in")
    first = import_dataset(dataset, tmp_path / "run")
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "run" / "candidates").iterdir()}
    assert import_dataset(dataset, tmp_path / "run").per_class == first.per_class
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "run" / "candidates").iterdir()} == parts
    label = next((dataset / "train" / "labels").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(WrongRunError, match=r"detector: the labels of in \(sha256 .*\) -> the labels of in \(sha256"):
        import_dataset(dataset, tmp_path / "run")


def test_scores_are_kept__and_can_be_thresholded(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "in" / "a.png")
    labels = kit.labels([kit.box(1, 1, 9, 9), kit.box(20, 20, 40, 40)], [0, 1], [0.9, 0.2])
    kit.export(kit.rows(tmp_path / "in", {"a.png": labels}), "coco", tmp_path / "dataset")
    assert import_dataset(tmp_path / "dataset", tmp_path / "run").labels == 2
    config = DecideConfig(box_threshold=0.5, text_threshold=0.0)
    assert dict(redecide(tmp_path / "run", config).per_class) == {"cup": 1, "plate": 0, "spoon": 0}


def test_scores_near_0__leave_the_class_as_it_is(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "in" / "a.png")
    labels = kit.labels([kit.box(left, 1, left + 8, 9) for left in (1, 11, 21)], [1, 2, 1], [0.9, 0.004, 1e-9])
    kit.export(kit.rows(tmp_path / "in", {"a.png": labels}), "coco", tmp_path / "dataset")
    assert dict(import_dataset(tmp_path / "dataset", tmp_path / "run").per_class) == {"cup": 0, "plate": 2, "spoon": 1}


def coco(folder: Path, labels: list[dict[str, Any]], name: str = "a.png", **more: Any) -> Path:
    """One image with labels of class 7, `cup`, as people's tools write them."""
    annotations = [{"id": k, "image_id": 1, "category_id": 7, "bbox": [1, 1, 8, 8], **one} for k, one in enumerate(labels)]
    images = [{"id": 1, "file_name": name, "width": 64, "height": 48}]
    content = {"images": images, "categories": [{"id": 7, "name": "cup"}], "annotations": annotations, **more}
    (folder / "truth.json").write_text(json.dumps(content))
    return folder / "truth.json"


SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


def opened(run: Path) -> Any:
    """The labels of the only image."""
    ((_, labels),) = list(decided_labels(run)[1])
    return labels


def test_a_box_among_masks__is_filled_and_told__and_the_masks_stay(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    speck = {"segmentation": [[30.1, 30.1, 30.2, 30.1, 30.2, 30.2]], "bbox": [30.1, 30.1, 0.1, 0.1]}  # a polygon of no pixel
    file = coco(tmp_path / "d", [{"segmentation": SQUARE, "bbox": [10, 10, 10, 10]}, {"segmentation": []}, speck])
    summary = import_dataset(file, tmp_path / "run")
    labels = opened(tmp_path / "run")
    assert summary.labels == 3 and areas(labels.rle).tolist()[:2] == [100, 64] and 1 <= areas(labels.rle)[2] <= 4
    assert any(note.startswith("2 label(s) without a mask in images of masks") for note in summary.notes)


def test_a_crowd_mask__does_not_make_boxes_masks(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    runs = {"size": [48, 64], "counts": [10, 5, 48 * 64 - 15]}
    file = coco(tmp_path / "d", [{"segmentation": runs, "iscrowd": 1}, {"segmentation": []}])
    assert import_dataset(file, tmp_path / "run").labels == 1 and opened(tmp_path / "run").rle is None


@pytest.mark.parametrize(
    "bad",
    [
        {"bbox": [5, 5, -3, 4]},
        {"bbox": [5, 5, 0, 0]},
        {"bbox": [70, 50, 9, 9]},
        {"bbox": [float("nan"), 1, 2, 2]},
        {"score": 1.5},
        {"segmentation": {"size": [48, 64], "counts": "@@@"}},
    ],
)
def test_one_bad_label__is_told_and_does_not_cost_the_others(kit: Any, tmp_path: Path, bad: dict[str, Any]) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    summary = import_dataset(coco(tmp_path / "d", [{}, bad, {"bbox": [-5, 40, 20, 20]}]), tmp_path / "run")
    assert summary.labels == 2 and any(note.startswith("1 label(s) or image(s)") for note in summary.notes)
    assert sorted(opened(tmp_path / "run").xyxy.tolist()) == [[0, 40, 15, 48], [1, 1, 9, 9]]  # cut at the edges


@pytest.mark.parametrize("name", ["C:\\data\\pics\\a.png", "/nowhere/pics/a.png", "pics\\a.png"])
def test_file_names_of_another_machine(kit: Any, tmp_path: Path, name: str) -> None:
    kit.paint(tmp_path / "d" / "pics" / "a.png")
    assert import_dataset(coco(tmp_path / "d", [{}], name), tmp_path / "run").labels == 1
    again = import_dataset(tmp_path / "d" / "truth.json", tmp_path / "other", images=tmp_path / "d" / "pics")
    assert again.labels == 1


def test_an_image_listed_twice__is_told(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    images = [{"id": k, "file_name": "a.png", "width": 64, "height": 48} for k in (1, 2)]
    summary = import_dataset(coco(tmp_path / "d", [{}, {"image_id": 2}, {"image_id": 2}], images=images), tmp_path / "run")
    assert summary.labels == 1
    assert any("1 image(s) are listed twice, first a.png: 2 label(s) of later entries" in note for note in summary.notes)


def test_test_split__is_held_out_and_told(tmp_path: Path) -> None:
    dataset = people(tmp_path / "in")
    for kind in ("images", "labels"):
        (dataset / "test" / kind).mkdir(parents=True)
        for path in sorted((dataset / "train" / kind).iterdir())[:1]:
            path.rename(dataset / "test" / kind / path.name)
    with (dataset / "data.yaml").open("a") as file:
        file.write("test: ../test/images\n")
    summary = import_dataset(dataset, tmp_path / "run")
    assert dict(summary.per_class) == {"cup": 2, "plate": 3}  # as many as before it was split off
    assert any("1 image(s) of a test split count as valid" in note for note in summary.notes)
    sides = json.loads((tmp_path / "run" / "run" / "splits.json").read_text())
    assert [side for name, side in sides.items() if name.startswith("test/")] == ["valid"]


@pytest.mark.parametrize("names", [("Cat", "cat"), ("traffic_light", "traffic light"), ("+", "-"), ("+", "class 1")])
def test_class_names_that_cannot_both_be_asked_for(tmp_path: Path, names: tuple[str, str]) -> None:
    summary = import_dataset(people(tmp_path / "in", names=names), tmp_path / "run")
    assert dict(summary.per_class) == {names[0]: 2, names[1]: 3}


def test_add__of_a_run_without_masks__leaves_the_masks_of_people(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    found = coco(tmp_path / "d", [{"bbox": [30, 20, 4, 4]}], categories=[{"id": 7, "name": "spoon"}])
    import_dataset(found, tmp_path / "found")
    file = coco(tmp_path / "d", [{"segmentation": SQUARE, "bbox": [10, 10, 10, 10]}])
    import_dataset(file, tmp_path / "run", add=tmp_path / "found")
    assert areas(opened(tmp_path / "run").rle).tolist() == [100, 16]


def test_add__of_masks_to_boxes__is_told(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "d" / "a.png")
    mask = {"segmentation": SQUARE, "bbox": [10, 10, 10, 10]}
    import_dataset(coco(tmp_path / "d", [mask], categories=[{"id": 7, "name": "spoon"}]), tmp_path / "found")
    summary = import_dataset(coco(tmp_path / "d", [{}]), tmp_path / "run", add=tmp_path / "found")
    assert summary.labels == 2 and any(note.startswith("1 added label(s) have no mask here") for note in summary.notes)


def test_add__takes_the_missing_classes_from_a_run(kit: Any, tmp_path: Path) -> None:
    dataset = people(tmp_path / "in")
    pictures = {path.name: path for path in dataset.rglob("*.png")}
    pool = tmp_path / "pool"
    pool.mkdir()
    for path in pictures.values():
        shutil.copy(path, pool / path.name)  # elsewhere and under other ids: known by their bytes
    width, height = Image.open(next(iter(pictures.values()))).size
    spoon, cup = kit.box(0, 0, 8, 8, width, height), kit.box(9, 9, 20, 20, width, height)
    first = min(pictures)
    rows = kit.rows(pool, {first: kit.labels([spoon, cup], [1, 0], [0.7, 0.6])})
    kit.export(rows, "coco", tmp_path / "found", names=["cup", "spoon"])
    import_dataset(tmp_path / "found", tmp_path / "found_run")
    summary = import_dataset(dataset, tmp_path / "run", add=tmp_path / "found_run")
    assert dict(summary.per_class) == {"cup": 2, "plate": 3, "spoon": 1}
    assert any("labels of cup in" in note and "the dataset has its own" in note for note in summary.notes)
    with pytest.raises(DatasetError, match=r"the dataset has all classes of .* already"):
        import_dataset(tmp_path / "found", tmp_path / "other", add=tmp_path / "found_run")


def test_images_that_are_not_there(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 5, "height": 5}], "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"1 of 1 images of .*truth\.json are not there, first a\.jpg: say where they are"):
        import_dataset(tmp_path / "truth.json", tmp_path / "run")


def test_labels_of_another_size__are_set_aside(kit: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "a.png", 64, 48)
    kit.paint(tmp_path / "b.png", 64, 48, seed=2)
    sides = {"a.png": 64, "b.png": 99}
    images = [{"id": k, "file_name": name, "width": side, "height": 48} for k, (name, side) in enumerate(sides.items())]
    content = {"images": images, "categories": [{"id": 1, "name": "cup"}], "annotations": []}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    summary = import_dataset(tmp_path / "truth.json", tmp_path.parent / f"{tmp_path.name}-run")
    (line,) = summary.failed
    assert (line.id, line.reason, line.detail) == (
        "b.png", "labels_do_not_fit", "the image is 64x48 upright, its labels are of 99x48",
    )  # fmt: skip


def test_only_the_dataset_s_own_files_are_looked_at(kit: Any, tmp_path: Path) -> None:
    """Pictures of masks and strangers beside the images are none of it; an image in a hidden folder is."""
    kit.paint(tmp_path / "d" / ".hidden" / "a.png")
    kit.paint(tmp_path / "d" / "stranger.png")
    kit.paint(tmp_path / "d" / "b.png", seed=2)
    (tmp_path / "d" / "b.png").write_bytes(b"no picture")
    images = [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate([".hidden/a.png", "b.png"])]
    content = {"images": images, "categories": [{"id": 1, "name": "cup"}], "annotations": []}
    (tmp_path / "d" / "truth.json").write_text(json.dumps(content))
    summary = import_dataset(tmp_path / "d" / "truth.json", tmp_path / "run")
    assert summary.images["empty"] == 1 and [(line.id, line.reason) for line in summary.failed] == [("b.png", "not_an_image")]


@pytest.mark.parametrize("names", [("Cup", "N/A"), ("größe 1.5", "A, B")])
def test_class_names_of_any_kind_stay_as_they_are(tmp_path: Path, names: tuple[str, str]) -> None:
    import_dataset(people(tmp_path / "in", names=names), tmp_path / "run")
    export_run(tmp_path / "run", "yolo", tmp_path / "out")
    assert dataset_class_names(tmp_path / "out") == list(names)


def test_blanks_around_a_class_name_go(tmp_path: Path) -> None:
    assert set(import_dataset(people(tmp_path / "in", names=(" cup", "plate ")), tmp_path / "run").per_class) == set(NAMES)


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"in names the class 'cup' twice: give each class a name of its own"):
        import_dataset(people(tmp_path / "in", names=("cup", "cup")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
