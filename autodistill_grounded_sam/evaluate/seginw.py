"""Segmentation in the Wild (SegInW): 25 small datasets, what its official zero-shot evaluation counts, what was published.

The protocol is that of the evaluation scripts of SAM-HQ and Grounding DINO, by which the published figures were made: all
category names of a dataset, raw and in the order of its json, in one caption; of all pairs of a box and a class the 100 that
score best, no threshold and no suppression; a mask for each box, which keeps the box's score; COCOeval on the split `valid`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.evaluate.average_precision import bootstrap, coco_of, match, overall
from autodistill_grounded_sam.types import Float32, RgbImage

PAIRS = 100  # of a box and a class, an image: `--num_select` of the official scripts, and all that COCO counts
DRAWS = 200  # bootstrap samples of the images of a dataset; an interval is from the 2.5th to the 97.5th percentile of them
KEYS = {  # what COCOeval and the official scripts read of each entry
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd"),
}
FILE = "_annotations_min1cat.coco.json"  # beside the images of a split

# Mask AP (x 100) of the split `valid`. From the tables of the Grounded SAM report (arXiv 2401.14159) and of SAM-HQ's repository.
MODELS = ("B+H", "L+H", "B+HQ-H", "B+SAM2", "B+HQ-SAM2")
WHAT = {
    "B+H": "Grounding DINO B, SAM ViT-H",
    "L+H": "Grounding DINO L (never released), SAM ViT-H",
    "B+HQ-H": "Grounding DINO B, SAM-HQ ViT-H",
    "B+SAM2": "Grounding DINO B, SAM 2.1 Hiera-L",
    "B+HQ-SAM2": "Grounding DINO B, HQ-SAM 2 Hiera-L",
}
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "Airplane-Parts": (37.2, 38.4, 37.6, 38.3, 38.6),
    "Bottles": (65.4, 43.7, 66.3, 67.1, 66.8),
    "Brain-Tumor": (11.9, 10.2, 12.0, 12.1, 12.0),
    "Chicken": (84.5, 84.6, 84.5, 80.7, 81.0),
    "Cows": (47.5, 49.4, 47.8, 52.8, 52.8),
    "Electric-Shaver": (71.7, 59.7, 72.1, 72.0, 71.9),
    "Elephants": (77.9, 78.6, 77.5, 78.2, 77.2),
    "Fruits": (82.3, 86.9, 82.3, 83.3, 83.3),
    "Garbage": (24.0, 28.2, 25.0, 26.0, 26.1),
    "Ginger-Garlic": (45.8, 40.0, 45.6, 45.7, 45.5),
    "Hand": (70.0, 90.7, 74.8, 77.6, 79.0),
    "Hand-Metal": (81.2, 75.2, 81.2, 73.7, 74.8),
    "House-Parts": (8.4, 7.2, 8.5, 8.6, 8.6),
    "HouseHold-Items": (60.1, 35.0, 60.1, 60.1, 60.1),
    "Nutterfly-Squireel": (71.3, 70.9, 77.1, 84.1, 84.7),
    "Phones": (35.4, 3.4, 35.3, 34.6, 34.3),
    "Poles": (23.3, 17.4, 20.1, 28.8, 25.5),
    "Puppies": (50.1, 63.2, 50.1, 48.9, 48.9),
    "Rail": (8.7, 7.2, 7.7, 14.3, 14.1),
    "Salmon-Fillet": (32.9, 27.1, 42.2, 24.2, 34.1),
    "Strawberry": (83.5, 82.5, 85.6, 83.7, 85.7),
    "Tablets": (29.8, 38.6, 29.7, 29.1, 29.2),
    "Toolkits": (20.8, 26.9, 21.8, 20.1, 21.5),
    "Trash": (30.0, 22.4, 30.0, 28.4, 28.9),
    "Watermelon": (64.2, 61.5, 65.6, 66.0, 66.6),
}
DATASETS = tuple(PUBLISHED)  # the names of the folders, as their authors spell them


class Predicted(NamedTuple):
    """What was found in one image: k pairs of a box and a class. `box` (k,) are rows of `xyxy` (n, 4) and `counts`, the n masks'
    run-length codes of the image's size: several pairs may be of one box."""

    image_id: int
    class_id: Sequence[int]
    score: Sequence[float]
    box: Sequence[int]
    xyxy: Sequence[Sequence[float]]
    counts: Sequence[str]


class Figures(NamedTuple):
    """AP, AP50 and AP75 of boxes and masks in 0..1, and the mask AP of `DRAWS` samples of the images (nan where one holds no
    object)."""

    box: Mapping[str, float]
    mask: Mapping[str, float]
    draws: Sequence[float]


