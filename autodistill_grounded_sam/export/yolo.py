"""The YOLO layout that ultralytics, rfdetr and autodistill read: `data.yaml train/{images,labels} valid/{images,labels}`.

Rules after ultralytics 8.4 (`data/utils.py`): one row is one object; a file holds rings or boxes, never both; an empty label file
is a background image; `path` is left out of data.yaml, so that the folder can be moved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.datasets import SIX_DIGITS, fill_polygon, read_yolo_rows
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.polygons import ring_of_box, rings_of
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written, boxes_inside
from autodistill_grounded_sam.mask_runs import paint_crops, read_runs
from autodistill_grounded_sam.types import ImageRecord, Labels, Mask

MIN_SIDE_PX = 10  # ultralytics takes a smaller image for corrupt (`check_image`)
LABELS_AT_ONCE = 128  # their masks are read, and their numbers written, in few calls; an image without any counts as one

Numbers = npt.NDArray[np.float64]  # (n,) of label rows


class YoloWriter(FolderWriter):
    """What both YOLO formats share.

    `confidence_files=True` writes `labels/confidence-<stem>.txt` for every image, one score a line in the order of its label
    rows: the place and the form of autodistill's `record_confidence`. Readers find labels by the names of the images, so they
    never open these; an image that is itself called `confidence-...` keeps its label file, and the other goes without scores.
    """

    entries: ClassVar[tuple[str, ...]] = ("data.yaml", "train", "valid")
    image_folder: ClassVar[str] = "{split}/images"
    other_folders: ClassVar[tuple[str, ...]] = ("{split}/labels",)
    more_settings: ClassVar[Mapping[str, str]] = {}  # of data.yaml

    def __init__(
        self, out: Path, class_names: Sequence[str], stems: Mapping[str, str], *, confidence_files: bool = False, **settings: Any
    ) -> None:
        super().__init__(out, class_names, stems, **settings)
        self._waiting: list[Written] = []  # images whose label files are not written yet
        self._labels_waiting = 0
        self._confidence_files = confidence_files
        self._label_stems = {stem.casefold() for stem in stems.values()} if confidence_files else set()

    @abstractmethod
    def _rows(self, images: Sequence[Written]) -> tuple[Numbers, list[int]]:
        """The numbers after the class of every label of these images, in a row and normalised to 0..1; and how many each has."""

    def _left_out(self, image: ImageRecord, labels: Labels) -> str:
        if min(image.width, image.height) < MIN_SIDE_PX:
            return f"image(s) under {MIN_SIDE_PX} px were left out: ultralytics takes them for corrupt"
        return super()._left_out(image, labels)

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        if self._confidence_files:
            self._write_confidence(self._label_file(written), labels)
        self._waiting.append(written)
        self._labels_waiting += 1 + len(labels)
        if self._labels_waiting >= LABELS_AT_ONCE:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        numbers = iter(_texts(*self._rows(self._waiting)))
        for written in self._waiting:
            rows = [f"{class_id}{next(numbers)}\n" for class_id in written.class_id]
            twice = len(rows) - len(set(rows))
            if twice:
                self._counts["row(s) are equal to another of their image; ultralytics keeps one of each"] += twice
            self._label_file(written).write_bytes("".join(rows).encode())
        self._waiting.clear()
        self._labels_waiting = 0

    def _write_confidence(self, label_file: Path, labels: Labels) -> None:
        name = f"confidence-{label_file.name}"
        if name.removesuffix(".txt").casefold() in self._label_stems:
            self._counts["image(s) have no confidence file: another image's label file has that name"] += 1
            return
        text = "".join(f"{score}\n" for score in labels.score.tolist())
        label_file.with_name(name).write_bytes(text.encode())

    def _complete(self) -> None:
        import yaml

        self._write_waiting()
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
            **self.more_settings,
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
    def _compare(self, written: Written, rows: list[Numbers], found: ReadBack) -> None:
        """Compare rows with their source; raise ExportError where an object is not where it was."""

    def _label_file(self, written: Written) -> Path:
        return self.partial / f"{written.split}/labels/{written.file_name.rpartition('.')[0]}.txt"


class YoloSegWriter(YoloWriter):
    """One ring an object: `class x1 y1 x2 y2 ...`, see `polygons`. An object whose mask is empty gets the ring of its box."""

    about = (About("yolo-seg", "read back and compared in every export; ultralytics reads it (`tests/export/test_yolo.py`)"),)
    name: ClassVar[str] = "yolo-seg"
    needs_masks: ClassVar[bool] = True

    def _check(self, image: ImageRecord, labels: Labels) -> None:
        super()._check(image, labels)
        if labels.rle is None:
            raise ExportError(
                f"{image.id} has no masks (the run was made without), so yolo-seg cannot be written: use --format yolo"
            )

    def _rows(self, images: Sequence[Written]) -> tuple[Numbers, list[int]]:
        found = rings_of([rle for written in images for rle in written.rle or ()])
        if not found:
            return np.zeros(0), []
        rings = [ring for ring, _ in found]
        left_out = sum(count for _, count in found)
        if left_out:
            self._counts["speck(s) were left out of a ring: the bridge to one would paint more than it holds"] += left_out
        owners = [(written, number) for written in images for number in range(len(written.class_id))]
        for place in [place for place, ring in enumerate(rings) if not len(ring)]:
            self._counts["object(s) without a mask are written as the ring of their box"] += 1
            written, number = owners[place]
            rings[place] = ring_of_box(boxes_inside(written)[number])
        points = [len(ring) for ring in rings]
        sizes = np.array([(written.width, written.height) for written, _ in owners], np.float64)
        return (np.concatenate(rings) / np.repeat(sizes, points, axis=0)).reshape(-1), [2 * count for count in points]

    def _compare(self, written: Written, rows: list[Numbers], found: ReadBack) -> None:
        runs = read_runs(written.rle or [])
        corners = runs.boxes_xyxy()[:, :2].astype(np.int64)
        for crop, corner, row in zip(paint_crops(runs, np.uint8(1)), corners, rows, strict=True):
            if len(row) < 6:
                raise ExportError(f"{self.name} dataset {self.out}: a ring of {written.file_name} came back as a box")
            if not crop.size:
                continue  # an empty mask, written as its box: there is nothing to compare
            size = np.array([written.width, written.height])
            iou = _iou_of_ring(row.reshape(-1, 2) * size, crop.T.view(np.bool_), corner, size)
            if iou == 0:
                raise ExportError(f"{self.name} dataset {self.out}: an object of {written.file_name} came back in another place")
            found.ious.append(iou)


class YoloBoxWriter(YoloWriter):
    """One box an object: `class x_centre y_centre width height`."""

    about = (About("yolo", "read back and compared in every export; ultralytics reads it (`tests/export/test_yolo.py`)"),)
    name: ClassVar[str] = "yolo"

    def _rows(self, images: Sequence[Written]) -> tuple[Numbers, list[int]]:
        boxes = np.concatenate([_centre_size(written) for written in images])
        return boxes.reshape(-1), [4] * len(boxes)

    def _compare(self, written: Written, rows: list[Numbers], found: ReadBack) -> None:
        for row, expected in zip(rows, _centre_size(written), strict=True):
            if len(row) != 4 or np.abs(row - expected).max() > 1e-6:  # six digits are written
                raise ExportError(f"{self.name} dataset {self.out}: a box of {written.file_name} came back in another place")


def _texts(numbers: Numbers, lengths: Sequence[int]) -> list[str]:
    """Each `lengths` of the numbers as text, in the form of SIX_DIGITS; all together, as digits in an array."""
    digits = np.empty((len(numbers), len(SIX_DIGITS)), np.uint8)
    digits[:] = np.frombuffer(SIX_DIGITS, np.uint8)
    rest = np.rint(numbers * 1_000_000).astype(np.uint32)
    for place in (8, 7, 6, 5, 4, 3):
        left = rest // 10
        digits[:, place] += (rest - 10 * left).astype(np.uint8)
        rest = left
    digits[:, 1] += rest.astype(np.uint8)
    text = digits.tobytes().decode("ascii")
    stops = (len(SIX_DIGITS) * np.cumsum(lengths, dtype=np.int64)).tolist()
    return [text[start:stop] for start, stop in pairwise([0, *stops])]


def _iou_of_ring(ring_px: Numbers, crop: Mask, corner: npt.NDArray[np.int64], size: npt.NDArray[np.int64]) -> float:
    """IoU of a mask with its ring as a trainer paints it, looked at no farther than both reach in an image of this size.

    `crop` (height, width) is what the mask's tight box holds, `corner` and `size` are x y of the box and of the image.
    """
    low = np.minimum(np.floor(ring_px.min(axis=0)).astype(np.int64), corner).clip(0)
    high = np.maximum(np.floor(ring_px.max(axis=0)).astype(np.int64) + 2, corner + crop.shape[::-1]).clip(max=size)
    width, height = (high - low).tolist()
    painted = fill_polygon(ring_px - low, width, height)
    left, top = (corner - low).tolist()
    shared = np.count_nonzero(painted[top : top + crop.shape[0], left : left + crop.shape[1]] & crop)
    return float(shared / (np.count_nonzero(painted) + np.count_nonzero(crop) - shared))


def _centre_size(written: Written) -> Numbers:
    """The boxes (n, 4) as centre and size, normalised."""
    xyxy = boxes_inside(written)
    centre_size = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    return centre_size / (written.width, written.height, written.width, written.height)
