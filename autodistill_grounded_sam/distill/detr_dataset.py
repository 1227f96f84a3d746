"""The labelled images that a detection transformer learns from: a YOLO or COCO dataset, read and checked before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.types import DatasetImage, RgbImage


@dataclass(frozen=True)
class TrainingSet:
    """The labelled images of each split."""

    class_names: tuple[str, ...]
    train: tuple[DatasetImage, ...]
    valid: tuple[DatasetImage, ...]

    @property
    def digest(self) -> str:
        """Of all that is learnt from: the names of images, and their labels."""
        total = hashlib.sha256("\n".join(self.class_names).encode())
        for image in (*self.train, *self.valid):
            total.update(f"{image.split} {image.name} {image.width} {image.height}".encode())
            total.update(image.class_id.tobytes() + image.xyxy.tobytes())
            total.update("".join(str(code["counts"]) for code in image.rle or ()).encode())
        return total.hexdigest()


def read_training_set(dataset: Path, *, masks: bool) -> TrainingSet:
    """Read a dataset folder that `label` or `export` wrote: YOLO (a data.yaml) or COCO; `masks`: every object must have one.

    Raises DatasetError where a split, its files, all objects or the masks are missing.
    """
    images = list(read_dataset(dataset))
    for image in images:
        if image.path is None:
            raise DatasetError(f"{dataset}: the image {image.name} is not beside its labels")
        if masks and image.rle is None and len(image.class_id):
            raise DatasetError(
                f"this student learns masks, but {dataset} holds boxes ({image.name} for one); take one of boxes, or export "
                "masks with --format coco or yolo-seg"
            )
    train = tuple(image for image in images if image.split == "train")
    valid = tuple(image for image in images if image.split == "valid")
    if not train or not valid:
        raise DatasetError(f"{dataset} has no {'valid' if train else 'train'} images; a student needs both (--valid 0.2)")
    if not any(len(image.class_id) for image in train):
        raise DatasetError(f"{dataset} has no object to learn from: all images of 'train' are empty")
    return TrainingSet(tuple(dataset_class_names(dataset)), train, valid)


def read_pixels(image: DatasetImage) -> RgbImage:
    """The upright picture; raises DatasetError where it is of another size than its labels say."""
    pixels = read_image(image.path or Path(image.name))
    if pixels.shape[:2] != (image.height, image.width):
        raise DatasetError(
            f"{image.path}: the labels say {image.width}x{image.height}, the upright image is {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return pixels


def not_crowd(image: DatasetImage) -> Sequence[int]:
    """The places of the labels that are single objects."""
    crowd = np.zeros(len(image.class_id), np.bool_) if image.crowd is None else image.crowd
    return [int(place) for place in np.flatnonzero(~crowd)]
