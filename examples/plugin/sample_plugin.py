"""A detector, a segmenter and a dataset format of a third party. Classes are built without arguments (a format: as below), and
need no base class: the methods are all. `test_sample_plugin.py` checks that they keep the contracts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Candidates, DatasetSummary, ImageRecord, Labels, RgbImage, Split, State

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 210), "yellow": (240, 210, 50)}
NEAR = 90.0  # how far a pixel's colour may be from the one that is asked for, in 0..441
SMALLEST_PX = 40  # of a spot of one colour; smaller ones are noise


class ColourDetector:
    """Spots of the colour that a prompt begins with; the score is the share of the box that they fill."""

    about = (About("sample-colour", "finds red, green, blue and yellow spots (`test_sample_plugin.py`)", licence="Apache-2.0"),)

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image, prompts) for image in images]

    def _detect_one(self, image_rgb: RgbImage, prompts: Sequence[str]) -> Candidates:
        boxes: list[tuple[int, int, int, int]] = []
        scores: list[np.ndarray[Any, Any]] = []
        for column, prompt in enumerate(prompts):
            colour = COLOURS.get(prompt.split()[0].lower())
            if colour is None:
                continue
            spots, _ = ndimage.label(_near(image_rgb, colour))
            for number, (rows, columns) in enumerate(ndimage.find_objects(spots), 1):
                filled = spots[rows, columns] == number
                if filled.sum() >= SMALLEST_PX:
                    boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                    scores.append(np.where(np.arange(len(prompts)) == column, filled.mean(), 0))
        return Candidates(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(len(boxes), len(prompts))
        )


class ColourSegmenter:
    """The pixels of a box that have the colour of its middle."""

    about = (About("sample-colour", licence="Apache-2.0"),)

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        return [self._segment_one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _segment_one(self, image_rgb: RgbImage, found: Candidates) -> Candidates:
        masks = []
        for x1, y1, x2, y2 in found.xyxy.round().astype(int).clip(0).tolist():
            height, width = image_rgb.shape[:2]
            middle = image_rgb[min((y1 + y2) // 2, height - 1), min((x1 + x2) // 2, width - 1)]
            mask = np.zeros((height, width), np.bool_)
            mask[y1:y2, x1:x2] = _near(image_rgb[y1:y2, x1:x2], middle.tolist())
            masks.append(encode_mask(mask))
        return replace(found, rle=tuple(masks), mask_score=np.full(len(masks), 0.5, np.float32))


class CsvWriter:
    """`labels.csv`: a line a label. It is put in place when it is whole, and nothing else in the output folder is touched."""

    about = (About("sample-csv", licence="Apache-2.0"),)

    def __init__(self, out: Path, class_names: Sequence[str], stems: Mapping[str, str], *, notes: Sequence[str] = ()) -> None:
        self._out, self._names, self._notes = Path(out), tuple(class_names), tuple(notes)
        self._partial = self._out / ".labels.csv.partial"
        self._images: Counter[str] = Counter(train=0, valid=0)
        self._labels: Counter[str] = Counter(dict.fromkeys(class_names, 0))
        self._empty = 0

    def __enter__(self) -> CsvWriter:
        self._out.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(("image", "split", "class", "score", "x1", "y1", "x2", "y2"))
        return self

    def write(self, image: ImageRecord, labels: Labels, split: Split) -> None:
        if labels.state in (State.FAILED, State.REVIEW):
            return
        for class_id, score, box in zip(labels.class_id, labels.score, labels.xyxy, strict=True):
            name = self._names[class_id]
            self._rows.writerow((image.id, split, name, f"{score:.4f}", *(f"{value:.1f}" for value in box)))
            self._labels[name] += 1
        self._images[split] += 1
        self._empty += len(labels) == 0

    def finish(self) -> DatasetSummary:
        return DatasetSummary(
            "sample-csv", self._out, dict(self._images), self._empty, self._labels.total(), dict(self._labels), notes=self._notes
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if error is None:
            self._partial.replace(self._out / "labels.csv")
        else:
            self._partial.unlink()


def _near(image_rgb: RgbImage, colour: Sequence[float]) -> np.ndarray[Any, Any]:
    return np.linalg.norm(image_rgb.astype(np.float32) - np.asarray(colour, np.float32), axis=-1) < NEAR
