"""The YOLO layout that ultralytics, rfdetr and autodistill read: `data.yaml train/{images,labels} valid/{images,labels}`.

Rules after ultralytics 8.4 (`data/utils.py`): one row is one object; a file holds rings or boxes, never both; an empty label file
is a background image; `path` is left out of data.yaml, so that the folder can be moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import fill_polygon, read_yolo_rows
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.polygons import ring_of, ring_of_box
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import encode_mask, mask_iou
from autodistill_grounded_sam.types import ImageRecord, Labels

MIN_SIDE_PX = 10  # ultralytics takes a smaller image for corrupt (`check_image`)


class _YoloWriter(FolderWriter):
    entries: ClassVar[tuple[str, ...]] = ("data.yaml", "train", "valid")
    image_folder: ClassVar[str] = "{split}/images"

    def _rows(self, image: ImageRecord, labels: Labels) -> list[npt.NDArray[np.float64]]:
        """For every label the numbers after its class, normalised to 0..1."""
        raise NotImplementedError

    def _left_out(self, image: ImageRecord, labels: Labels) -> str:
        if min(image.width, image.height) < MIN_SIDE_PX:
            return f"image(s) under {MIN_SIDE_PX} px were left out: ultralytics takes them for corrupt"
        return super()._left_out(image, labels)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        rows = [
            " ".join([str(class_id), *(f"{number:.6f}" for number in row)])
            for class_id, row in zip(written.class_id, self._rows(image, labels), strict=True)
        ]
        twice = len(rows) - len(set(rows))
        if twice:
            self._counts["row(s) are equal to another of their image; ultralytics keeps one of each"] += twice
        label_file = self._label_file(written)
        label_file.parent.mkdir(exist_ok=True)
        label_file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def _complete(self) -> None:
        import yaml

        for split in SPLITS:
            (self.partial / split / "labels").mkdir(exist_ok=True)
        valid = "valid/images"
        if not self._counts["valid"]:  # ultralytics refuses a `val` without images
            valid = "train/images"
            self._notes.append(
                "no image fell to valid: data.yaml names train/images as val, so its figures say nothing about new images"
            )
        settings = {"train": "train/images", "val": valid, "nc": len(self.class_names), "names": list(self.class_names)}
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (self.partial / "data.yaml").write_text(text, encoding="utf-8")

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        for written, compare in self._written():
            class_id, rows = read_yolo_rows(self._label_file(written))
            if class_id.tolist() != written.class_id:
                raise ExportError(
                    f"{self.name} dataset {self.out}: {written.file_name} has labels of classes {written.class_id}, "
                    f"but {class_id.tolist()} were read back"
                )
            found.per_class.update(class_id.tolist())
            if compare and written.rle and len(rows[0]) > 5:
                for rle, row in zip(written.rle, rows, strict=True):
                    ring = row.reshape(-1, 2) * (written.width, written.height)
                    found.ious.append(mask_iou(rle, encode_mask(fill_polygon(ring, written.width, written.height))))
        return found

    def _label_file(self, written: Written) -> Path:
        return (self.partial / written.split / "labels" / written.file_name).with_suffix(".txt")


class YoloSegWriter(_YoloWriter):
    """One ring an object: `class x1 y1 x2 y2 ...`, see `polygons`. An object whose mask is empty gets the ring of its box."""

    name: ClassVar[str] = "yolo-seg"

    def _rows(self, image: ImageRecord, labels: Labels) -> list[npt.NDArray[np.float64]]:
        if labels.rle is None:
            raise ExportError(
                f"{image.id} has no masks (the run was made without), so yolo-seg cannot be written: use --format yolo"
            )
        rows = []
        for rle, xyxy in zip(labels.rle, _inside(labels.xyxy, image), strict=True):
            ring, left_out = ring_of(rle)
            if left_out:
                self._counts["speck(s) were left out of a ring: the bridge to one would paint more than it holds"] += left_out
            if not len(ring):
                self._counts["object(s) without a mask are written as the ring of their box"] += 1
                ring = ring_of_box(xyxy)
            rows.append((ring / (image.width, image.height)).reshape(-1))
        return rows


class YoloBoxWriter(_YoloWriter):
    """One box an object: `class x_centre y_centre width height`."""

    name: ClassVar[str] = "yolo"

    def _rows(self, image: ImageRecord, labels: Labels) -> list[npt.NDArray[np.float64]]:
        xyxy = _inside(labels.xyxy, image)
        centre_size = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        return list(centre_size / (image.width, image.height, image.width, image.height))


def _inside(xyxy: npt.NDArray[np.float32], image: ImageRecord) -> npt.NDArray[np.float64]:
    """The boxes (n, 4) cut at the image's edges, and at least one pixel wide and high, so that none is lost."""
    size = np.array([image.width, image.height], np.float64)
    low = np.clip(xyxy[:, :2].astype(np.float64), 0, size - 1)
    high = np.clip(np.maximum(xyxy[:, 2:].astype(np.float64), low + 1), 0, size)
    return np.concatenate([low, high], axis=1)
