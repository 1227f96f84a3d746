"""What the page answers without a browser: words that were spoken, and a class of its own score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")

from autodistill_grounded_sam.app.page import Page
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.playing import material_of
from tests.run_kit import FAKE


def page_that_hears(listen: Any) -> Page:
    material = material_of(detector=FAKE["detector"], segmenter=FAKE["segmenter"], device="cpu", offline=True)
    return Page(Playground(replace(material, listen=listen)), "/secret")


def test_what_is_said_becomes_lines() -> None:
    page = page_that_hears(lambda sound: f"a red circle, and {sound[0] // 1000} green stars")
    parts = page._on
    lines, told = page._hear({parts.said: (16_000, np.zeros(10, np.int16)), parts.a.lines: "ball: orange circle\nred circle\n"})
    assert lines == "ball: orange circle\nred circle\n16 green stars"
    assert "Heard: a red circle, and 16 green stars" in told["value"]
    lines, _ = page._hear({parts.said: None, parts.a.lines: "ball"})  # the recording was taken away
    assert lines == "ball"


def test_a_fault_of_the_model_that_hears_is_told() -> None:
    def deaf(_: Any) -> str:
        raise WeightsError("no such model <b>")

    page = page_that_hears(deaf)
    _, told = page._hear({page._on.said: (16_000, np.zeros(10, np.int16)), page._on.a.lines: ""})
    assert 'role="alert"' in told["value"] and "no such model &lt;b&gt;" in told["value"]


def test_gradio_leaves_no_file_in_the_package() -> None:
    import autodistill_grounded_sam.app as room

    assert not list(Path(room.__file__).parent.glob("*.pyi"))