class SegInWRow(NamedTuple):
    """The figures of one way of asking, and how many images each dataset has. `notes` are for people."""

    prompts: str
    figures: Mapping[str, Figures]
    images: Mapping[str, int]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SegInWDataset:
    """The split `valid` of one dataset. `content` is what its json holds; `images` are its entries there, by id."""

    name: str
    folder: Path
    content: Mapping[str, Any]
    class_names: tuple[str, ...]
    images: tuple[Mapping[str, Any], ...]

    @staticmethod
    def read(root: Path, name: str) -> SegInWDataset:
        """Raises DatasetError for a json that the official evaluation would misread, and for images that are not there."""
        folder = root / name / "valid"
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            lacking = [
                f"{part} without {key}"
                for part, keys in KEYS.items()
                for key in keys
                if any(key not in one for one in content[part])
            ]
            if lacking:
                raise ValueError(", ".join(lacking))
            classes = [(one["id"], str(one["name"])) for one in content["categories"]]
            images = sorted(content["images"], key=lambda image: int(image["id"]))
            missing = [image["file_name"] for image in images if not (folder / image["file_name"]).is_file()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{folder / FILE} is not the COCO file of a SegInW dataset: {type(error).__name__}: {error}"
            ) from error
        if [class_id for class_id, _ in classes] != list(range(len(classes))) or not classes:
            raise DatasetError(
                f"{folder / FILE} must number its categories 0, 1, ... in their order, as the official evaluation takes a "
                f"class's place in the caption for its id; got {[number for number, _ in classes]}: use the benchmark's own file"
            )
        if missing or not images:
            lost = f"{len(missing)} image(s) are not there, {missing[0]} for one" if missing else "it lists no image"
            raise DatasetError(f"{folder / FILE}: {lost}; unpack the benchmark anew")
        return SegInWDataset(name, folder, content, tuple(class_name for _, class_name in classes), tuple(images))

    @cached_property
    def digest(self) -> str:
        """Of the json and of every image's bytes, in order: all that figures depend on here."""
        digest = hashlib.sha256((self.folder / FILE).read_bytes())
        for image in self.images:
            digest.update(hashlib.sha256((self.folder / image["file_name"]).read_bytes()).digest())
        return digest.hexdigest()

    def pixels(self, image: Mapping[str, Any]) -> RgbImage:
        """As they are stored, whatever EXIF says of turning them: the objects of the json are of those."""
        from PIL import Image

        path = self.folder / image["file_name"]
        try:
            with Image.open(path) as stored:
                pixels: RgbImage = np.asarray(stored.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read: {error}; unpack the benchmark anew") from error
        if pixels.shape[:2] != (image["height"], image["width"]):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise DatasetError(f"{path} is {size}, but {FILE} says {image['width']}x{image['height']}; unpack the benchmark anew")
        return pixels


def require_tree(root: Path, names: Sequence[str]) -> None:
    """Raise DatasetError, with what is missing, unless `root` holds these datasets."""
    missing = [name for name in names if not (root / name / "valid" / FILE).is_file()]
    if not missing:
        return
    inside = root / "seginw"
    hint = (
        f"give {inside}" if (inside / missing[0]).is_dir() else "name those that are there with --dataset, or unpack the others"
    )
    raise DatasetError(
        f"{root} lacks {len(missing)} of {len(names)} datasets ({', '.join(missing[:3])}{', ...' if missing[3:] else ''}); "
        f"expected <root>/<name>/valid/{FILE}: {hint}"
    )


def best_pairs(scores: Float32, most: int = PAIRS) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the best `most` of all (boxes, classes) scores, best first; a box may be in several pairs."""
    order = np.argsort(-scores, axis=None, kind="stable")[:most]
    rows, classes = np.unravel_index(order, scores.shape)
    return rows, classes


def measure(dataset: SegInWDataset, predicted: Iterable[Predicted]) -> Figures:
    """COCOeval of what was found, on the json as it is.

    An annotation with id 0 can never be found: pycocotools takes its id for "no match". The official evaluation has it so, and
    with it the published figures of every dataset whose json counts from 0.
    """
    rows = _rows(dataset, predicted)
    figures = {}
    for kind in ("box", "mask"):
        truth = coco_of({**dataset.content, "annotations": [dict(one) for one in dataset.content["annotations"]]})
        found = coco_of({**dataset.content, "annotations": [dict(row) for row in rows]})
        measured = match(truth, found, kind)
        figures[kind] = overall(measured)
    return Figures(figures["box"], figures["mask"], [drawn["AP"] for drawn in bootstrap(measured, DRAWS)])


def _rows(dataset: SegInWDataset, predicted: Iterable[Predicted]) -> list[dict[str, Any]]:
    sizes = {image["id"]: [int(image["height"]), int(image["width"])] for image in dataset.images}
    rows: list[dict[str, Any]] = []
    for found in predicted:
        for class_id, score, box in zip(found.class_id, found.score, found.box, strict=True):
            x1, y1, x2, y2 = found.xyxy[box]
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": found.image_id,
                    "category_id": class_id,
                    "score": score,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": {"size": sizes[found.image_id], "counts": found.counts[box]},
                    "area": 1,  # only chooses among size ranges, and there is one
                    "iscrowd": 0,
                }
            )
    return rows
