"""LabelMe: a JSON file beside each image of `train` and `valid`, and the classes in `labels.txt` (`labelme --labels labels.txt`).

One outline is a `polygon`; parts and holes are LabelMe's `mask` (from 5.2 on); without masks a `rectangle`. `score` is ours, and
LabelMe keeps it when it saves. The flag `confirmed` is of images that a person said to hold just this.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.export.shapes import Crop, compare_shapes, shapes_of
from autodistill_grounded_sam.export.writing import FolderWriter, ReadBack, Written
from autodistill_grounded_sam.tool_datasets import LABELME_LABELS, labelme_image, labelme_shape
from autodistill_grounded_sam.types import ImageRecord, Labels

LABELME_VERSION = "5.2.0"  # the first that knows masks; newer ones read it


class LabelmeWriter(FolderWriter):
    """One JSON file an image, without the image's bytes in it."""

    about = (About("labelme", "read back in every export; labelme reads it (`tests/export/test_annotation_tools.py`)"),)
    name: ClassVar[str] = "labelme"
    entries: ClassVar[tuple[str, ...]] = (LABELME_LABELS, "train", "valid")
    image_folder: ClassVar[str] = "{split}"

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        shapes = []
        for place, shape in enumerate(shapes_of(written)):
            own: dict[str, Any] = {"label": self.class_names[written.class_id[place]], "group_id": None, "description": ""}
            if shape.ring is not None:
                own |= {"shape_type": "polygon", "points": shape.ring.round(3).tolist(), "mask": None}
            elif shape.crop is not None:
                left, top = shape.crop.left, shape.crop.top
                height, width = shape.crop.mask.shape
                corners = [[left, top], [left + width - 1, top + height - 1]]  # the last pixel, not the edge behind it
                own |= {"shape_type": "mask", "points": corners, "mask": _png(shape.crop)}
            else:
                own |= {"shape_type": "rectangle", "points": shape.xyxy.round(3).reshape(2, 2).tolist(), "mask": None}
            shapes.append({**own, "flags": {}, "score": round(float(labels.score[place]), 6)})
        content: dict[str, Any] = {
            "version": LABELME_VERSION, "flags": {"confirmed": True} if labels.confirmed else {}, "shapes": shapes,
            "imagePath": written.file_name, "imageData": None, "imageHeight": written.height, "imageWidth": written.width,
        }  # fmt: skip
        self._json(written).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _complete(self) -> None:
        text = "".join(f"{name}\n" for name in self.class_names)
        (self.partial / LABELME_LABELS).write_text(text, encoding="utf-8")

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        for written, compare in self._written():
            image = labelme_image(self._json(written))
            shapes = [labelme_shape(shape, image) for shape in image.shapes]
            compare_shapes(self.name, self.out, written, shapes, self.class_names, found, masks=compare)
        return found

    def _json(self, written: Written) -> Path:
        return self.partial / written.split / f"{written.file_name.rpartition('.')[0]}.json"


def _png(crop: Crop) -> str:
    out = io.BytesIO()
    Image.fromarray(crop.mask).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")
