"""Formats by name, writers of plugins, and human masks through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.coco_datasets import coco_class_names, read_coco
from autodistill_grounded_sam.datasets import read_yolo
from autodistill_grounded_sam.errors import ConfigError, ImageReadError
from autodistill_grounded_sam.export.formats import FORMATS
from autodistill_grounded_sam.images import read_image, scan
from autodistill_grounded_sam.masks import areas, mask_iou
from autodistill_grounded_sam.plugins import list_plugins
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, State


def test_formats__by_name() -> None:
    assert list(FORMATS) == [
        "yolo-seg", "yolo", "yolo-obb", "coco", "coco-panoptic", "masks", "voc", "labelme", "cvat", "label-studio", "hf",
        "webdataset",
    ]  # fmt: skip
    assert {plugin.name: plugin.load_class() for plugin in list_plugins("formats")} == FORMATS


def test_unknown_format__lists_the_known(kit: Any, two: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'kitti'; known are yolo-seg, yolo, yolo-obb, coco"):
        kit.export(two, "kitti", tmp_path / "out")


class Diary:
    """A writer as a plugin would bring it: the four methods, no base class, no keyword but `notes`."""

    def __init__(self, out: Path, class_names: list[str], stems: dict[str, str], *, notes: tuple[str, ...] = ()) -> None:
        self.events: list[Any] = [(out, list(class_names), stems, notes)]

    def __enter__(self) -> Diary:
        self.events.append("enter")
        return self

    def write(self, image: ImageRecord, labels: Labels, split: str) -> None:
        self.events.append((image.id, len(labels), split))

    def finish(self) -> DatasetSummary:
        self.events.append("finish")
        return DatasetSummary("diary", Path(), {}, 0, 0, {})

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.events.append(("exit", error))


@pytest.mark.parametrize("confidence_files", [False, True])
def test_writer_of_a_plugin__is_given_every_row_and_knows_nothing_of_confidence_files(
    kit: Any, two: Any, tmp_path: Path, confidence_files: bool
) -> None:
    diaries = []

    def build(*args: Any, **more: Any) -> Diary:
        diaries.append(Diary(*args, **more))
        return diaries[-1]

    summary = kit.export(two, build, tmp_path, valid=["b.png"], notes=("n",), confidence_files=confidence_files)
    assert summary.format == "diary"
    assert diaries[0].events == [
        (tmp_path, list(kit.names), {"a.png": "a", "b.png": "b"}, ("n",)),
        "enter", ("a.png", 2, "train"), ("b.png", 0, "valid"), "finish", ("exit", None),
    ]  # fmt: skip


def test_rows__are_taken_one_at_a_time(kit: Any, two: Any, tmp_path: Path) -> None:
    """The source of rows may be a generator over a store that fits no memory; if it fails, nothing is left behind."""

    def rows() -> Iterator[Any]:
        yield two[0]
        assert (tmp_path / "out" / ".partial-coco" / "train" / "a.png").exists()
        raise RuntimeError("the store is damaged")

    from autodistill_grounded_sam.export.formats import export_dataset

    stems = {"a.png": "a", "b.png": "b"}
    with pytest.raises(RuntimeError, match="the store is damaged"):
        export_dataset(rows(), kit.names, "coco", tmp_path / "out", split=lambda _: "train", stems=stems)
    assert not (tmp_path / "out").exists()


def human_rows(folder: Path) -> tuple[list[tuple[ImageRecord, Labels]], list[str]]:
    """The people's masks of coco_ccby as labels."""
    truth = {row.name: row for row in read_coco(folder / "annotations.json")}
    rows = []
    for image in scan(folder / "images").images:
        row = truth[image.id]
        count, ones = len(row.class_id), np.ones(len(row.class_id), np.float32)
        state = State.LABELLED if count else State.EMPTY
        rows.append((image, Labels(state, row.class_id, ones, ones, row.xyxy, np.arange(count, dtype=np.int32), row.rle)))
    return rows, coco_class_names(folder / "annotations.json")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolo-seg", "yolo", "coco"])
def test_human_masks__come_back_from_every_format(
    kit: Any, shared: Path, tmp_path: Path, name: str, record_property: pytest.RecordProperty
) -> None:
    rows, names = human_rows(shared / "data" / "coco_ccby")
    summary = kit.export(rows, name, tmp_path, names=names, valid=[rows[3][0].id, rows[20][0].id])
    assert (sum(summary.images.values()), summary.labels) == (32, 180)
    assert list(summary.per_class) == names
    found = {row.name: row for row in (read_coco if name == "coco" else read_yolo)(tmp_path)}
    ious = []
    for image, labels in rows:
        row = found[image.path.name]
        assert row.class_id.tolist() == labels.class_id.tolist()
        if name == "yolo":
            assert np.allclose(row.xyxy, labels.xyxy, atol=1e-2)
        else:
            large = areas(labels.rle or ()) > 100
            pairs = zip(labels.rle or (), row.rle or (), large, strict=True)
            ious += [mask_iou(one, other) for one, other, counts in pairs if counts]
    if name != "yolo":
        record_property("figures", f"{name}: {len(ious)} over 100 px, mean {np.mean(ious):.4f}, lowest {min(ious):.4f}")
        assert np.mean(ious) >= (1.0 if name == "coco" else 0.98)
        assert summary.lowest_iou is not None and summary.lowest_iou >= (1.0 if name == "coco" else 0.5)


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("yolo-seg", "yolo", "coco")])
def test_human_masks__nothing_is_lost_by_the_other_formats(kit: Any, shared: Path, tmp_path: Path, name: str) -> None:
    """The table of docs/formats.md (`benchmarks/formats.py`)."""
    rows, names = human_rows(shared / "data" / "coco_ccby")
    summary = kit.export(rows, name, tmp_path, names=names)
    assert (sum(summary.images.values()), summary.labels) == (32, 180)
    if name == "yolo-obb":
        assert summary.lowest_iou is None and any(note.startswith("30 box(es) are not the smallest") for note in summary.notes)
    else:
        assert summary.lowest_iou is not None
        assert summary.lowest_iou >= (0.99 if name in ("labelme", "cvat", "label-studio") else 1.0)


def can_be_read(image: ImageRecord) -> bool:
    try:
        return read_image(image) is not None
    except ImageReadError:
        return False


@pytest.mark.shared
@pytest.mark.slow
def test_odd_files__whatever_can_be_read_is_a_training_image(
    kit: Any, unpack_odd: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Every odd file that can be decoded is written, and ultralytics finds none of them corrupt or in need of repair."""
    utils = pytest.importorskip("ultralytics.data.utils")
    rows = [row for row in kit.rows(unpack_odd(tmp_path / "in"), {}) if can_be_read(row[0])]
    summary = kit.export(rows, "yolo", tmp_path / "out")
    images = sorted((tmp_path / "out" / "train" / "images").iterdir())
    assert len(images) == summary.images["train"] > 20
    before = kit.tree(tmp_path / "out")
    for path in images:
        label = path.parents[1] / "labels" / f"{path.stem}.txt"
        *_, missing, found, empty, corrupt, message = utils.verify_image_label((str(path), str(label), "", False, 3, 0, 0, False))
        assert (missing, found, empty, corrupt, message) == (0, 1, 1, 0, ""), path
    assert kit.tree(tmp_path / "out") == before
