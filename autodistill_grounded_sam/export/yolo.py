"""The YOLO layout that ultralytics, rfdetr and autodistill read: `data.yaml train/{images,labels} valid/{images,labels}`.

Rules after ultralytics 8.4 (`data/utils.py`): one row is one object; a file holds rings or boxes, never both; an empty label file
is a background image; `path` is left out of data.yaml, so that the folder can be moved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.datasets import fill_polygon, read_yolo_rows
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.polygons import ring_of, ring_of_box
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import areas, boxes_xyxy, decode_mask
from autodistill_grounded_sam.types import ImageRecord, Labels, Rle

MIN_SIDE_PX = 10  # ultralytics takes a smaller image for corrupt (`check_image`)


class YoloWriter(FolderWriter):
    """What both YOLO formats share.

    `confidence_files=True` writes `labels/confidence-<stem>.txt` for every image, one score a line in the order of its label
    rows: the place and the form of autodistill's `record_confidence`. Readers find labels by the names of the images, so they
    never open these; an image that is itself called `confidence-...` keeps its label file, and the other goes without scores.
    """

    entries: ClassVar[tuple[str, ...]] = ("data.yaml", "train", "valid")
    image_folder: ClassVar[str] = "{split}/images"

    def __init__(
        self, out: Path, class_names: Sequence[str], stems: Mapping[str, str], *, confidence_files: bool = False, **settings: Any
    ) -> None:
        super().__init__(out, class_names, stems, **settings)
        self._confidence_files = confidence_files
        self._label_stems = {stem.casefold() for stem in stems.values()} if confidence_files else set()

    @abstractmethod
    def _rows(self, written: Written) -> list[npt.NDArray[np.float64]]:
        """For every label the numbers after its class, normalised to 0..1."""

    def _left_out(self, image: ImageRecord, labels: Labels) -> str:
        if min(image.width, image.height) < MIN_SIDE_PX:
            return f"image(s) under {MIN_SIDE_PX} px were left out: ultralytics takes them for corrupt"
        return super()._left_out(image, labels)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        rows = [
            ("%d" + " %.6f" * len(row)) % (class_id, *row.tolist())  # one call: a ring has a hundred points
            for class_id, row in zip(written.class_id, self._rows(written), strict=True)
        ]
        twice = len(rows) - len(set(rows))
        if twice:
            self._counts["row(s) are equal to another of their image; ultralytics keeps one of each"] += twice
        label_file = self._label_file(written)
        label_file.parent.mkdir(exist_ok=True)
        label_file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        if self._confidence_files:
            self._write_confidence(label_file, labels)

    def _write_confidence(self, label_file: Path, labels: Labels) -> None:
        name = f"confidence-{label_file.name}"
        if name.removesuffix(".txt").casefold() in self._label_stems:
            self._counts["image(s) have no confidence file: another image's label file has that name"] += 1
            return
        text = "".join(f"{score}\n" for score in labels.score.tolist())
        label_file.with_name(name).write_text(text, encoding="utf-8")

    def _complete(self) -> None:
        import yaml

        for split in SPLITS:
            (self.partial / split / "labels").mkdir(exist_ok=True)
        train, valid = (split if self._counts[split] else "" for split in SPLITS)
        if not train or not valid:  # ultralytics refuses a split without images
            self._notes.append(
                f"no image fell to {'valid' if train else 'train'}: data.yaml names {train or valid}/images as train and val, "
                "so its figures say nothing about new images"
            )
        settings = {
            "train": f"{train or valid}/images",
            "val": f"{valid or train}/images",
            "nc": len(self.class_names),
            "names": list(self.class_names),
        }
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
            if compare:
                self._compare(written, rows, found)
        return found

    @abstractmethod
    def _compare(self, written: Written, rows: list[npt.NDArray[np.float64]], found: ReadBack) -> None:
        """Compare rows with their source; raise ExportError where an object is not where it was."""

    def _label_file(self, written: Written) -> Path:
        return (self.partial / written.split / "labels" / written.file_name).with_suffix(".txt")


class YoloSegWriter(YoloWriter):
    """One ring an object: `class x1 y1 x2 y2 ...`, see `polygons`. An object whose mask is empty gets the ring of its box."""

    name: ClassVar[str] = "yolo-seg"
    needs_masks: ClassVar[bool] = True

    def _check(self, image: ImageRecord, labels: Labels) -> None:
        super()._check(image, labels)
        if labels.rle is None:
            raise ExportError(
                f"{image.id} has no masks (the run was made without), so yolo-seg cannot be written: use --format yolo"
            )

    def _rows(self, written: Written) -> list[npt.NDArray[np.float64]]:
        rows = []
        for rle, xyxy in zip(written.rle or [], _inside(written), strict=True):
            ring, left_out = ring_of(rle)
            if left_out:
                self._counts["speck(s) were left out of a ring: the bridge to one would paint more than it holds"] += left_out
            if not len(ring):
                self._counts["object(s) without a mask are written as the ring of their box"] += 1
                ring = ring_of_box(xyxy)
            rows.append((ring / (written.width, written.height)).reshape(-1))
        return rows

    def _compare(self, written: Written, rows: list[npt.NDArray[np.float64]], found: ReadBack) -> None:
        for rle, row in zip(written.rle or [], rows, strict=True):
            if len(row) < 6:
                raise ExportError(f"{self.name} dataset {self.out}: a ring of {written.file_name} came back as a box")
            if not areas([rle])[0]:
                continue  # written as its box: there is nothing to compare
            iou = _iou_of_ring(row.reshape(-1, 2) * (written.width, written.height), rle)
            if iou == 0:
                raise ExportError(f"{self.name} dataset {self.out}: an object of {written.file_name} came back in another place")
            found.ious.append(iou)


class YoloBoxWriter(YoloWriter):
    """One box an object: `class x_centre y_centre width height`."""

    name: ClassVar[str] = "yolo"

    def _rows(self, written: Written) -> list[npt.NDArray[np.float64]]:
        xyxy = _inside(written)
        centre_size = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        return list(centre_size / (written.width, written.height, written.width, written.height))

    def _compare(self, written: Written, rows: list[npt.NDArray[np.float64]], found: ReadBack) -> None:
        for row, expected in zip(rows, self._rows(written), strict=True):
            if len(row) != 4 or np.abs(row - expected).max() > 1e-6:  # six digits are written
                raise ExportError(f"{self.name} dataset {self.out}: a box of {written.file_name} came back in another place")


def _iou_of_ring(ring_px: npt.NDArray[np.float64], rle: Rle) -> float:
    """IoU of a mask with its ring as a trainer paints it, looked at no farther than both reach."""
    mask = decode_mask(rle)
    x1, y1, x2, y2 = (int(edge) for edge in boxes_xyxy([rle])[0])
    left, top = np.minimum(np.floor(ring_px.min(axis=0)).astype(int), (x1, y1)).clip(0)
    right, bottom = np.maximum(np.floor(ring_px.max(axis=0)).astype(int) + 2, (x2, y2)).clip(max=mask.shape[::-1])
    wanted = mask[top:bottom, left:right]
    painted = fill_polygon(ring_px - (left, top), right - left, bottom - top)
    return float((wanted & painted).sum() / (wanted | painted).sum())


def _inside(written: Written) -> npt.NDArray[np.float64]:
    """The boxes (n, 4) in pixels, cut at the image's edges, and at least one pixel wide and high, so that none is lost."""
    xyxy = np.array(written.xyxy, np.float64).reshape(-1, 4)
    size = np.array([written.width, written.height], np.float64)
    low = np.clip(xyxy[:, :2], 0, size - 1)
    high = np.clip(np.maximum(xyxy[:, 2:], low + 1), 0, size)
    return np.concatenate([low, high], axis=1)
