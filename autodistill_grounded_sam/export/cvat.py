"""CVAT for images 1.1: one `annotations.xml` and `images/{train,valid}`, as CVAT exports and imports a project of two subsets.

One outline is a `polygon`, parts and holes are CVAT's `mask` (from 2.3 on), without masks a `box`. CVAT has no place for a score:
it comes as an attribute. To see the labels in a task that holds the images already, upload the XML to it: names tell them.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.json_files import lines_of
from autodistill_grounded_sam.export.shapes import Crop, ObjectShape, compare_shapes, shapes_of
from autodistill_grounded_sam.export.writing import SPLITS, FolderWriter, ReadBack, Written
from autodistill_grounded_sam.tool_datasets import CVAT_FILE, cvat_images, cvat_shape
from autodistill_grounded_sam.types import ImageRecord, Labels

_SCORE = {"name": "score", "mutable": "False", "input_type": "number", "default_value": "0", "values": "0;1;0.0001"}


class CvatWriter(FolderWriter):
    """Streams: an image element a line goes to a file of its own, and all are put into the XML at the end."""

    about = (About("cvat", "read back in every export; datumaro reads it (`tests/export/test_annotation_tools.py`)"),)
    name: ClassVar[str] = "cvat"
    entries: ClassVar[tuple[str, ...]] = (CVAT_FILE, "images")
    image_folder: ClassVar[str] = "images/{split}"

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        number = self._counts["train"] + self._counts["valid"]
        size = {"width": str(written.width), "height": str(written.height)}
        element = ElementTree.Element("image", {"id": str(number), "name": written.file_name, "subset": written.split, **size})
        for place, shape in enumerate(shapes_of(written)):
            kind, where = _shape(shape)
            common = {"label": self.class_names[written.class_id[place]], "source": "auto", "occluded": "0", "z_order": "0"}
            item = ElementTree.SubElement(element, kind, {**common, **where})
            ElementTree.SubElement(item, "attribute", {"name": "score"}).text = f"{float(labels.score[place]):.4f}"
        with self._images_file.open("a", encoding="utf-8") as file:
            file.write(ElementTree.tostring(element, encoding="unicode") + "\n")

    def _complete(self) -> None:
        meta = ElementTree.Element("meta")
        project = ElementTree.SubElement(meta, "project")
        tasks, labels = ElementTree.SubElement(project, "tasks"), ElementTree.SubElement(project, "labels")
        for split in (split for split in SPLITS if self._counts[split]):
            ElementTree.SubElement(ElementTree.SubElement(tasks, "task"), "subset").text = split
        for name in self.class_names:
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
            attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
            for key, value in _SCORE.items():
                ElementTree.SubElement(attribute, key).text = value
        with (self.partial / CVAT_FILE).open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            file.write(ElementTree.tostring(meta, encoding="unicode") + "\n")
            for line in lines_of(self._images_file):
                file.write(line + "\n")
            file.write("</annotations>\n")

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        images = cvat_images(self.partial)
        for written, compare in self._written():
            image = next(images, None)
            if image is None or image.path is None or (image.name, image.split) != (written.file_name, written.split):
                raise ExportError(f"cvat dataset {self.out}: {written.file_name} was not read back")
            shapes = [cvat_shape(shape, image) for shape in image.shapes]
            compare_shapes(self.name, self.out, written, shapes, self.class_names, found, masks=compare)
        return found

    @property
    def _images_file(self) -> Path:
        return self.partial / "images.xml.part"


def _shape(shape: ObjectShape) -> tuple[str, dict[str, str]]:
    if shape.ring is not None:
        return "polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.ring.tolist())}
    if shape.crop is not None:
        height, width = shape.crop.mask.shape
        where = {"left": shape.crop.left, "top": shape.crop.top, "width": width, "height": height}
        return "mask", {"rle": _runs(shape.crop), **{key: str(value) for key, value in where.items()}}
    corners = zip(("xtl", "ytl", "xbr", "ybr"), shape.xyxy.tolist(), strict=True)
    return "box", {key: f"{value:.2f}" for key, value in corners}


def _runs(crop: Crop) -> str:
    """Lengths of the runs of the crop row by row, the first of background: CVAT's own form."""
    edges = np.flatnonzero(np.diff(crop.mask.reshape(-1), prepend=False))
    return ", ".join(map(str, np.diff(edges, prepend=0, append=crop.mask.size).tolist()))
