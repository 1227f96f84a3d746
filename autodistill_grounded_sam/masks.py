"""Run-length masks: encode, decode, measure. The one file that calls pycocotools' mask code.

Between rooms a mask is an `Rle`; dense masks live inside one function only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.mask_runs import read_runs
from autodistill_grounded_sam.types import Float32, Mask, Rle


def encode_mask(mask: npt.NDArray[Any]) -> Rle:
    """The run-length code of a (height, width) mask, bool or 0/1."""
    from pycocotools import mask as coco

    code = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(size=[int(code["size"][0]), int(code["size"][1])], counts=code["counts"].decode("ascii"))


def decode_mask(rle: Rle) -> Mask:
    """The bool mask (height, width) of a run-length code."""
    from pycocotools import mask as coco

    return np.asarray(coco.decode(_for_coco(rle))).view(np.bool_)


def areas(rles: Sequence[Rle]) -> npt.NDArray[np.int64]:
    """Pixels covered by each mask, (n,)."""
    return read_runs(rles).areas()  # not by pycocotools 2.0.11: with numpy 2 its `area` fails from 256 masks on


def boxes_xyxy(rles: Sequence[Rle]) -> Float32:
    """The tight box of each mask, (n, 4) float32 `xyxy`; zeros where a mask is empty."""
    from pycocotools import mask as coco

    if not rles:
        return np.zeros((0, 4), np.float32)
    xywh = np.asarray(coco.toBbox([_for_coco(r) for r in rles]), np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def iou_and_containment(first: Sequence[Rle], second: Sequence[Rle]) -> tuple[Float32, Float32]:
    """IoU (n, m), and intersection over the smaller mask's area (n, m). Two empty masks have IoU 0."""
    from pycocotools import mask as coco

    if not first or not second:
        return np.zeros((len(first), len(second)), np.float32), np.zeros((len(first), len(second)), np.float32)
    a, b = [_for_coco(r) for r in first], [_for_coco(r) for r in second]
    iou = np.nan_to_num(np.asarray(coco.iou(a, b, [0] * len(b)), np.float64))
    area_a, area_b = areas(first)[:, None].astype(np.float64), areas(second)[None, :].astype(np.float64)
    shared = iou * (area_a + area_b) / (1 + iou)
    smaller = np.maximum(np.minimum(area_a, area_b), 1)
    return iou.astype(np.float32), (shared / smaller).astype(np.float32)


def mask_iou(first: Rle, second: Rle) -> float:
    """IoU of two masks of one size."""
    return float(iou_and_containment([first], [second])[0][0, 0])


def from_coco(segmentation: Any, width: int, height: int) -> Rle:
    """The run-length code of a COCO `segmentation`: a list of polygons, run lengths as a list, or a compressed string.

    Raises ValueError for run lengths that are damaged or of another image: decoded all the same, they would show whatever was in
    memory.
    """
    from pycocotools import mask as coco

    if not isinstance(segmentation, list) and list(segmentation["size"]) != [height, width]:
        raise ValueError(f"a mask is {segmentation['size']} (height, width), its image {[height, width]}")
    if isinstance(segmentation, list):
        code = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != height * width:
            raise ValueError(f"the run lengths of a mask add up to {sum(segmentation['counts'])}, not {height} x {width}")
        code = coco.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    counts = code["counts"]
    rle = Rle(size=[height, width], counts=counts.decode("ascii") if isinstance(counts, bytes) else counts)
    if code is segmentation:
        read_runs([rle])  # which tells of a damaged code
    return rle


def _for_coco(rle: Rle) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
