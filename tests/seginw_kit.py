"""A miniature of SegInW, painted: the layout, the ids from 0 and the polygons of the real one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from autodistill_grounded_sam.painting import COLOURS, PainterSettings, paint_scene
from autodistill_grounded_sam.types import Candidates, RgbImage

# What `mini` knows, in the spelling that category names have: capitals, joined words.
NAMES = {
    "Fruits": ("Red circle", "orange circle", "green star"),
    "Hand": ("blue square",),
    "Poles": ("yellow heart", "purple moon", "Red-circle", "green star"),
}
# Neither mini's detector (160 px at the shorter side) nor its segmenter (320 at the longer one) resizes such a picture.
SIZE = {"width": 320, "height": 160}


def paint_tree(root: Path, names: Sequence[str] = tuple(NAMES), images: int = 4) -> Path:
    for place, name in enumerate(names):
        classes = NAMES.get(name, NAMES["Fruits"])
        folder = root / name / "valid"
        folder.mkdir(parents=True)
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": class_id, "name": said} for class_id, said in enumerate(classes)],
        }
        pairs = tuple(tuple(said.lower().replace("-", " ").split()) for said in dict.fromkeys(classes))
        settings = PainterSettings(**SIZE, objects=(2, 5), pairs=pairs)  # type: ignore[arg-type]
        for number in range(images):
            scene = paint_scene(settings, 1000 * place + number)
            file_name = f"scene_{number}.png"
            Image.fromarray(scene.image_rgb).save(folder / file_name)
            content["images"].append({"id": number, "file_name": file_name, **SIZE})
            for item in scene.objects:
                fitting = [class_id for class_id, said in enumerate(classes) if said.lower().replace("-", " ") == item.name]
                content["annotations"].append(_annotation(len(content["annotations"]), number, fitting[0], item.mask))
        (folder / "_annotations_min1cat.coco.json").write_text(json.dumps(content))
    return root


def _annotation(number: int, image_id: int, class_id: int, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rings, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": number, "image_id": image_id, "category_id": class_id, "iscrowd": 0, "area": int(mask.sum()),
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
        "segmentation": [ring.reshape(-1).tolist() for ring in rings if len(ring) > 2],
    }  # fmt: skip


class Spots:
    """A detector without weights that is right now and then: spots of the colour that a prompt names, by how near it is."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image.astype(np.float32), prompts) for image in images]

    def _detect_one(self, pixels: npt.NDArray[np.float32], prompts: Sequence[str]) -> Candidates:
        boxes, scores = [], []
        for name, colour in COLOURS.items():
            spots, _ = ndimage.label(np.linalg.norm(pixels - np.array(colour), axis=-1) < 70)
            for number, (rows, columns) in enumerate(ndimage.find_objects(spots), 1):
                inside = spots[rows, columns] == number
                if inside.sum() > 60:
                    boxes.append([columns.start, rows.start, columns.stop, rows.stop])
                    scores.append([inside.mean() * (1 if name in said.lower() else 0.1) for said in prompts])
        return Candidates(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, len(prompts)))
