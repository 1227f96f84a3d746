"""YOLO on disk: the layout and the rows that ultralytics, supervision and autodistill read, and how exactly masks come back."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.datasets import read_yolo, read_yolo_rows, yolo_class_names
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export import yolo
from autodistill_grounded_sam.export.formats import FORMATS
from autodistill_grounded_sam.export.yolo import YoloWriter
from autodistill_grounded_sam.masks import areas, decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.types import Labels, State

both = pytest.mark.parametrize("name", ["yolo-seg", "yolo"])


def labels_text(out: Path, stem: str, split: str = "train") -> str:
    return (out / split / "labels" / f"{stem}.txt").read_text()


# --- layout


@both
def test_layout__is_the_documented_one(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    kit.export(two, name, tmp_path / "out", valid=["b.png"])
    assert set(kit.tree(tmp_path / "out")) == {
        ".grounded-sam-dataset.json", "data.yaml",
        "train/images/a.png", "train/labels/a.txt", "valid/images/b.png", "valid/labels/b.txt",
    }  # fmt: skip
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text()) == {
        "train": "train/images", "val": "valid/images", "nc": 3, "names": ["cup", "plate", "spoon"],
    }  # fmt: skip
    assert labels_text(tmp_path / "out", "b", "valid") == ""  # a background image


def test_rows__boxes(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "yolo", tmp_path / "out")
    assert labels_text(tmp_path / "out", "a") == "2 0.265625 0.479167 0.406250 0.708333\n0 0.781250 0.312500 0.312500 0.208333\n"


def test_rows__rings(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "yolo-seg", tmp_path / "out")
    class_id, rings = read_yolo_rows(tmp_path / "out" / "train" / "labels" / "a.txt")
    assert class_id.tolist() == [2, 0]
    ring_px = rings[0].reshape(4, 2) * (64, 48)  # a quarter of a pixel inside the outer edges of 4, 6, 30, 40
    assert sorted(np.round(ring_px, 2).tolist()) == [[4.25, 6.25], [4.25, 39.75], [29.75, 6.25], [29.75, 39.75]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=9), max_size=5))
def test_texts__are_those_of_plain_formatting(rows: list[list[int]]) -> None:
    numbers = np.array([number / 1e6 for row in rows for number in row])
    plain = ["".join(f" {number / 1e6:.6f}" for number in row) for row in rows]
    assert yolo._texts(numbers, [len(row) for row in rows]) == plain


@both
def test_label_files__are_the_same_however_many_are_made_at_once(
    kit: Any, scenes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kit.export(scenes[:3], name, tmp_path / "many")
    monkeypatch.setattr(yolo, "LABELS_AT_ONCE", 1)
    kit.export(scenes[:3], name, tmp_path / "one")
    assert kit.tree(tmp_path / "many") == kit.tree(tmp_path / "one")


@pytest.mark.parametrize(
    "names", [["yes", "null", "1"], ["a: b", "- c", "#d"], ["größe", "日本", "🍕" * 60], ["it's", '"q"', " x "]]
)
def test_data_yaml__any_names_come_back(kit: Any, two: Any, tmp_path: Path, names: list[str]) -> None:
    kit.export(two, "yolo", tmp_path / "out", names=names)
    assert yolo_class_names(tmp_path / "out") == names


@both
@pytest.mark.parametrize(("valid", "full"), [((), "train"), (("a.png", "b.png"), "valid")])
def test_one_sided_split__names_the_full_side_twice_and_says_so(
    kit: Any, two: Any, tmp_path: Path, name: str, valid: tuple[str, ...], full: str
) -> None:
    summary = kit.export(two, name, tmp_path / "out", valid=valid)
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content["train"] == content["val"] == f"{full}/images"
    other = "valid" if full == "train" else "train"
    assert summary.notes == (
        f"no image fell to {other}: data.yaml names {full}/images as train and val, so its figures say nothing about new images",
    )
    assert len(list(read_yolo(tmp_path / "out"))) == 2
    assert (tmp_path / "out" / other / "images").is_dir() and (tmp_path / "out" / other / "labels").is_dir()


def test_small_images__are_left_out_and_noted(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.paint(tmp_path / "in" / "strip.png", width=200, height=9)
    summary = kit.export(kit.rows(tmp_path / "in", {}), "yolo", tmp_path / "out")
    assert summary.images["train"] == 2
    assert "1 image(s) under 10 px were left out: ultralytics takes them for corrupt" in summary.notes


# --- one object, one row


def frame(kit: Any) -> Any:
    return kit.box(10, 10, 50, 40) & ~kit.box(20, 20, 40, 30)


@both
@pytest.mark.parametrize(
    "shape",
    [
        frame,
        lambda kit: kit.box(2, 2, 20, 20) | kit.box(25, 25, 50, 45) | kit.box(55, 2, 62, 12),
        lambda kit: kit.box(31, 20, 32, 21),
        lambda kit: kit.box(0, 0, 1, 1),
        lambda kit: kit.box(63, 47, 64, 48),
        lambda kit: kit.box(0, 0, 64, 48),
        lambda kit: kit.box(0, 0, 64, 1) | kit.box(0, 47, 64, 48) | kit.box(0, 0, 1, 48) | kit.box(63, 0, 64, 48),
        # thin, in two parts: a simpler ring is exact for who resamples it, but not for who paints it as it stands
        lambda kit: kit.box(1, 1, 3, 2) | kit.box(4, 1, 6, 2) | kit.box(5, 2, 7, 3),
        lambda kit: np.eye(48, 64, dtype=np.bool_),
        lambda kit: np.indices((48, 64)).sum(0) % 2 == 0,  # a chess board, joined by corners alone
    ],
    ids=["hole", "three parts", "one pixel", "corner", "far corner", "whole image", "edges", "thin", "diagonal", "chess board"],
)
def test_one_object__is_one_row(kit: Any, two: Any, tmp_path: Path, name: str, shape: Callable[[Any], Any]) -> None:
    mask = shape(kit)
    (image, _), _ = two
    summary = kit.export([(image, kit.labels([mask, kit.box(3, 3, 9, 9)], [1, 2]))], name, tmp_path / "out")
    class_id, rows = read_yolo_rows(tmp_path / "out" / "train" / "labels" / "a.txt")
    assert class_id.tolist() == [1, 2] and summary.labels == 2
    numbers = np.concatenate(rows)
    assert numbers.min() >= 0 and numbers.max() <= 1
    (row,) = read_yolo(tmp_path / "out")
    assert np.allclose(row.xyxy, kit.labels([mask, kit.box(3, 3, 9, 9)]).xyxy, atol=1e-3)
    if name == "yolo-seg":
        specks = any("speck" in note for note in summary.notes)  # of the chess board: more parts than are bridged
        assert summary.lowest_iou is not None and summary.lowest_iou >= (0.5 if specks else 0.85)


def boxed(*xyxy: float, rle: Any = None) -> Labels:
    one = np.zeros(1, np.int32)
    score = np.full(1, 0.5, np.float32)
    return Labels(State.LABELLED, one, score, score, np.array([xyxy], np.float32), one, rle)


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ((-5, -3, 10, 12), (0, 0, 10, 12)),
        ((60, 40, 80, 90), (60, 40, 64, 48)),
        ((10, 10, 10.2, 10.1), (10, 10, 11, 11)),
        ((64, 48, 64, 48), (63, 47, 64, 48)),
        ((-9, -9, -4, -4), (0, 0, 1, 1)),
    ],
)
def test_boxes__are_cut_at_the_edges_and_never_vanish(
    kit: Any, two: Any, tmp_path: Path, box: tuple[float, ...], written: tuple[float, ...]
) -> None:
    kit.export([(two[0][0], boxed(*box))], "yolo", tmp_path / "out")
    (row,) = read_yolo(tmp_path / "out")
    assert row.xyxy[0].tolist() == pytest.approx(written, abs=1e-3)


def test_empty_mask__becomes_the_ring_of_its_box_and_does_not_count_for_the_round_trip(
    kit: Any, two: Any, tmp_path: Path
) -> None:
    nothing = (encode_mask(np.zeros((48, 64))),)
    summary = kit.export([(two[0][0], boxed(5, 6, 20, 30, rle=nothing)), two[1]], "yolo-seg", tmp_path / "out")
    assert "1 object(s) without a mask are written as the ring of their box" in summary.notes
    assert summary.round_trip_iou is None
    (row, _) = read_yolo(tmp_path / "out")
    assert row.xyxy.tolist() == [[5, 6, 20, 30]]


def test_run_without_masks__cannot_be_yolo_seg(kit: Any, two: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"a\.png has no masks \(the run was made without\), so yolo-seg cannot be written: use"
    ):
        kit.export([(two[0][0], boxed(5, 6, 20, 30))], "yolo-seg", tmp_path / "out")


@both
def test_equal_rows__are_noted(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    twins = kit.labels([kit.box(1, 1, 9, 9)] * 2, [1, 1])
    summary = kit.export([(two[0][0], twins)], name, tmp_path / "out")
    assert "1 row(s) are equal to another of their image; ultralytics keeps one of each" in summary.notes


def test_far_speck__is_left_out_and_noted(kit: Any, two: Any, tmp_path: Path) -> None:
    mask = kit.box(1, 1, 9, 9) | kit.box(60, 45, 61, 46)
    summary = kit.export([(two[0][0], kit.labels([mask]))], "yolo-seg", tmp_path / "out")
    assert "1 speck(s) were left out of a ring: the bridge to one would paint more than it holds" in summary.notes


# --- confidence files


@both
def test_confidence_files__a_score_a_row_where_autodistill_puts_them(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    kit.export(two, name, out, valid=["b.png"], confidence_files=True)
    lines = (out / "train" / "labels" / "confidence-a.txt").read_text().splitlines()
    assert lines == [str(float(np.float32(score))) for score in (0.9, 0.4)]  # autodistill: str(x) of each
    assert (out / "valid" / "labels" / "confidence-b.txt").read_text() == ""
    plain = tmp_path / "plain"
    kit.export(two, name, plain, valid=["b.png"])
    more = kit.tree(out).keys() - kit.tree(plain).keys()
    assert more == {"train/labels/confidence-a.txt", "valid/labels/confidence-b.txt"}
    assert [row.class_id.tolist() for row in read_yolo(out)] == [row.class_id.tolist() for row in read_yolo(plain)]
    kit.export(two, name, out, valid=["b.png"])  # they are ours to replace
    assert kit.tree(out) == kit.tree(plain)


def test_confidence_files__never_take_the_place_of_labels(kit: Any, tmp_path: Path) -> None:
    for place, stem in enumerate(["x", "confidence-x", "Confidence-Confidence-X"]):
        kit.paint(tmp_path / "in" / f"{stem}.png", seed=place)
    one = kit.labels([kit.box(1, 1, 9, 9)])
    rows = kit.rows(tmp_path / "in", {"x.png": one, "confidence-x.png": one})
    summary = kit.export(rows, "yolo", tmp_path / "out", confidence_files=True)
    assert "2 image(s) have no confidence file: another image's label file has that name" in summary.notes
    assert labels_text(tmp_path / "out", "confidence-x") == labels_text(tmp_path / "out", "x")
    assert (tmp_path / "out" / "train" / "labels" / "confidence-Confidence-Confidence-X.txt").exists()


# --- read back


@pytest.mark.parametrize(
    ("name", "tamper", "message"),
    [
        ("yolo", lambda text: text.split("\n")[0] + "\n", r"a\.png has labels of classes \[2, 0\], but \[2\] were read back"),
        ("yolo", lambda text: "1" + text[1:], r"labels of classes \[2, 0\], but \[1, 0\] were read back"),
        ("yolo", lambda text: text.replace("0.265625", "0.266000"), r"a box of a\.png came back in another place"),
        ("yolo", lambda text: "a b c d e\n", r"cannot be read back: .*a\.txt:1 must hold numbers only, got 'a b c d e'"),
        ("yolo", lambda text: "", r"but \[\] were read back"),
        ("yolo", None, r"cannot write the dataset .*No such file"),
        ("yolo-seg", lambda text: text + text, r"but \[2, 0, 2, 0\] were read back"),
        ("yolo-seg", lambda text: "2 .5 .5 .1 .1\n0 .5 .5 .1 .1\n", r"a ring of a\.png came back as a box"),
        ("yolo-seg", lambda text: text.replace("2 ", "2 .9 .9 .99 .9 .99 .99\n0 "), r"were read back"),
        (
            "yolo-seg",
            lambda text: "2 .9 .9 .99 .9 .99 .99\n" + text.split("\n")[1] + "\n",
            r"an object of a\.png came back in another",
        ),
    ],
)
def test_tampered__is_an_error(
    kit: Any, two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tamper: Any, message: str
) -> None:
    complete = FORMATS[name]._complete

    def change_it(self: Any) -> None:
        complete(self)
        file = self.partial / "train" / "labels" / "a.txt"
        file.write_text(tamper(file.read_text())) if tamper else file.unlink()

    monkeypatch.setattr(YoloWriter, "_complete", change_it)
    with pytest.raises(ExportError, match=message):
        kit.export(two, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_round_trip__painted_scenes_of_640_px(
    kit: Any, scenes: Any, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """The promise of the export: none lost, none split, and masks over 100 px come back with an IoU of 0.98 or more."""
    summary = kit.export(scenes, "yolo-seg", tmp_path / "out")
    assert summary.labels == sum(len(labels) for _, labels in scenes)
    ious = []
    for (_, labels), row in zip(scenes, read_yolo(tmp_path / "out"), strict=True):
        assert row.class_id.tolist() == labels.class_id.tolist() and row.rle is not None
        large = areas(labels.rle) > 100
        ious += [mask_iou(a, b) for a, b, counts in zip(labels.rle, row.rle, large, strict=True) if counts]
    record_property("figures", f"{len(ious)} objects: mean {np.mean(ious):.4f}, lowest {min(ious):.4f}")
    assert np.mean(ious) >= 0.98 and min(ious) >= 0.9
    assert summary.round_trip_iou is not None and summary.round_trip_iou >= 0.98
    assert summary.lowest_iou is not None and summary.lowest_iou <= min(ious)


@st.composite
def blobs(draw: st.DrawFn) -> Any:
    """A body of overlapping ellipses on 480 x 640, over 100 px, perhaps with holes, perhaps beyond the edges."""
    y, x = np.mgrid[:480, :640] + 0.5
    centre_x, centre_y = draw(st.integers(0, 640)), draw(st.integers(0, 480))
    mask = np.zeros((480, 640), np.bool_)
    for _ in range(draw(st.integers(1, 4))):
        half_x, half_y = draw(st.integers(7, 160)), draw(st.integers(7, 160))
        mask |= ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 < 1
        centre_x, centre_y = centre_x + draw(st.integers(-half_x, half_x)), centre_y + draw(st.integers(-half_y, half_y))
    for _ in range(draw(st.integers(0, 2))):
        places = np.argwhere(mask)
        top, left = places[draw(st.integers(0, len(places) - 1))]
        hole = np.hypot(x - left, y - top) < draw(st.integers(1, 40))
        if (mask & ~hole).sum() > 0.5 * mask.sum():
            mask &= ~hole
    return mask


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(blobs(), min_size=1, max_size=3))
def test_round_trip__blobs(kit: Any, tmp_path: Path, blobs: list[Any]) -> None:
    key = zlib.crc32(np.packbits(np.stack(blobs)).tobytes())
    blobs = [mask for mask in blobs if mask.sum() > 100]
    kit.paint(tmp_path / f"in{key}" / "a.png", width=640, height=480)
    rows = kit.rows(tmp_path / f"in{key}", {"a.png": kit.labels(blobs)})
    summary = kit.export(rows, "yolo-seg", tmp_path / f"out{key}")
    assert summary.labels == len(blobs)
    if blobs:
        left_out = any("speck(s) were left out" in note for note in summary.notes)  # a part that a hole cut off, with its note
        assert summary.lowest_iou is not None and summary.lowest_iou >= (0.9 if left_out else 0.95)


# --- what others read


def iou(first: Any, second: Any) -> float:
    return float((first & second).sum() / (first | second).sum())


def ultralytics_dataset(out: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("ultralytics")
    from ultralytics.data import dataset as module
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "check_font", lambda *_: None, raising=False)  # it would download one
    data = utils.check_det_dataset(str(out / "data.yaml"), autodownload=False)
    return module.YOLODataset(img_path=data["train"], data=data, task=task, augment=False, imgsz=640, rect=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [("yolo-seg", "segment"), ("yolo-seg", "detect"), ("yolo", "detect")])
def test_ultralytics__loads_every_image_and_paints_our_masks(
    kit: Any, scenes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, task: str, record_property: Any
) -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    kit.export(scenes, name, tmp_path / "out", confidence_files=True)
    dataset = ultralytics_dataset(tmp_path / "out", task, monkeypatch)
    assert len(dataset) == len(scenes) and not dataset.label_files[0].endswith("confidence-scene_0000.txt")
    source = {image.id: labels for image, labels in scenes}
    for image_file, label_file in zip(dataset.im_files, dataset.label_files, strict=True):
        *_, missing, found, _, corrupt, message = utils.verify_image_label((image_file, label_file, "", False, 3, 0, 0, False))
        assert (missing, found, corrupt, message) == (0, 1, 0, "")
    ious = []
    for place in range(len(dataset)):
        label = dataset.get_image_and_label(place)
        labels = source[Path(label["im_file"]).name]
        assert label["cls"].reshape(-1).tolist() == labels.class_id.tolist()
        if task == "segment" and len(labels):
            height, width = label["ori_shape"]
            instances = label["instances"]
            instances.denormalize(width, height)
            for painted, rle in zip(utils.polygons2masks((height, width), instances.segments, 1), labels.rle, strict=True):
                if areas([rle])[0] > 100:
                    ious.append(mask_iou(encode_mask(painted), rle))
    if ious:
        record_property("figures", f"{len(ious)} objects: mean {np.mean(ious):.4f}, lowest {min(ious):.4f}")
        assert np.mean(ious) >= 0.98 and min(ious) >= 0.9
    kit.export(scenes, name, tmp_path / "out")  # its labels.cache is no reason to refuse


@pytest.mark.slow
def test_supervision__loads_it(kit: Any, scenes: Any, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    kit.export(scenes, "yolo-seg", tmp_path / "out", confidence_files=True)
    train = tmp_path / "out" / "train"
    yaml_file = str(tmp_path / "out" / "data.yaml")
    dataset = sv.DetectionDataset.from_yolo(str(train / "images"), str(train / "labels"), yaml_file, force_masks=True)
    assert dataset.classes == list(kit.names) and len(dataset) == len(scenes)
    source = {image.id: labels for image, labels in scenes}
    for path, _, found in dataset:
        labels = source[Path(path).name]
        assert found.class_id.tolist() == labels.class_id.tolist()
        for mask, rle in zip(found.mask if len(labels) else (), labels.rle, strict=True):
            true = decode_mask(rle)
            # supervision rounds coordinates where ultralytics cuts them: its masks are a pixel wider on the right and below
            wider = true.copy()
            wider[1:] |= true[:-1]
            wider[:, 1:] |= wider[:, :-1].copy()
            assert iou(mask, wider) >= 0.95 or true.sum() < 100
            assert (mask & true).sum() >= 0.98 * true.sum()
