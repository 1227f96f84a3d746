"""Average precision after COCO, as pycocotools' COCOeval measures it, of boxes or of masks.

The protocol is COCO's (cocodataset.org, "detection evaluation"): IoU thresholds 0.50:0.05:0.95, precision at 101 recall points,
the mean over the classes that have an object, the 100 best labels an image and class, objects of every size. A label that matches
no object and lies in a crowd region of its class is neither right nor wrong.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.evaluate.matching import Objects, Pair

Kind = Literal["box", "mask"]

MAX_LABELS = 100  # an image and class, as COCO counts
_IOU_TYPE: Mapping[Kind, str] = {"box": "bbox", "mask": "segm"}
_AT_50, _AT_75 = 0, 5  # places of IoU 0.50 and 0.75 among COCO's ten thresholds


class AveragePrecision(NamedTuple):
    """`overall` holds AP, AP50 and AP75; `per_class` a mapping with the same keys for each class, nan where it has no object."""

    overall: Mapping[str, float]
    per_class: tuple[Mapping[str, float], ...]


def average_precision(pairs: Sequence[Pair], classes: int, kind: Kind) -> AveragePrecision:
    """AP over the first `classes` classes; labels of any other are left out. `mask` needs masks of all objects and labels.

    AP is 0 without any label, and nan without any object. Nothing is written to stdout.
    """
    precision = _precision(_matched(pairs, classes, kind))
    return AveragePrecision(_summary(precision), tuple(_summary(precision[:, :, [place]]) for place in range(classes)))


def average_precision_draws(pairs: Sequence[Pair], classes: int, kind: Kind, draws: int, seed: int = 0) -> list[dict[str, float]]:
    """The overall figures of `draws` bootstrap samples of the images (Efron 1979), as many images each as there are pairs."""
    return bootstrap(_matched(pairs, classes, kind), draws, seed)


def overall(measured: Any) -> dict[str, float]:
    """AP, AP50 and AP75 of an evaluation that `match` made."""
    return _summary(_precision(measured))


def bootstrap(measured: Any, draws: int, seed: int = 0) -> list[dict[str, float]]:
    """The same of `draws` samples of its images; afterwards the evaluation is that of the last sample."""
    images, rng = len(measured.params.imgIds), np.random.default_rng(seed)
    by_class = [measured.evalImgs[start : start + images] for start in range(0, len(measured.evalImgs), images)]
    found = []
    for _ in range(draws):
        drawn = rng.integers(images, size=images)
        measured.evalImgs = [of_class[place] for of_class in by_class for place in drawn]
        found.append(overall(measured))
    return found


def match(truth: Any, labels: Any, kind: Kind) -> Any:
    """pycocotools' COCOeval of two COCO objects, with the labels of every image matched to its objects, class by class."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        measured = COCOeval(truth, labels, _IOU_TYPE[kind])
        measured.params.maxDets = [MAX_LABELS]
        measured.params.areaRng, measured.params.areaRngLbl = [[0, 1e10]], ["all"]
        measured.evaluate()
    return measured


def coco_of(content: Mapping[str, Any]) -> Any:
    """pycocotools' COCO of what a COCO file holds, without a word on stdout."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dict(content)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _matched(pairs: Sequence[Pair], classes: int, kind: Kind) -> Any:
    truth = _coco([pair.truth for pair in pairs], pairs, classes, kind)
    return match(truth, _coco([pair.labels for pair in pairs], pairs, classes, kind), kind)


def _precision(measured: Any) -> npt.NDArray[np.float64]:
    """(10 IoUs, 101 recalls, classes); -1 where a class has no object."""
    with contextlib.redirect_stdout(io.StringIO()):
        measured.accumulate()
    return np.asarray(measured.eval["precision"])[:, :, :, 0, 0]


def _summary(precision: npt.NDArray[np.float64]) -> dict[str, float]:
    return {"AP": _mean(precision), "AP50": _mean(precision[_AT_50]), "AP75": _mean(precision[_AT_75])}


def _mean(precision: npt.NDArray[np.float64]) -> float:
    found = precision[precision > -1]
    return float(found.mean()) if found.size else float("nan")


def _coco(objects: Sequence[Objects], pairs: Sequence[Pair], classes: int, kind: Kind) -> Any:
    return coco_of(
        {
            "images": [{"id": number, "width": pair.width, "height": pair.height} for number, pair in enumerate(pairs)],
            "categories": [{"id": class_id} for class_id in range(classes)],
            "annotations": _annotations(objects, classes, kind),
        }
    )


def _annotations(objects: Sequence[Objects], classes: int, kind: Kind) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, found in enumerate(objects):
        for place in range(len(found)):
            if found.class_id[place] >= classes:
                continue
            x1, y1, x2, y2 = found.xyxy[place].astype(np.float64).tolist()
            row = {
                "id": len(rows) + 1,  # from 1: COCOeval takes a match with id 0 for none
                "image_id": number,
                "category_id": int(found.class_id[place]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": 1,  # only chooses among size ranges, and there is one
                "iscrowd": int(found.crowd[place]),
                "score": float(found.score[place]),
            }
            if kind == "mask" and found.rle is not None:
                row["segmentation"] = found.rle[place]
            rows.append(row)
    return rows
