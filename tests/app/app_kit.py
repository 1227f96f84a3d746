"""A playground over models that are instant, and a labelled folder to open in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.playing import material_of, open_app
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.types import Labels
from tests.run_kit import FAKE

WORDS = {"red circle": "ball", "orange circle": "ball", "blue square": "box"}
CONFIG = LabelConfig(see=SeeConfig(**FAKE), run=RunConfig(device="cpu", offline=True, report=False))
SIZE = PainterSettings(width=96, height=72)


def playground(run: Path | None = None, **settings: Any) -> Playground:
    models = {} if run is not None else FAKE
    return Playground(material_of(run, **{"device": "cpu", "offline": True, **models, **settings}))


def label_folder(home: Path, count: int = 6, ontology: Any = None) -> Path:
    """Painted scenes labelled by models that see anything anywhere; the output folder."""
    paint_folder(home / "images", count, settings=SIZE)
    pipeline.label(home / "images", ontology or WORDS, home / "out", CONFIG)
    return home / "out"


def facts(labels: Labels) -> list[Any]:
    """All that a label is, to be compared."""
    rle = [None if labels.rle is None else one["counts"] for one in labels.rle or ()]
    return [labels.class_id.tolist(), labels.score.tolist(), labels.margin.tolist(), labels.xyxy.tolist(), rle]


@contextmanager
def page_of(run: Path | None = None, **settings: Any) -> Iterator[Any]:
    """The server of the page, in a thread."""
    models = {} if run is not None else FAKE
    with open_app(run, **{"device": "cpu", "offline": True, **models, **settings}) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(30)
