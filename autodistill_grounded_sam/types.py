"""The frozen records that flow between the rooms, checked at birth.

Frames: every box is `xyxy` in pixels of the upright image, x to the right, y down, (x2, y2) exclusive. Every mask is a
COCO run-length code of the upright image. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import RecordError

RgbImage = npt.NDArray[np.uint8]  # (height, width, 3), RGB, upright
Mask = npt.NDArray[np.bool_]  # (height, width)
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Split = Literal["train", "valid"]
OnBad = Callable[[str, str, str], None]  # is told (image, reason in a few words, what is wrong) of what a reader leaves out


class Rle(TypedDict):
    """A COCO run-length code: `size` is [height, width], `counts` the compressed string (ASCII)."""

    size: list[int]
    counts: str


class Status(str, Enum):
    """What became of an image in the costly half."""

    SEEN = "seen"
    FAILED = "failed"


class State(str, Enum):
    """What an image is in a dataset. Empty, failed and in review are three different things."""

    LABELLED = "labelled"
    EMPTY = "empty"
    FAILED = "failed"
    REVIEW = "review"


class Reason(str, Enum):
    """Why `decide` dropped a candidate, in the order of its chain; KEPT dropped none."""

    KEPT = "kept"
    NEGATIVE = "negative"  # a negative prompt scored higher than every class
    THRESHOLD = "threshold"  # below the threshold of its class
    MASK = "mask"  # nothing was left of its mask after cleaning
    DUPLICATE = "duplicate"  # a better candidate covers the same object
    HERD = "herd"  # one box around many of its kind
    SIZE = "size"  # outside the size limits of its class
    REJECTED = "rejected"  # by a person, after the chain


REASONS: tuple[Reason, ...] = tuple(Reason)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file: `id` is its POSIX path relative to the folder `root` (unique), `digest` the sha256 of the file's bytes.

    `file` is its real path there, where that is not the id (an id is always printable). Runs of millions hold all of these, so
    there is nothing in them that can be derived.
    """

    id: str
    digest: str
    root: Path
    width: int
    height: int
    file: str = ""

    @property
    def path(self) -> Path:
        return self.root / (self.file or self.id)

    def __post_init__(self) -> None:
        _require(bool(self.id), "ImageRecord.id must not be empty")
        _require(
            self.width > 0 and self.height > 0,
            f"ImageRecord size must be positive, got {self.width}x{self.height} for {self.id!r}",
        )


