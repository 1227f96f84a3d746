"""What the page answers without a browser: words that were spoken, and a class of its own score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

pytest.importorskip("gradio", reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")

from autodistill_grounded_sam.app.page import Page
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.importing import import_dataset
from autodistill_grounded_sam.playing import material_of
from tests.app.app_kit import playground
from tests.run_kit import FAKE


def page_that_hears(listen: Any) -> Page:
    material = material_of(detector=FAKE["detector"], segmenter=FAKE["segmenter"], device="cpu", offline=True)
    return Page(Playground(replace(material, listen=listen)), "/secret")


def recorded(folder: Path) -> tuple[str, str]:
    wavfile.write(folder / "said.wav", 16_000, np.zeros(10, np.int16))
    return str(folder / "said.wav"), "said.wav"


def test_what_is_said_becomes_lines(tmp_path: Path) -> None:
    page = page_that_hears(lambda sound: f"a red circle, and {sound[0] // 1000} green stars")
    parts = page._on
    lines, told = page._hear({parts.said: recorded(tmp_path), parts.a.lines: "ball: orange circle\nred circle\n"})
    assert lines == "ball: orange circle\nred circle\n16 green stars"
    assert "Heard: a red circle, and 16 green stars" in told["value"]
    _, told = page._hear({parts.said: None, parts.a.lines: "ball"})  # the recording was taken away
    assert told["visible"] is False
    (tmp_path / "said.wav").write_bytes(b"no sound")
    _, told = page._hear({parts.said: (str(tmp_path / "said.wav"), "<b>.wav"), parts.a.lines: "ball"})
    assert "&lt;b&gt;.wav cannot be read as sound" in told["value"]


def test_a_fault_of_the_model_that_hears_is_told(tmp_path: Path) -> None:
    def deaf(_: Any) -> str:
        raise WeightsError("no such model <b>")

    page = page_that_hears(deaf)
    _, told = page._hear({page._on.said: recorded(tmp_path), page._on.a.lines: ""})
    assert 'role="alert"' in told["value"] and "no such model &lt;b&gt;" in told["value"]


def test_labels_of_people_that_lie_in_each_other_stay(tmp_path: Path) -> None:
    """`import` merges none of them: its limits are beyond the end of the sliders."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (100, 100)).save(images / "a.png")
    outlines = [[10, 10, 90, 10, 90, 90, 10, 90], [30, 30, 50, 30, 50, 50, 30, 50]]
    content = {
        "images": [{"id": 0, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": 0, "category_id": 1, "bbox": [*one[:2], *(one[4] - one[0],) * 2], "segmentation": [one]}
            for n, one in enumerate(outlines)
        ],
    }
    (images / "_annotations.coco.json").write_text(json.dumps(content))
    import_dataset(images / "_annotations.coco.json", tmp_path / "out")
    place = playground(tmp_path / "out")
    page = Page(place, "/secret")
    on = page._on
    look = place.look_at_run(0, place.material.see, place.material.ontology)
    values = {one: one.value for one in (on.scores, on.iou, on.containment)}
    assert len(place.labels(look, page._settings(values))) == 2
    assert len(place.labels(look, page._settings({**values, on.containment: 0.9}))) == 1  # the slider still slides


def test_the_other_side_begins_as_this_one() -> None:
    page = page_that_hears(None)
    on = page._on
    mine = {on.a.lines: "ball", on.a.negatives: "moon", on.a.detector: "mini+mini", on.a.segmenter: "mini"}
    theirs = {on.b.lines: "", on.b.negatives: "", on.b.detector: "mini", on.b.segmenter: "mini"}
    assert page._open_other({on.compare: True, **mine, **theirs})[3:] == list(mine.values())
    theirs = {on.b.lines: "box", on.b.negatives: "", on.b.detector: "mini", on.b.segmenter: "mini"}
    assert page._open_other({on.compare: True, **mine, **theirs})[3:] == list(theirs.values())


def test_the_command_of_what_is_saved_names_the_other_settings_of_the_run(tmp_path: Path) -> None:
    material = material_of(detector=FAKE["detector"], segmenter=FAKE["segmenter"], device="cpu", offline=True)
    see = material.see.model_copy(update={"tiles": "auto", "views": ("flip", "scale"), "floor": 0.05})
    decide = DecideConfig(box_threshold=0.5, duplicate_iou=0.5, min_margin=0.2)
    page = Page(Playground(replace(material, see=see, decide=decide)), "/secret")
    on = page._on
    mine = (on.a.lines, on.a.negatives, on.a.detector, on.a.segmenter, on.scores, on.iou, on.containment)
    told = page._write({**{one: one.value for one in mine}, on.path: str(tmp_path / "mine.yaml")})
    assert "--tiles auto --views flip,scale --duplicate-iou 0.5" in told and "threshold" not in told
    assert "The run also has floor 0.05, min_margin 0.2, for which `label` has no flag." in told


def test_gradio_leaves_no_file_in_the_package() -> None:
    import autodistill_grounded_sam.app as room

    assert not list(Path(room.__file__).parent.glob("*.pyi"))
