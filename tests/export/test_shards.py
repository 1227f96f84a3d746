"""Images and labels in one file: Parquet for Hugging Face `datasets`, tar for WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export import shards
from autodistill_grounded_sam.masks import decode_mask
from tests.peers import peer

both = pytest.mark.parametrize("name", ["hf", "webdataset"])


@both
def test_both__images_and_masks_come_back_exactly(kit: Any, scenes: Any, tmp_path: Path, name: str) -> None:
    summary = kit.export(scenes, name, tmp_path / "out", valid=["scene_0003.png"])
    assert dict(summary.images) == {"train": 11, "valid": 1} and summary.lowest_iou == 1.0
    assert summary.labels == sum(len(labels) for _, labels in scenes) and summary.notes == ()
    again = tmp_path / "again"
    kit.export(scenes, name, again, valid=["scene_0003.png"])
    assert kit.tree(tmp_path / "out") == kit.tree(again)  # byte for byte


@both
def test_both__many_shards_are_one_dataset(
    kit: Any, scenes: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 2)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    summary = kit.export(scenes, name, tmp_path / "out", valid=["scene_0003.png"])
    assert dict(summary.images) == {"train": 11, "valid": 1}
    files = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".parquet", ".tar"))
    if name == "hf":
        assert files == [f"train-{place:05d}-of-00006.parquet" for place in range(6)] + ["validation-00000-of-00001.parquet"]
    else:
        assert files == [f"train-{place:06d}.tar" for place in range(11)] + ["valid-000000.tar"]


@both
def test_both__without_masks(kit: Any, two: Any, tmp_path: Path, name: str) -> None:
    from dataclasses import replace

    summary = kit.export([(two[0][0], replace(two[0][1], rle=None)), two[1]], name, tmp_path / "out")
    assert (summary.labels, summary.round_trip_iou) == (2, None)


@both
def test_both__a_file_cut_short_is_an_error_and_leaves_nothing(
    kit: Any, two: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shards.HuggingFaceWriter if name == "hf" else shards.WebDatasetWriter
    read = rows._rows_on_disk
    monkeypatch.setattr(rows, "_rows_on_disk", lambda self, split: iter(list(read(self, split))[1:]))
    with pytest.raises(ExportError, match=r"a\.png was not read back as it was"):
        kit.export(two, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- plain readers


def test_hf__the_table_and_the_card(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "hf", tmp_path / "out")
    file = pq.ParquetFile(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["objects"]["category"]["feature"]["names"] == list(kit.names)
    first, second = file.read().to_pylist()
    assert (first["file_name"], first["source"], first["width"], first["height"]) == ("a.png", "a.png", 64, 48)
    assert first["objects"]["bbox"] == [[4, 6, 26, 34], [40, 10, 20, 10]] and first["objects"]["category"] == [2, 0]
    assert Image.open(io.BytesIO(first["image"]["bytes"])).size == (64, 48)
    assert second["objects"]["id"] == []
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]  # no image fell to validation


def test_webdataset__the_members(kit: Any, two: Any, tmp_path: Path) -> None:
    kit.export(two, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train" / "train-000000.tar") as tar:
        assert tar.getnames() == ["00000000.png", "00000000.json", "00000001.png", "00000001.json"]
        row = json.load(tar.extractfile("00000000.json"))  # type: ignore[arg-type]
    assert row["objects"]["score"] == pytest.approx([0.9, 0.4]) and row["file_name"] == "a.png"
    assert (tmp_path / "out" / "classes.txt").read_text() == "cup\nplate\nspoon\n"


# --- the libraries themselves


def decoded(counts: str, height: int, width: int) -> Any:
    from pycocotools import mask

    return mask.decode({"size": [height, width], "counts": counts}).astype(bool)  # as the card says


def test_datasets__loads_hf(kit: Any, scenes: Any, tmp_path: Path) -> None:
    datasets = peer("datasets")
    kit.export(scenes, "hf", tmp_path / "out", valid=["scene_0003.png"])
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 11, "validation": 1}
    source = {image.id: (image, labels) for image, labels in scenes}
    category = loaded["train"].features["objects"]["category"].feature
    for row in loaded["train"]:
        image, labels = source[row["source"]]
        assert (np.asarray(row["image"].convert("RGB")) == np.asarray(Image.open(image.path).convert("RGB"))).all()
        assert [category.int2str(place) for place in row["objects"]["category"]] == [kit.names[k] for k in labels.class_id]
        for counts, rle in zip(row["objects"]["rle"], labels.rle, strict=True):
            assert (decoded(counts, row["height"], row["width"]) == decode_mask(rle)).all()


def test_webdataset__loads_it(kit: Any, scenes: Any, tmp_path: Path) -> None:
    wds = peer("webdataset")
    kit.export(scenes, "webdataset", tmp_path / "out")
    source = {image.id: labels for image, labels in scenes}
    rows = list(wds.WebDataset(str(tmp_path / "out/train/train-000000.tar"), shardshuffle=False).decode("rgb8"))
    assert len(rows) == len(scenes)
    for row in rows:
        labels = source[row["json"]["source"]]
        assert row["png"].shape == (480, 640, 3) and row["json"]["objects"]["category"] == labels.class_id.tolist()
        for counts, rle in zip(row["json"]["objects"]["rle"], labels.rle, strict=True):
            assert (decoded(counts, 480, 640) == decode_mask(rle)).all()


def test_fiftyone__loads_coco(kit: Any, scenes: Any, tmp_path: Path) -> None:
    """FiftyOne's own COCO reader, without its database: boxes and masks of our COCO format."""
    fouc = peer("fiftyone.utils.coco")
    kit.export(scenes, "coco", tmp_path / "out")
    file = tmp_path / "out" / "train" / "_annotations.coco.json"
    _, classes_map, _, images, annotations = fouc.load_coco_detection_annotations(str(file))
    source = {image.id: labels for image, labels in scenes}
    assert len(images) == len(scenes)
    for image_id, image in images.items():
        labels = source[image["file_name"]]
        objects = annotations.get(image_id, [])
        size = (image["width"], image["height"])
        found = [one.to_detection(size, classes_map, load_segmentation=True) for one in objects]
        assert [one.label for one in found] == [kit.names[k] for k in labels.class_id]
        for one, box, rle in zip(found, labels.xyxy, labels.rle, strict=True):
            x, y, width, height = np.array(one.bounding_box) * (*size, *size)
            assert np.allclose([x, y, x + width, y + height], box, atol=0.01)
            left, top, right, bottom = (int(side) for side in box)
            assert (one.mask == decode_mask(rle)[top:bottom, left:right]).all()
