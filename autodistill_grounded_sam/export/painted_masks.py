"""Datasets of painted masks: plain PNG pictures, and COCO panoptic."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.json_files import append_rows, join_parts, stream_rows
from autodistill_grounded_sam.export.painted import covered_objects, ious_with, load_indexed, paint_objects, save_indexed
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written, masks_inside
from autodistill_grounded_sam.types import ImageRecord, Int32, Labels, Split


class PaintedWriter(FolderWriter):
    """What both share: an object that others cover wholly cannot be kept, and is counted in a note."""

    needs_masks: ClassVar[bool] = True

    @abstractmethod
    def _objects_of(self, written: Written) -> tuple[npt.NDArray[Any], list[int]]:
        """What is on disk for an image: its picture of objects, 0 for background, and the class of each object."""

    def _check(self, image: ImageRecord, labels: Labels) -> None:
        super()._check(image, labels)
        if labels.rle is None:
            raise ExportError(
                f"{image.id} has no masks (the run was made without), so {self.name} cannot be written: use --format coco"
            )

    def _fitting(self, image: ImageRecord, labels: Labels) -> Labels:
        if not len(labels):
            return labels
        written = Written("train", "", image.width, image.height, [], labels.xyxy.tolist(), list(labels.rle or ()))
        covered = covered_objects(paint_objects(masks_inside(written), image.width, image.height), len(labels))
        if covered.any():
            self._counts["object(s) lie wholly under smaller ones and were left out"] += int(covered.sum())
        return labels.select(~covered)

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        for written, compare in self._written():
            picture, classes = self._objects_of(written)
            if classes != written.class_id or picture.shape != (written.height, written.width):
                raise ExportError(
                    f"{self.name} dataset {self.out}: {written.file_name} has objects of classes {written.class_id}, "
                    f"but {classes} were read back"
                )
            found.per_class.update(classes)
            if compare:
                found.ious += ious_with(picture, masks_inside(written))
        return found


class PngMasksWriter(PaintedWriter):
    """Two pictures beside each image: `{split}/classes` (class id + 1) and `{split}/objects` (which of its labels, from 1,
    best first); 0 is background. `classes.txt` names the classes, a line each. PNG of 8 bits with a palette, or of 16 bits where
    an image has more than 255 objects."""

    about = (About("masks", "read back and compared in every export, with what overlaps cost (`tests/export/test_painted.py`)"),)
    name: ClassVar[str] = "masks"
    entries: ClassVar[tuple[str, ...]] = ("classes.txt", "train", "valid")
    image_folder: ClassVar[str] = "{split}/images"
    other_folders: ClassVar[tuple[str, ...]] = ("{split}/classes", "{split}/objects")

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        objects = paint_objects(masks_inside(written), written.width, written.height)
        classes = np.array([0, *(class_id + 1 for class_id in written.class_id)], np.int32)
        save_indexed(classes[objects], self._picture(written, "classes"))
        save_indexed(objects, self._picture(written, "objects"))

    def _complete(self) -> None:
        (self.partial / "classes.txt").write_text("".join(f"{name}\n" for name in self.class_names), encoding="utf-8")

    def _objects_of(self, written: Written) -> tuple[npt.NDArray[Any], list[int]]:
        objects, classes = (load_indexed(self._picture(written, kind)) for kind in ("objects", "classes"))
        class_of = np.zeros(len(written.class_id) + 1, np.int64)
        class_of[objects.reshape(-1)] = classes.reshape(-1)
        if not (class_of[objects] == classes).all():
            raise ExportError(f"masks dataset {self.out}: the two pictures of {written.file_name} do not fit one another")
        return objects, (class_of[1:] - 1).tolist()

    def _picture(self, written: Written, kind: str) -> Path:
        return self.partial / f"{written.split}/{kind}/{written.file_name.rpartition('.')[0]}.png"


class PanopticWriter(PaintedWriter):
    """COCO panoptic: `annotations/panoptic_{split}.json` with a PNG an image in the folder of that name, `images/{split}` beside.

    A pixel's colour is its segment's id: R + 256 G + 65536 B; ids are the places of the labels, from 1. All classes are things.
    """

    about = (About("coco-panoptic", "read back in every export; datumaro reads it (`tests/export/test_painted.py`)"),)
    name: ClassVar[str] = "coco-panoptic"
    entries: ClassVar[tuple[str, ...]] = ("annotations", "images")
    image_folder: ClassVar[str] = "images/{split}"
    other_folders: ClassVar[tuple[str, ...]] = ("annotations/panoptic_{split}",)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        split, image_id = written.split, self._counts[written.split] + 1
        objects = paint_objects(masks_inside(written), written.width, written.height)
        rgb = np.stack([objects & 255, (objects >> 8) & 255, objects >> 16], axis=2).astype(np.uint8)
        Image.fromarray(rgb).save(self._picture(written), compress_level=3)
        size = {"width": image.width, "height": image.height}
        append_rows(self._part(split, "images"), [{"id": image_id, "file_name": written.file_name, **size, "source": image.id}])
        segments = [
            {
                "id": place + 1,
                "category_id": class_id + 1,
                "area": area,
                "bbox": bbox,
                "iscrowd": 0,
                "score": round(float(labels.score[place]), 6),
            }
            for place, (class_id, area, bbox) in enumerate(zip(written.class_id, *_shown(objects, len(labels)), strict=True))
        ]
        row = {"image_id": image_id, "file_name": self._picture(written).name, "segments_info": segments}
        append_rows(self._part(split, "annotations"), [row])

    def _complete(self) -> None:
        names = enumerate(self.class_names, 1)
        categories = [{"id": number, "name": name, "supercategory": "none", "isthing": 1} for number, name in names]
        for split in SPLITS:
            parts = {part: self._part(split, part) for part in ("images", "annotations")}
            join_parts(self._json(split), {"info": {}, "licenses": [], "categories": categories}, parts)
        self._rows = {split: stream_rows(self._json(split), "annotations") for split in SPLITS}

    def _objects_of(self, written: Written) -> tuple[npt.NDArray[Any], list[int]]:
        row = next(self._rows[written.split])
        if row["file_name"] != self._picture(written).name:
            raise ExportError(f"coco-panoptic dataset {self.out}: {row['file_name']} came back in place of {written.file_name}")
        with Image.open(self._picture(written)) as picture:
            rgb = np.asarray(picture).astype(np.int32)
        objects: Int32 = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        segments = row["segments_info"]
        if np.bincount(objects.reshape(-1), minlength=len(segments) + 1)[1:].tolist() != [one["area"] for one in segments]:
            raise ExportError(f"coco-panoptic dataset {self.out}: {row['file_name']} and its segments do not fit one another")
        return objects, [one["category_id"] - 1 for one in segments]

    def _picture(self, written: Written) -> Path:
        return self.partial / f"annotations/panoptic_{written.split}/{written.file_name.rpartition('.')[0]}.png"

    def _json(self, split: Split) -> Path:
        return self.partial / "annotations" / f"panoptic_{split}.json"

    def _part(self, split: Split, part: str) -> Path:
        return self.partial / f"{split}-{part}.jsonl"


def _shown(objects: Int32, count: int) -> tuple[list[int], list[list[int]]]:
    """Pixels, and left, top, width, height of what a picture shows of each object."""
    from scipy.ndimage import find_objects

    sizes = np.bincount(objects.reshape(-1), minlength=count + 1)[1:].tolist()
    places = find_objects(objects, count)
    return sizes, [[x.start, y.start, x.stop - x.start, y.stop - y.start] for y, x in places]
