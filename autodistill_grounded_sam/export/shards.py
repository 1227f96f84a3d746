"""Datasets of a few large files with the images inside: Hugging Face `datasets` (Parquet) and WebDataset (tar)."""

from __future__ import annotations

import io
import json
import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.coco import xywh_of
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import areas
from autodistill_grounded_sam.types import ImageRecord, Labels, Rle, Split

SHARD_BYTES = 500_000_000  # of images; what the hub recommends for Parquet, and comfortable for tar
GROUP_BYTES = 64_000_000  # of images that wait in memory for a row group; readers hold one at a time
GROUP_ROWS = 100
HF_SPLITS: Mapping[Split, str] = {"train": "train", "valid": "validation"}


class ShardWriter(FolderWriter):
    """What both share: the image's bytes travel with its labels, and all that is read back is equal, masks too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._image_bytes = b""  # of the image whose labels are written next
        self._found_images = dict.fromkeys(SPLITS, 0)

    @abstractmethod
    def _rows_on_disk(self, split: Split) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Image bytes and `_row_of` of every image of a split, in the order in which they were written."""

    def _put_image(self, image: ImageRecord, data: bytes, split: Split, file_name: str) -> None:
        self._image_bytes = data

    def _row_of(self, image: ImageRecord, labels: Labels, written: Written) -> dict[str, Any]:
        """An image as in Hugging Face's detection sets: `objects` is a dict of lists, `bbox` left, top, width, height.

        `rle` (COCO's `counts`; the size is that of the image), `score`, `file_name`, `source` (the image id) and `confirmed` (a
        person said that this is all) are ours.
        """
        boxes = [xywh_of(xyxy) for xyxy in written.xyxy]
        sizes = [width * height for *_, width, height in boxes] if written.rle is None else areas(written.rle).tolist()
        return {
            "image_id": self._counts[written.split],
            "file_name": written.file_name,
            "source": image.id,
            "width": image.width,
            "height": image.height,
            "confirmed": labels.confirmed,
            "objects": {
                "id": list(range(len(labels))),
                "category": written.class_id,
                "bbox": boxes,
                "area": [float(size) for size in sizes],
                "score": [round(float(score), 6) for score in labels.score],
                "rle": [] if written.rle is None else [rle["counts"] for rle in written.rle],
            },
        }

    def _images_there(self, split: Split) -> int:
        return self._found_images[split]

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        rows = {split: self._rows_on_disk(split) for split in SPLITS}
        for written, _ in self._written():
            data, row = next(rows[written.split], (b"", {}))
            objects = row.get("objects", {})
            if not data or row["file_name"] != written.file_name or objects["category"] != written.class_id:
                raise ExportError(f"{self.name} dataset {self.out}: {written.file_name} was not read back as it was")
            for box, xyxy in zip(objects["bbox"], written.xyxy, strict=True):
                if max(abs(a - b) for a, b in zip(box, xywh_of(xyxy), strict=True)) > 1e-3:
                    raise ExportError(f"{self.name} dataset {self.out}: a box of {written.file_name} came back in another place")
            size = [written.height, written.width]
            if [Rle(size=size, counts=counts) for counts in objects["rle"]] != (written.rle or []):
                raise ExportError(f"{self.name} dataset {self.out}: a mask of {written.file_name} came back changed")
            found.per_class.update(written.class_id)
            found.ious += [1.0] * len(written.rle or ())  # an equal code is an equal mask
            self._found_images[written.split] += 1
        if any(next(left, None) is not None for left in rows.values()):
            raise ExportError(f"{self.name} dataset {self.out} holds more images than were written")
        return found


