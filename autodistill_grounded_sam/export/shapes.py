"""What the writers of annotation tools share: which shape an object gets, and how it compares with what is read back.

An object of one part without a hole is a polygon, which a person can edit point by point; any other mask is written in the tool's
own form of mask, exactly; an object without a mask is a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.polygons import Ring, outlines_of
from autodistill_grounded_sam.export.writing import ReadBack, Written, boxes_inside
from autodistill_grounded_sam.mask_runs import paint_crops, read_runs
from autodistill_grounded_sam.masks import areas, mask_iou
from autodistill_grounded_sam.tool_images import ToolShape
from autodistill_grounded_sam.types import Mask


@dataclass(frozen=True)
class Crop:
    """A mask in its tight box: `mask` (height, width) with its corner at `left`, `top` of the image."""

    left: int
    top: int
    mask: Mask


@dataclass(frozen=True)
class ObjectShape:
    """One object as a tool has it: a `ring` (n, 2) in pixels, else a `crop`, else its box `xyxy` (4,) inside the image alone."""

    xyxy: npt.NDArray[np.float64]
    ring: Ring | None = None
    crop: Crop | None = None


def shapes_of(written: Written) -> list[ObjectShape]:
    """The shape of every label of an image."""
    boxes = boxes_inside(written)
    if written.rle is None:
        return [ObjectShape(box) for box in boxes]
    runs = read_runs(written.rle)
    corners = runs.boxes_xyxy()[:, :2].astype(np.int64).tolist()
    shapes = []
    for box, ring, (left, top), crop in zip(
        boxes, outlines_of(written.rle), corners, paint_crops(runs, np.uint8(1)), strict=True
    ):
        if not crop.size:
            shapes.append(ObjectShape(box))
        elif len(ring) > 3:
            shapes.append(ObjectShape(box, ring=ring))
        else:
            shapes.append(ObjectShape(box, crop=Crop(left, top, crop.T.view(np.bool_))))
    return shapes


def compare_shapes(
    name: str, out: Path, written: Written, shapes: list[ToolShape], class_names: tuple[str, ...], found: ReadBack, *, masks: bool
) -> None:
    """Count what was read back of one image and compare it with its source; raises ExportError where an object is another."""
    place_of = {class_name: place for place, class_name in enumerate(class_names)}
    classes = [place_of.get(shape.class_name, -1) for shape in shapes]
    if classes != written.class_id:
        raise ExportError(
            f"{name} dataset {out}: {written.file_name} has labels of classes {written.class_id}, but {classes} were read back"
        )
    found.per_class.update(classes)
    has_mask = np.zeros(len(shapes), np.bool_) if written.rle is None else areas(written.rle) > 0
    for place, (shape, box) in enumerate(zip(shapes, boxes_inside(written), strict=True)):
        if not has_mask[place]:
            if shape.rle is not None or np.abs(shape.xyxy - box).max() > 0.01:
                raise ExportError(f"{name} dataset {out}: a box of {written.file_name} came back in another place")
        elif shape.rle is None or written.rle is None:
            raise ExportError(f"{name} dataset {out}: a mask of {written.file_name} came back as a box")
        elif masks:
            found.ious.append(mask_iou(written.rle[place], shape.rle))