@dataclass(frozen=True)
class Candidates:
    """What the models saw in one image: all boxes above a floor, the score of every prompt, and a mask each.

    `xyxy` (n, 4) float32 pixels; `scores` (n, P) float32 in 0..1, one column a prompt of the run, in the run's order;
    `rle` n run-length codes, or None before segmentation; `mask_score` (n,) float32, the segmenter's own estimate of its IoU;
    `agreement` (n,) float32 in 0..1, how far several detectors or views agree on it, or None where one look saw all.
    """

    xyxy: Float32
    scores: Float32
    rle: tuple[Rle, ...] | None = None
    mask_score: Float32 | None = None
    agreement: Float32 | None = None

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        _require_array("Candidates.xyxy", self.xyxy, np.float32, (n, 4))
        _require(self.scores.ndim == 2, f"Candidates.scores must be (n, prompts), got shape {self.scores.shape}")
        _require_array("Candidates.scores", self.scores, np.float32, (n, self.scores.shape[1]))
        _require(bool(np.isfinite(self.xyxy).all()), "Candidates.xyxy must be finite")
        _require(n == 0 or bool((self.xyxy[:, 2:] >= self.xyxy[:, :2]).all()), "Candidates.xyxy must have x2 >= x1 and y2 >= y1")
        inside = bool(((self.scores >= 0) & (self.scores <= 1)).all())  # False for nan as well
        _require(inside, "Candidates.scores must be probabilities in 0..1")
        if self.rle is not None:
            _require(len(self.rle) == n, f"Candidates.rle must hold {n} codes, got {len(self.rle)}")
        if self.mask_score is not None:
            _require_array("Candidates.mask_score", self.mask_score, np.float32, (n,))
        if self.agreement is not None:
            _require_array("Candidates.agreement", self.agreement, np.float32, (n,))

    def __len__(self) -> int:
        return len(self.xyxy)

    def select(self, which: npt.NDArray[Any]) -> Candidates:
        """The candidates at `which` (bool mask or indices), as a new record."""
        index = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return Candidates(
            self.xyxy[index],
            self.scores[index],
            None if self.rle is None else tuple(self.rle[i] for i in index),
            None if self.mask_score is None else self.mask_score[index],
            None if self.agreement is None else self.agreement[index],
        )

    @staticmethod
    def none(prompts: int) -> Candidates:
        """No candidate, for a run of `prompts` prompts: confirmed to hold nothing."""
        return Candidates(np.zeros((0, 4), np.float32), np.zeros((0, prompts), np.float32), (), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Sighting:
    """An image with what was seen in it, or with the reason why it could not be seen (`reason` short, `detail` a sentence).

    `dhash` is the 64-bit difference hash of the upright image, by which near-duplicates are known without reading it again.
    """

    image: ImageRecord
    status: Status
    candidates: Candidates | None = None
    reason: str = ""
    detail: str = ""
    dhash: int | None = None

    def __post_init__(self) -> None:
        _require(
            (self.status is Status.SEEN) == (self.candidates is not None),
            f"a {self.status} Sighting has candidates or it has none: {self.image.id!r}",
        )
        _require(self.status is Status.SEEN or bool(self.reason), f"a failed Sighting needs a reason: {self.image.id!r}")


@dataclass(frozen=True)
class Labels:
    """What `decide` kept of one image's candidates, best first, and why each other one was dropped.

    `class_id`, `score`, `margin` and `candidate` are (m,); `margin` is the score less that of the best other class or
    negative; `candidate` is the row in `Candidates`; `rle` m codes, or None where the run has no masks.
    `reasons` (n,) uint8 indexes `REASONS`, one for every candidate; `rival` (n,) int32 is the candidate that a duplicate lost to,
    else -1. `trust` (m,) is the probability that each label is right, or None where the run has no calibration (`quality`).
    What a person drew has score, margin and trust 1, and candidate -1; `confirmed` images were said by one to hold just this.
    """

    state: State
    class_id: Int32
    score: Float32
    margin: Float32
    xyxy: Float32
    candidate: Int32
    rle: tuple[Rle, ...] | None = None
    reasons: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    rival: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    trust: Float32 | None = None
    confirmed: bool = False

    def __post_init__(self) -> None:
        m = len(self.class_id)
        _require_array("Labels.class_id", self.class_id, np.int32, (m,))
        _require_array("Labels.score", self.score, np.float32, (m,))
        _require_array("Labels.margin", self.margin, np.float32, (m,))
        _require_array("Labels.xyxy", self.xyxy, np.float32, (m, 4))
        _require_array("Labels.candidate", self.candidate, np.int32, (m,))
        if self.rle is not None:
            _require(len(self.rle) == m, f"Labels.rle must hold {m} codes, got {len(self.rle)}")
        if self.trust is not None:
            _require_array("Labels.trust", self.trust, np.float32, (m,))
        _require(len(self.reasons) == len(self.rival), "Labels.reasons and Labels.rival must be of one length")
        _require(self.state is not State.EMPTY or m == 0, f"empty Labels must hold no label, got {m}")
        _require(self.state is not State.LABELLED or m > 0, "labelled Labels must hold a label; use State.EMPTY")

    def __len__(self) -> int:
        return len(self.class_id)

    def select(self, which: npt.NDArray[np.bool_]) -> Labels:
        """The labels at `which` (m,), as a new record; at least one must stay, or the image would count as empty."""
        return replace(
            self,
            class_id=self.class_id[which],
            score=self.score[which],
            margin=self.margin[which],
            xyxy=self.xyxy[which],
            candidate=self.candidate[which],
            rle=None if self.rle is None else tuple(self.rle[place] for place in np.flatnonzero(which)),
            trust=None if self.trust is None else self.trust[which],
        )

    @staticmethod
    def nothing(state: State = State.EMPTY) -> Labels:
        """No label: confirmed empty, failed, or waiting for review."""
        return Labels(
            state,
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int32),
            (),
        )


@dataclass(frozen=True)
class DatasetImage:
    """One image of a dataset and its n labels.

    `path` is None where the file is not beside its labels; `name` is the file name as the dataset writes it. `class_id` (n,)
    indexes the dataset's class names; `xyxy` (n, 4) float32 pixels of the upright image; `rle` n codes, or None if any label is
    only a box; `some_rle` (n,) is then the masks of the others, or None where there are none; `score` (n,) float32, or None in a
    dataset of people; `crowd` (n,) marks COCO's crowd regions, or None; an image of a `test` split counts as valid.
    """

    path: Path | None
    name: str
    split: Split
    width: int
    height: int
    class_id: Int32
    xyxy: Float32
    rle: tuple[Rle, ...] | None = None
    score: Float32 | None = None
    crowd: npt.NDArray[np.bool_] | None = None
    some_rle: tuple[Rle | None, ...] | None = None
    test: bool = False


@dataclass(frozen=True)
class DatasetSummary:
    """What an export wrote, counted by reading it back; `round_trip_iou` is the mean mask IoU, None where there are no masks."""

    format: str
    path: Path
    images: Mapping[str, int]  # by split
    empty: int
    labels: int
    per_class: Mapping[str, int]
    round_trip_iou: float | None = None
    lowest_iou: float | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class TrainResult:
    """A trained student: its weights, what it started from, its own figures on the validation split, the repeating command.

    `exported` is the same student in another form, where one was asked for.
    """

    weights: Path
    started_from: str
    figures: Mapping[str, float]
    command: str
    exported: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """Figures against a human reference. AP after COCO (pycocotools); `confusion[truth][label]` counts, "" is background."""

    box: Mapping[str, float]
    mask: Mapping[str, float] | None
    operating_point: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    confusion: Mapping[str, Mapping[str, int]]
    notes: Sequence[str] = ()
    command: str = ""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecordError(message)


def _require_array(name: str, array: npt.NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise RecordError(f"{name} must be {np.dtype(dtype).name} of shape {shape}, got {array.dtype} of shape {array.shape}")
