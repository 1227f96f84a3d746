"""Label Studio: `tasks.json` with a prediction and its scores for every image, `label_config.xml`, and `images/{train,valid}`.

Tasks name their images as local storage serves them (`/data/local-files/?d=...`): start Label Studio with
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at the dataset folder, take
`label_config.xml` as the labelling setup, and import `tasks.json`.

One outline is a polygon, parts and holes are a brush mask, without masks a rectangle; coordinates are in percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

import autodistill_grounded_sam
from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.errors import ExportError
from autodistill_grounded_sam.export.json_files import append_rows, join_list, stream_rows
from autodistill_grounded_sam.export.shapes import Crop, ObjectShape, compare_shapes, shapes_of
from autodistill_grounded_sam.export.writing import FolderWriter, ReadBack, Written
from autodistill_grounded_sam.masks import encode_mask, from_coco
from autodistill_grounded_sam.tool_images import ToolShape
from autodistill_grounded_sam.types import ImageRecord, Labels, Mask

TASKS_FILE, CONFIG_FILE = "tasks.json", "label_config.xml"
_TAGS = {"polygonlabels": "PolygonLabels", "brushlabels": "BrushLabels", "rectanglelabels": "RectangleLabels"}
# Label Studio's run lengths: a picture of r g b a bytes, in bits: a head, then blocks. A block is a flag (1: one value repeated),
# which of four sizes its length has, the length less one, and the value.
_SIZES, _VALUE_BITS = (3, 4, 8, 16), 8


class LabelStudioWriter(FolderWriter):
    """A task a line, so that it streams. The prediction's score is the lowest of its labels: Label Studio sorts tasks by it."""

    about = (
        About(
            "label-studio",
            "read back in every export; label-studio-sdk accepts it (`tests/export/test_annotation_tools.py`)",
        ),
    )
    name: ClassVar[str] = "label-studio"
    entries: ClassVar[tuple[str, ...]] = (TASKS_FILE, CONFIG_FILE, "images")
    image_folder: ClassVar[str] = "images/{split}"

    def _write_labels(self, image: ImageRecord, labels: Labels, written: Written) -> None:
        size = {"original_width": written.width, "original_height": written.height, "image_rotation": 0}
        results: list[dict[str, Any]] = []
        for place, shape in enumerate(shapes_of(written)):
            kind, value = _value(shape, written)
            value[kind] = [self.class_names[written.class_id[place]]]
            score = round(float(labels.score[place]), 6)
            names = {"id": f"label{place}", "type": kind, "from_name": kind, "to_name": "image"}
            results.append({**names, **size, "value": value, "score": score})
        version = f"autodistill-grounded-sam {autodistill_grounded_sam.__version__}"
        prediction = {"model_version": version, "score": min((one["score"] for one in results), default=1.0), "result": results}
        address = quote(f"images/{written.split}/{written.file_name}")
        data = {"image": f"/data/local-files/?d={address}", "split": written.split, "source": image.id}
        append_rows(self._tasks, [{"data": data, "predictions": [prediction]}])

    def _complete(self) -> None:
        join_list(self.partial / TASKS_FILE, self._tasks)
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
        for name, tag in _TAGS.items():
            labels = ElementTree.SubElement(view, tag, {"name": name, "toName": "image"})
            for class_name in self.class_names:
                ElementTree.SubElement(labels, "Label", {"value": class_name})
        ElementTree.indent(view)
        ElementTree.ElementTree(view).write(self.partial / CONFIG_FILE, encoding="utf-8")

    def _read_back(self) -> ReadBack:
        found = ReadBack()
        tasks = stream_rows(self.partial / TASKS_FILE)
        for written, compare in self._written():
            task = next(tasks, None)
            if task is None or not task["data"]["image"].endswith(quote(f"images/{written.split}/{written.file_name}")):
                raise ExportError(f"label-studio dataset {self.out}: the task of {written.file_name} was not read back")
            shapes = [_shape(result, written) for result in task["predictions"][0]["result"]]
            compare_shapes(self.name, self.out, written, shapes, self.class_names, found, masks=compare)
        return found

    @property
    def _tasks(self) -> Path:
        return self.partial / "tasks.jsonl"


def encode_brush(crop: Crop, width: int, height: int) -> list[int]:
    """The bytes of a mask of an image of that size, as Label Studio's brush has it."""
    mask = np.zeros((height, width), np.bool_)
    mask[crop.top : crop.top + crop.mask.shape[0], crop.left : crop.left + crop.mask.shape[1]] = crop.mask
    flat = mask.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1]).tolist()
    bits = [f"{4 * flat.size:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, stop in zip(starts, [*starts[1:], flat.size], strict=True):
        bits += _blocks(4 * (stop - start), 255 if flat[start] else 0)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(byte) for byte in np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))]


def decode_brush(rle: list[int], width: int, height: int) -> Mask:
    """The mask (height, width) of such bytes: where the last of each pixel's four values is not 0."""
    text = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(text[at - count : at], 2)

    total, value_bits = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated, count = take(1), take(sizes[take(2)]) + 1
        values[done : done + count] = take(value_bits) if repeated else [take(value_bits) for _ in range(count)]
        done += count
    if total != 4 * width * height:
        raise ValueError(f"a brush mask holds {total} values, not 4 of each of {width}x{height} pixels")
    return values.reshape(height, width, 4)[..., 3] > 0


def _blocks(length: int, value: int) -> Iterator[str]:
    while length > 0:
        part = min(length, 1 << _SIZES[-1])
        which = next(place for place, size in enumerate(_SIZES) if part <= 1 << size)
        yield f"1{which:02b}{part - 1:0{_SIZES[which]}b}{value:0{_VALUE_BITS}b}"
        length -= part


def _value(shape: ObjectShape, written: Written) -> tuple[str, dict[str, Any]]:
    percent = 100 / np.array([written.width, written.height])
    if shape.ring is not None:
        return "polygonlabels", {"points": (shape.ring * percent).round(5).tolist(), "closed": True}
    if shape.crop is not None:
        return "brushlabels", {"format": "rle", "rle": encode_brush(shape.crop, written.width, written.height)}
    corners = shape.xyxy.reshape(2, 2) * percent
    (x, y), (width, height) = corners[0].round(5).tolist(), (corners[1] - corners[0]).round(5).tolist()
    return "rectanglelabels", {"x": x, "y": y, "width": width, "height": height, "rotation": 0}


def _shape(result: Mapping[str, Any], written: Written) -> ToolShape:
    kind, value = result["type"], result["value"]
    pixel: npt.NDArray[np.float64] = np.array([written.width, written.height]) / 100
    (name,) = value[kind]
    if kind == "polygonlabels":
        ring = np.array(value["points"]) * pixel
        return ToolShape.of_mask(name, from_coco([ring.reshape(-1).tolist()], written.width, written.height))
    if kind == "brushlabels":
        return ToolShape.of_mask(name, encode_mask(decode_brush(value["rle"], written.width, written.height)))
    low, size = np.array([value["x"], value["y"]]) * pixel, np.array([value["width"], value["height"]]) * pixel
    return ToolShape(name, np.concatenate([low, low + size]))
