"""Pictures for people: a sheet of a labelled dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.drawing import contact_sheet, dataset_sheet
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset

WORDS = {"red circle": "ball", "orange circle": "ball", "blue square": "box"}
SETTINGS = PainterSettings(128, 96, objects=(2, 3), pairs=(("red", "circle"), ("orange", "circle"), ("blue", "square")))


def test_a_sheet_shows_the_first_images_with_their_labels(tmp_path: Path) -> None:
    truth = paint_dataset(tmp_path, 5, SETTINGS, 3, WORDS)
    sheet = dataset_sheet(truth, 4, columns=2, cell_width_px=100, images=tmp_path / "images")
    assert sheet.shape == (2 * 75 + 3 * 8, 2 * 100 + 3 * 8, 3)
    bare = [read_image(path) for path in sorted((tmp_path / "images").iterdir())[:4]]
    plain = contact_sheet(bare, columns=2, cell_width_px=100)
    assert (sheet != plain).any(axis=-1).mean() > 0.05
    (tmp_path / "images/scene_3.png").unlink()
    later = dataset_sheet(truth, 4, columns=2, cell_width_px=100, images=tmp_path / "images")
    assert (later[8:83, 8:108] == sheet[8:83, 116:216]).all(), "an image that is gone is passed over, the next takes its place"


def test_painted_names_become_the_classes_of_a_mapping(tmp_path: Path) -> None:
    content = json.loads(paint_dataset(tmp_path, 4, SETTINGS, 3, WORDS).read_text())
    assert content["categories"] == [{"id": 1, "name": "ball"}, {"id": 2, "name": "box"}]
    plain = json.loads(paint_dataset(tmp_path, 4, SETTINGS, 3, list(WORDS)).read_text())
    assert [row["category_id"] for row in content["annotations"]] == [
        int(np.ceil(row["category_id"] / 2)) for row in plain["annotations"]
    ]
