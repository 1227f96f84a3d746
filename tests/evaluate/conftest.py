"""A reference as people bring it, written to disk for one test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

WriteTruth = Callable[..., Path]


@pytest.fixture(scope="session")
def write_truth(tmp_path_factory: pytest.TempPathFactory) -> WriteTruth:
    """`write_truth({"a.jpg": [(class_id, (x1, y1, x2, y2)), ...]}, ["cup"])`: the path of a COCO json of 100 x 80 images."""

    def write(
        images: Mapping[str, Sequence[tuple[Any, ...]]], classes: Sequence[str], *, width: int = 100, height: int = 80
    ) -> Path:
        annotations = []
        for number, objects in enumerate(images.values(), 1):
            for class_id, (x1, y1, x2, y2), *more in objects:
                extra = more[0] if more else {}
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "segmentation": []}
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": class_id + 1}
                annotations.append({**row, **box, **extra})
        content = {
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height} for number, name in enumerate(images, 1)
            ],
            "categories": [{"id": place, "name": name} for place, name in enumerate(classes, 1)],
            "annotations": annotations,
        }
        path = tmp_path_factory.mktemp("truth") / "truth.json"
        path.write_text(json.dumps(content))
        return path

    return write
