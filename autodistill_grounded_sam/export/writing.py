"""What every dataset writer shares: a part-made folder, images, counts, reading back, and putting it in place when whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TextIO, TypeVar

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import ExportError, ImageReadError
from autodistill_grounded_sam.export.folder_lock import FolderLock
from autodistill_grounded_sam.export.replacing import disk_errors, put_in_place, require_folder, require_ours
from autodistill_grounded_sam.images import upright_bytes
from autodistill_grounded_sam.masks import areas, encode_mask
from autodistill_grounded_sam.places import is_remote
from autodistill_grounded_sam.types import DatasetSummary, ImageRecord, Labels, Rle, Split, State

logger = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "valid")
# More labels than this are read back and counted all the same, but only every k-th image's masks are compared.
COMPARED_LABELS = 5000

ImageSource = Callable[[ImageRecord], tuple[bytes, str]]
WriterType = TypeVar("WriterType", bound="FolderWriter")


@dataclass(frozen=True)
class Written:
    """What went into the dataset for one image: the source against which the files are compared when they are read back."""

    split: Split
    file_name: str
    width: int
    height: int
    class_id: list[int]
    xyxy: list[list[float]]
    rle: list[Rle] | None


@dataclass
class ReadBack:
    """What was found on disk: labels by class, and the IoU of each mask that was compared."""

    per_class: Counter[int] = field(default_factory=Counter)
    ious: list[float] = field(default_factory=list)


class FolderWriter(ABC):
    """A `DatasetWriter` of a folder. A subclass says which entries of the folder are its own, writes labels, and reads them back.

    Everything is made in `<out>/.partial-<format>` and moved to `<out>` by a clean exit; an error leaves `<out>` as it was. Other
    things in `<out>` (a run's own files) are left alone; a dataset of another format there, labels changed by hand, and a second
    process in the with-block are refused. Images are copies, so that editing a dataset never changes the
    originals; `link=True` makes hard links of those that need no change: it saves the disk, but an edit of one edits both.
    """

    name: ClassVar[str]
    entries: ClassVar[tuple[str, ...]]
    image_folder: ClassVar[str]  # of a split's images, with the place of the split
    other_folders: ClassVar[tuple[str, ...]] = ()  # that a split has beside it
    needs_masks: ClassVar[bool] = False  # whether labels without masks cannot be written

    def __init__(
        self,
        out: Path,
        class_names: Sequence[str],
        stems: Mapping[str, str],
        *,
        notes: Sequence[str] = (),
        link: bool = False,
        image_source: ImageSource = upright_bytes,
    ) -> None:
        if len(set(stems.values())) < len(stems):
            twice = next(stem for stem, count in Counter(stems.values()).items() if count > 1)
            raise ExportError(f"two images of the dataset {out} have one file stem {twice!r}; `dataset_stems` gives unique ones")
        self.out = Path(out)
        self.partial = self.out / f".partial-{self.name}"
        self._image_folders = {split: self.partial / self.image_folder.format(split=split) for split in SPLITS}
        self.class_names = tuple(class_names)
        self._lock = FolderLock(self.out)
        self._stems = stems
        self._notes = list(notes)
        self._link = link
        self._image_source = image_source
        self._counts: Counter[str] = Counter()  # of anything that a note is made of
        self._summary: DatasetSummary | None = None
        self._spool: TextIO = io.StringIO()  # until the folder is made
        self._was_there = True

    def __enter__(self: WriterType) -> WriterType:
        with disk_errors(self.out):
            require_folder(self.out)
            self._was_there = self.out.exists()
            self._lock.take()
            try:
                require_ours(self.out, self.name, self.entries)
                shutil.rmtree(self.partial, ignore_errors=True)  # of a killed export
                for folder in (self.image_folder, *self.other_folders):
                    for split in SPLITS:
                        (self.partial / folder.format(split=split)).mkdir(parents=True, exist_ok=True)
                self._spool = self._spool_file.open("w", encoding="utf-8")
            except BaseException:
                self._sweep()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                if self._summary is None:
                    self.finish()
                with disk_errors(self.out):
                    put_in_place(self.partial, self.out, self.name, self.entries)
        finally:
            self._sweep()

    def write(self, image: ImageRecord, labels: Labels, split: Split) -> None:
        """Add an image with its labels. Images that failed or wait for review are counted, not written.

        Raises ExportError for labels that do not belong to the image or the classes, and where the disk is full.
        """
        reason = self._left_out(image, labels)
        if reason:
            self._counts[reason] += 1
            return
        self._check(image, labels)
        labels = self._fitting(image, labels)
        with disk_errors(self.out):
            try:
                data, suffix = self._image_source(image)
            except ImageReadError as error:
                logger.warning("%s is left out of the dataset, it can no longer be read: %s", image.id, error)
                self._counts["image(s) could not be read any more and were left out"] += 1
                return
            file_name = self._stems[image.id] + suffix
            self._put_image(image, data, split, file_name)
            written = Written(
                split,
                file_name,
                image.width,
                image.height,
                labels.class_id.tolist(),
                labels.xyxy.tolist(),
                None if labels.rle is None else list(labels.rle),
            )
            self._write_labels(image, labels, written)
            self._spool.write(json.dumps(written.__dict__) + "\n")
        self._counts[split] += 1
        self._counts["labels"] += len(labels)
        self._counts["empty"] += len(labels) == 0

    def finish(self) -> DatasetSummary:
        """Complete the files, read every one back and compare. Raises ExportError if an object or an image was lost."""
        if self._summary is not None:
            return self._summary
        with disk_errors(self.out):
            if not self._counts["train"] + self._counts["valid"]:
                told = "; ".join(self._told()) or "none was given"
                raise ExportError(f"no image to write into the dataset {self.out}: {told}")
            self._complete()
            try:
                found = self._read_back()
            except (ValueError, KeyError, TypeError) as error:  # what the readers raise for files that are not what they claim
                raise ExportError(f"{self.name} dataset {self.out} cannot be read back: {error}") from error
        for split in SPLITS:
            images = self._images_there(split)
            if images != self._counts[split]:
                raise ExportError(
                    f"{self.name} dataset {self.out}: wrote {self._counts[split]} {split} images, {images} are there"
                )
        if found.per_class.total() != self._counts["labels"]:
            raise ExportError(
                f"{self.name} dataset {self.out}: wrote {self._counts['labels']} labels, read back {found.per_class.total()}"
            )
        self._summary = DatasetSummary(
            format=self.name,
            path=self.out,
            images={split: self._counts[split] for split in SPLITS},
            empty=self._counts["empty"],
            labels=self._counts["labels"],
            per_class={name: found.per_class[place] for place, name in enumerate(self.class_names)},
            round_trip_iou=float(np.mean(found.ious)) if found.ious else None,
            lowest_iou=float(np.min(found.ious)) if found.ious else None,
            notes=tuple([*self._notes, *self._told()]),
        )
        return self._summary

    @abstractmethod
    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        """Write the labels of one image into the partial folder."""

    @abstractmethod
    def _complete(self) -> None:
        """Write what can only be written at the end."""

    @abstractmethod
    def _read_back(self) -> ReadBack:
        """Read every label from the partial folder and compare it with `self._written()`; raise ExportError where one is lost."""

    def _left_out(self, image: ImageRecord, labels: Labels) -> str:
        """Why an image is not for the dataset, as the end of a counted note; "" if it is."""
        return {
            State.FAILED: "image(s) that failed were left out",
            State.REVIEW: "image(s) that wait for review were left out",
        }.get(labels.state, "")

    def _fitting(self, image: ImageRecord, labels: Labels) -> Labels:
        """What of an image's labels this format can hold at all; what it cannot is counted for a note."""
        return labels

    def _images_there(self, split: Split) -> int:
        """How many images of a split are on disk, to compare with how many were written."""
        return sum(not entry.name.endswith(".json") for entry in os.scandir(self._image_folders[split]))

    def _written(self) -> Iterator[tuple[Written, bool]]:
        """What was written, in order, and whether the masks of this image are to be compared."""
        every = 1 + self._counts["labels"] // COMPARED_LABELS
        self._spool.close()
        with self._spool_file.open(encoding="utf-8") as spool:
            for place, line in enumerate(spool):
                yield Written(**json.loads(line)), place % every == 0
        if every > 1:
            self._notes.append(f"masks of every {every}th image were compared with their source; labels were counted in all")

    @property
    def _spool_file(self) -> Path:
        return self.partial / "written.jsonl"

    def _told(self) -> list[str]:
        return [f"{count} {what}" for what, count in self._counts.items() if " " in what]

    def _check(self, image: ImageRecord, labels: Labels) -> None:
        if len(labels) and not 0 <= labels.class_id.min() <= labels.class_id.max() < len(self.class_names):
            raise ExportError(
                f"{image.id} has a label of class {labels.class_id.max()}, but there are {len(self.class_names)} classes: "
                f"{', '.join(self.class_names)}"
            )
        for rle in labels.rle or ():
            if rle["size"] != [image.height, image.width]:
                raise ExportError(
                    f"{image.id} is {image.width}x{image.height}, but a mask of it is {rle['size'][1]}x{rle['size'][0]}: "
                    "the labels belong to another image; label it again"
                )

    def _put_image(self, image: ImageRecord, data: bytes, split: Split, file_name: str) -> None:
        """Write the image's bytes where this format has them."""
        path = self._image_folders[split] / file_name
        if self._link and not is_remote(image.path) and hashlib.sha256(data).hexdigest() == image.digest:
            with contextlib.suppress(OSError):  # another file system, or one without links: copy
                os.link(image.path.resolve(), path)  # of a symbolic link, Linux would link the link
                return
        path.write_bytes(data)

    def _sweep(self) -> None:
        """Take away what is part-made, and the folder itself if it was made for a dataset that came to nothing."""
        self._spool.close()
        shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.release()
        if not self._was_there:
            with contextlib.suppress(OSError):  # not empty: the dataset is in it
                self.out.rmdir()


def boxes_inside(written: Written) -> npt.NDArray[np.float64]:
    """The boxes (n, 4) in pixels, cut at the image's edges, and at least one pixel wide and high, so that none is lost."""
    xyxy = np.array(written.xyxy, np.float64).reshape(-1, 4)
    size = np.array([written.width, written.height], np.float64)
    low = np.clip(xyxy[:, :2], 0, size - 1)
    high = np.clip(np.maximum(xyxy[:, 2:], low + 1), 0, size)
    return np.concatenate([low, high], axis=1)


def masks_inside(written: Written) -> list[Rle]:
    """The masks of an image that has some; the box of each object whose mask is empty."""
    rles = list(written.rle or ())
    for place in np.flatnonzero(areas(rles) == 0).tolist():
        x1, y1, x2, y2 = boxes_inside(written)[place]
        mask = np.zeros((written.height, written.width), np.bool_)
        mask[int(y1) : math.ceil(y2), int(x1) : math.ceil(x2)] = True
        rles[place] = encode_mask(mask)
    return rles