class HuggingFaceWriter(ShardWriter):
    """`data/{train,validation}-*.parquet` and a dataset card: `datasets.load_dataset(FOLDER)`, here or on the hub."""

    about = (About("hf", "read back in every export; datasets reads it (`tests/export/test_shards.py`)"),)
    name: ClassVar[str] = "hf"
    entries: ClassVar[tuple[str, ...]] = ("README.md", "data")
    image_folder: ClassVar[str] = "data"

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._waiting: dict[Split, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._waiting_bytes = dict.fromkeys(SPLITS, 0)
        self._files: dict[Split, Any] = {}
        self._file_bytes = dict.fromkeys(SPLITS, 0)
        self._shards = dict.fromkeys(SPLITS, 0)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        split = written.split
        picture = {"bytes": self._image_bytes, "path": written.file_name}
        self._waiting[split].append({"image": picture, **self._row_of(image, labels, written)})
        self._waiting_bytes[split] += len(self._image_bytes)
        if self._waiting_bytes[split] >= GROUP_BYTES or len(self._waiting[split]) >= GROUP_ROWS:
            self._write_group(split)

    def _write_group(self, split: Split) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _hf_schema(self.class_names)
        if split not in self._files:
            self._files[split] = pq.ParquetWriter(self._shard(split, self._shards[split]), schema)
            self._shards[split] += 1
        self._files[split].write_table(pa.Table.from_pylist(self._waiting[split], schema))
        self._file_bytes[split] += self._waiting_bytes[split]
        self._waiting[split], self._waiting_bytes[split] = [], 0
        if self._file_bytes[split] >= SHARD_BYTES:
            self._files.pop(split).close()
            self._file_bytes[split] = 0

    def _complete(self) -> None:
        for split in SPLITS:
            if self._waiting[split]:
                self._write_group(split)
            if split in self._files:
                self._files.pop(split).close()
            for place in range(self._shards[split]):  # only now it is known of how many
                self._shard(split, place).rename(self._final_shard(split, place))
        splits = [split for split in SPLITS if self._shards[split]]
        (self.partial / "README.md").write_text(_card(self.class_names, splits, self._counts["labels"]), encoding="utf-8")

    def _rows_on_disk(self, split: Split) -> Iterator[tuple[bytes, dict[str, Any]]]:
        import pyarrow.parquet as pq

        for place in range(self._shards[split]):
            with pq.ParquetFile(self._final_shard(split, place)) as file:
                for group in range(file.num_row_groups):
                    for row in file.read_row_group(group).to_pylist():
                        yield row["image"]["bytes"], row

    def _sweep(self) -> None:
        for file in self._files.values():
            file.close()
        super()._sweep()

    def _shard(self, split: Split, place: int) -> Path:
        return self.partial / "data" / f"{split}-{place}.partial"

    def _final_shard(self, split: Split, place: int) -> Path:
        return self.partial / "data" / f"{HF_SPLITS[split]}-{place:05d}-of-{self._shards[split]:05d}.parquet"


class WebDatasetWriter(ShardWriter):
    """`{train,valid}/{train,valid}-NNNNNN.tar`: for every image `NNNNNNNN.<suffix>` and `NNNNNNNN.json`; names in `classes.txt`.

    Keys are numbers, since WebDataset cuts a name at its first dot.
    """

    about = (About("webdataset", "read back in every export; webdataset reads it (`tests/export/test_shards.py`)"),)
    name: ClassVar[str] = "webdataset"
    entries: ClassVar[tuple[str, ...]] = ("classes.txt", "train", "valid")
    image_folder: ClassVar[str] = "{split}"

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._tars: dict[Split, tarfile.TarFile] = {}
        self._shards = dict.fromkeys(SPLITS, 0)
        self._tar_bytes = dict.fromkeys(SPLITS, 0)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        split = written.split
        if split not in self._tars:
            self._tars[split] = tarfile.open(self._shard(split, self._shards[split]), "w")  # noqa: SIM115 - closed with the shard
            self._shards[split] += 1
        row = json.dumps(self._row_of(image, labels, written), ensure_ascii=False).encode()
        key = f"{self._counts[split]:08d}"
        for suffix, data in ((written.file_name.rpartition(".")[2], self._image_bytes), ("json", row)):
            entry = tarfile.TarInfo(f"{key}.{suffix}")
            entry.size = len(data)
            self._tars[split].addfile(entry, io.BytesIO(data))
        self._tar_bytes[split] += len(self._image_bytes)
        if self._tar_bytes[split] >= SHARD_BYTES:
            self._tars.pop(split).close()
            self._tar_bytes[split] = 0

    def _complete(self) -> None:
        self._close()
        (self.partial / "classes.txt").write_text("".join(f"{name}\n" for name in self.class_names), encoding="utf-8")

    def _rows_on_disk(self, split: Split) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for place in range(self._shards[split]):
            with tarfile.open(self._shard(split, place)) as tar:
                contents = ((entry.name, tar.extractfile(entry)) for entry in tar)
                for (_, picture), (_, row) in zip(contents, contents, strict=True):
                    if picture is not None and row is not None:
                        yield picture.read(), json.load(row)

    def _sweep(self) -> None:
        self._close()
        super()._sweep()

    def _close(self) -> None:
        while self._tars:
            self._tars.popitem()[1].close()

    def _shard(self, split: Split, place: int) -> Path:
        return self.partial / split / f"{split}-{place:06d}.tar"


def _hf_schema(class_names: tuple[str, ...]) -> Any:
    """The Arrow schema, and in its metadata what the columns mean to `datasets`: an image, names of the categories."""
    import pyarrow as pa

    objects = {
        "id": pa.list_(pa.int64()),
        "category": pa.list_(pa.int64()),
        "bbox": pa.list_(pa.list_(pa.float32(), 4)),
        "area": pa.list_(pa.float64()),
        "score": pa.list_(pa.float32()),
        "rle": pa.list_(pa.string()),
    }
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "image_id": pa.int64(),
        "file_name": pa.string(),
        "source": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "confirmed": pa.bool_(),
        "objects": pa.struct(objects),
    }

    def many(feature: dict[str, Any], **more: int) -> dict[str, Any]:
        return {"feature": feature, "_type": "Sequence", **more}

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    features = {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "file_name": value("string"),
        "source": value("string"),
        "width": value("int32"),
        "height": value("int32"),
        "confirmed": value("bool"),
        "objects": {
            "id": many(value("int64")),
            "category": many({"names": list(class_names), "_type": "ClassLabel"}),
            "bbox": many(many(value("float32"), length=4)),
            "area": many(value("float64")),
            "score": many(value("float32")),
            "rle": many(value("string")),
        },
    }
    return pa.schema(columns.items(), {"huggingface": json.dumps({"info": {"features": features}})})


def _card(class_names: tuple[str, ...], splits: list[Split], labels: int) -> str:
    """The dataset card; its head says which files are which split."""
    import yaml

    files = [{"split": HF_SPLITS[split], "path": f"data/{HF_SPLITS[split]}-*"} for split in splits]
    head = {
        "task_categories": ["object-detection"],
        "tags": ["autodistill", "grounding-dino", "segment-anything"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n"
        f"{labels} labels of {len(class_names)} classes, made by autodistill-grounded-sam from words.\n\n"
        "`objects.bbox` is left, top, width, height in pixels; `objects.rle` the mask of each object as COCO's run lengths:\n"
        '`pycocotools.mask.decode({"size": [row["height"], row["width"]], "counts": rle})`.\n'
        "`confirmed` says that a person looked: the image holds these objects and nothing else, or nothing.\n"
    )
