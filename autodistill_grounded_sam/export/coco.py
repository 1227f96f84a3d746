"""COCO json with exact run-length masks: `train/_annotations.coco.json` and `valid/...` beside their images, as rfdetr reads it.

Category ids are class id + 1: COCO itself counts from 1, and ultralytics' converter, supervision and torchvision rely on it.
Annotation ids count from 1 too (pycocotools takes 0 for "unmatched"). `score`, `margin`, `trust` and `source` (an image id)
are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import autodistill_grounded_sam
from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.coco_datasets import COCO_FILE
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.json_files import append_rows, join_parts, stream_rows
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import areas, mask_iou
from autodistill_grounded_sam.types import ImageRecord, Labels, Split


class CocoWriter(FolderWriter):
    """Streams: images and annotations go to a file each, one a line, and are joined at the end, so memory stays flat."""

    about = (About("coco", "read back and compared in every export; pycocotools reads it (`tests/export/test_coco.py`)"),)
    name: ClassVar[str] = "coco"
    entries: ClassVar[tuple[str, ...]] = ("train", "valid")
    image_folder: ClassVar[str] = "{split}"

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        split = written.split
        image_id = self._counts[split] + 1
        row = {"id": image_id, "file_name": written.file_name, "width": image.width, "height": image.height, "source": image.id}
        append_rows(self._part_file(split, "images"), [{**row, **({"confirmed": True} if labels.confirmed else {})}])
        sizes = areas(labels.rle).tolist() if labels.rle is not None else [None] * len(labels)
        rows = []
        for place, xyxy in enumerate(written.xyxy):
            self._counts[f"{split}_annotations"] += 1
            xywh = xywh_of(xyxy)
            rows.append(
                {
                    "id": self._counts[f"{split}_annotations"],
                    "image_id": image_id,
                    "category_id": written.class_id[place] + 1,
                    "bbox": [round(number, 3) for number in xywh],
                    "area": round(xywh[2] * xywh[3], 3) if sizes[place] is None else sizes[place],
                    "iscrowd": 0,
                    "segmentation": [] if written.rle is None else written.rle[place],
                    "score": round(float(labels.score[place]), 6),
                    "margin": round(float(labels.margin[place]), 6),
                    **({} if labels.trust is None else {"trust": round(float(labels.trust[place]), 6)}),
                }
            )
        append_rows(self._part_file(split, "annotations"), rows)

    def _complete(self) -> None:
        head = {
            "info": {
                "description": "labelled by autodistill-grounded-sam",
                "version": autodistill_grounded_sam.__version__,
            },
            "licenses": [],
            "categories": [
                {"id": place + 1, "name": name, "supercategory": "none"} for place, name in enumerate(self.class_names)
            ],
        }
        for split in SPLITS:
            parts = {part: self._part_file(split, part) for part in ("images", "annotations")}
            join_parts(self.partial / split / COCO_FILE, head, parts)

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        annotations = {split: stream_rows(self.partial / split / COCO_FILE, "annotations") for split in SPLITS}
        for written, _ in self._written():
            for place, class_id in enumerate(written.class_id):
                row = next(annotations[written.split], None)
                if row is None or row["category_id"] != class_id + 1:
                    raise ExportError(f"coco dataset {self.out}: label {place} of {written.file_name} was not read back")
                if max(abs(a - b) for a, b in zip(row["bbox"], xywh_of(written.xyxy[place]), strict=True)) > 1e-3:
                    raise ExportError(f"coco dataset {self.out}: a box of {written.file_name} came back in another place")
                found.per_class[class_id] += 1
                if written.rle is not None:  # an equal code is an equal mask, and needs no decoding
                    rle = written.rle[place]
                    found.ious.append(1.0 if row["segmentation"] == rle else mask_iou(rle, row["segmentation"]))
        for split in SPLITS:
            if next(annotations[split], None) is not None:
                raise ExportError(f"coco dataset {self.out}: {split}/{COCO_FILE} holds more labels than were written")
        if found.ious and min(found.ious) < 1:
            raise ExportError(f"coco dataset {self.out}: a mask came back changed (IoU {min(found.ious):.3f})")
        return found

    def _part_file(self, split: Split, part: str) -> Path:
        return self.partial / f"{split}-{part}.jsonl"


def xywh_of(xyxy: list[float]) -> list[float]:
    """A box as COCO has it: left, top, width, height."""
    x1, y1, x2, y2 = xyxy
    return [x1, y1, x2 - x1, y2 - y1]
