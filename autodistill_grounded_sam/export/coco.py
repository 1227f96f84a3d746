"""COCO json with exact run-length masks: `train/_annotations.coco.json` and `valid/...` beside their images, as rfdetr reads it.

Category ids are class id + 1: COCO itself counts from 1, and ultralytics' converter, supervision and torchvision rely on it.
Annotation ids count from 1 too (pycocotools takes 0 for "unmatched"). `score`, `margin`, `trust` and `source` (an image id)
are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import autodistill_grounded_sam
from autodistill_grounded_sam.datasets import COCO_FILE
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import areas, mask_iou
from autodistill_grounded_sam.types import ImageRecord, Labels, Split


class CocoWriter(FolderWriter):
    """Streams: images and annotations go to a file each, one a line, and are joined at the end, so memory stays flat."""

    name: ClassVar[str] = "coco"
    entries: ClassVar[tuple[str, ...]] = ("train", "valid")
    image_folder: ClassVar[str] = "{split}"

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        split = written.split
        image_id = self._counts[split] + 1
        row = {"id": image_id, "file_name": written.file_name, "width": image.width, "height": image.height, "source": image.id}
        self._append(split, "images", [{**row, **({"confirmed": True} if labels.confirmed else {})}])
        sizes = areas(labels.rle).tolist() if labels.rle is not None else [None] * len(labels)
        rows = []
        for place, xyxy in enumerate(written.xyxy):
            self._counts[f"{split}_annotations"] += 1
            xywh = _xywh(xyxy)
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
        self._append(split, "annotations", rows)

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
            with (self.partial / split / COCO_FILE).open("w", encoding="utf-8") as file:
                file.write(json.dumps(head, ensure_ascii=False)[:-1])
                for part in ("images", "annotations"):
                    file.write(f',\n"{part}": [')
                    for place, line in enumerate(_lines(self._part_file(split, part))):
                        file.write(("," if place else "") + "\n" + line)
                    file.write("\n]")
                file.write("\n}\n")

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        annotations = {split: _annotations(self.partial / split / COCO_FILE) for split in SPLITS}
        for written, _ in self._written():
            for place, class_id in enumerate(written.class_id):
                row = next(annotations[written.split], None)
                if row is None or row["category_id"] != class_id + 1:
                    raise ExportError(f"coco dataset {self.out}: label {place} of {written.file_name} was not read back")
                if max(abs(a - b) for a, b in zip(row["bbox"], _xywh(written.xyxy[place]), strict=True)) > 1e-3:
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

    def _append(self, split: Split, part: str, rows: list[dict[str, Any]]) -> None:
        with self._part_file(split, part).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _xywh(xyxy: list[float]) -> list[float]:
    x1, y1, x2, y2 = xyxy
    return [x1, y1, x2 - x1, y2 - y1]


def _lines(file: Path) -> Iterator[str]:
    if file.exists():
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\n")


def _annotations(file: Path) -> Iterator[dict[str, Any]]:
    """The annotations of a file as `_complete` lays it out, one at a time: json.load would hold all of them."""
    inside = False
    for line in _lines(file):
        if inside and line != "]":
            yield json.loads(line.rstrip(","))
        inside = line == '"annotations": [' or (inside and line != "]")
