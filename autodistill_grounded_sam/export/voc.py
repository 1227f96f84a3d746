"""PASCAL VOC as in its devkit: `Annotations JPEGImages ImageSets/{Main,Segmentation} SegmentationClass SegmentationObject`.

Corners are whole pixels that count from 1, the last one inside, as the devkit, detectron2 and supervision have it; tools that
take them as they stand see boxes one pixel short at left and top. Number k in `SegmentationObject` is the k-th object of the XML.
`labelmap.txt` lists the classes as CVAT and Datumaro write it. `score` is ours.
"""

from __future__ import annotations

from itertools import cycle
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.painted import covered_objects, ious_with, load_indexed, paint_objects, save_indexed
from autodistill_grounded_sam.export.writing import FolderWriter, ReadBack, Written, boxes_inside, masks_inside
from autodistill_grounded_sam.types import ImageRecord, Labels, Split
from autodistill_grounded_sam.voc_datasets import VOC_LABELS, VOC_OBJECTS, VOC_PICTURES, voc_image, voc_palette, voc_shape

MOST_OBJECTS = 254  # with a mask: the pictures are of 8 bits, and 255 is "void"
_LISTS: dict[Split, str] = {"train": "train", "valid": "val"}


class VocWriter(FolderWriter):
    """An XML file an image; two pictures of its masks where the run has some."""

    about = (
        About(
            "voc",
            "read back in every export; supervision, torchvision and datumaro read it (`tests/export/test_painted.py`)",
        ),
    )
    name: ClassVar[str] = "voc"
    entries: ClassVar[tuple[str, ...]] = (
        "Annotations", VOC_PICTURES, "ImageSets", "SegmentationClass", VOC_OBJECTS, VOC_LABELS,
    )  # fmt: skip
    image_folder: ClassVar[str] = VOC_PICTURES
    other_folders: ClassVar[tuple[str, ...]] = (
        "Annotations", "ImageSets/Main", "ImageSets/Segmentation", "SegmentationClass", VOC_OBJECTS,
    )  # fmt: skip

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        stem = written.file_name.rpartition(".")[0]
        painted = written.rle is not None and len(labels) <= MOST_OBJECTS and max(written.class_id, default=0) < MOST_OBJECTS
        if painted:
            self._paint(written, stem)
        elif written.rle is not None:
            self._counts[f"image(s) with over {MOST_OBJECTS} objects or classes have boxes only: VOC's masks hold no more"] += 1
        tree = _annotation(written, self.class_names, [float(score) for score in labels.score], segmented=painted)
        tree.write(self.partial / "Annotations" / f"{stem}.xml", encoding="utf-8")
        for kind in ("Main", "Segmentation")[: 1 + painted]:
            with (self.partial / "ImageSets" / kind / f"{_LISTS[written.split]}.txt").open("a", encoding="utf-8") as file:
                file.write(f"{stem}\n")

    def _paint(self, written: Written, stem: str) -> None:
        objects = paint_objects(masks_inside(written), written.width, written.height)
        covered = int(covered_objects(objects, len(written.class_id)).sum())
        if covered:
            self._counts["object(s) lie wholly under smaller ones: they keep their box, not their mask"] += covered
        classes = np.array([0, *(class_id + 1 for class_id in written.class_id)], np.int32)
        save_indexed(classes[objects], self.partial / "SegmentationClass" / f"{stem}.png")
        save_indexed(objects, self.partial / VOC_OBJECTS / f"{stem}.png")

    def _complete(self) -> None:
        colours = cycle(voc_palette())
        names = ["background", *self.class_names]
        lines = ["# label:color_rgb:parts:actions"]
        lines += [f"{name}:{next(colours)},{next(colours)},{next(colours)}::" for name in names]
        (self.partial / VOC_LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _images_there(self, split: Split) -> int:
        listed = self.partial / "ImageSets" / "Main" / f"{_LISTS[split]}.txt"
        stems = set(listed.read_text(encoding="utf-8").split("\n")) if listed.exists() else set()
        return sum(path.stem in stems for path in (self.partial / VOC_PICTURES).iterdir())

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        place_of = {name: place for place, name in enumerate(self.class_names)}
        for written, compare in self._written():
            stem = written.file_name.rpartition(".")[0]
            image = voc_image(self.partial / "Annotations" / f"{stem}.xml")
            shapes = [voc_shape(shape, image) for shape in image.shapes]
            classes = [place_of.get(shape.class_name, -1) for shape in shapes]
            boxes = np.array([shape.xyxy for shape in shapes]).reshape(-1, 4)
            if classes != written.class_id or np.abs(boxes - _whole(written)).max(initial=0) > 0:
                raise ExportError(f"voc dataset {self.out}: objects of {written.file_name} were not read back as they were")
            found.per_class.update(classes)
            picture = self.partial / VOC_OBJECTS / f"{stem}.png"
            if compare and picture.exists():
                found.ious += ious_with(load_indexed(picture), masks_inside(written))
        return found


def _whole(written: Written) -> npt.NDArray[np.float64]:
    """The boxes (n, 4) at whole pixels, at least one wide and high."""
    boxes = np.round(boxes_inside(written))
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 1)
    return boxes


def _annotation(
    written: Written, class_names: tuple[str, ...], scores: list[float], *, segmented: bool
) -> ElementTree.ElementTree:
    root = ElementTree.Element("annotation")
    _add(root, folder=VOC_PICTURES, filename=written.file_name)
    _add(ElementTree.SubElement(root, "size"), width=written.width, height=written.height, depth=3)
    _add(root, segmented=int(segmented))
    for class_id, (x1, y1, x2, y2), score in zip(written.class_id, _whole(written).astype(int).tolist(), scores, strict=True):
        item = ElementTree.SubElement(root, "object")
        at_edge = x1 <= 0 or y1 <= 0 or x2 >= written.width or y2 >= written.height
        _add(item, name=class_names[class_id], pose="Unspecified", truncated=int(at_edge), difficult=0, score=round(score, 6))
        _add(ElementTree.SubElement(item, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent: ElementTree.Element, **values: object) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)
