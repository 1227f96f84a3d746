"""A labelled folder with its page open, and a person's browser over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.painting import PainterSettings
from autodistill_grounded_sam.review.server import ReviewServer
from autodistill_grounded_sam.reviewing import open_review
from autodistill_grounded_sam.testing import paint_folder

ONTOLOGY = {"red circle": "circle", "blue square": "square"}
FAKE = SeeConfig(
    detector="autodistill_grounded_sam.testing:FakeDetector", segmenter="autodistill_grounded_sam.testing:FakeSegmenter"
)
CONFIG = LabelConfig(see=FAKE, run=RunConfig(batch_size=8, device="cpu"), export=ExportConfig(formats=("coco",)))


def label_folder(home: Path, count: int = 12, ontology: Any = None, config: LabelConfig = CONFIG) -> Path:
    """Painted scenes, labelled by models that see anything anywhere; the output folder."""
    paint_folder(home / "images", count, settings=PainterSettings(width=96, height=72))
    pipeline.label(home / "images", ontology or ONTOLOGY, home / "out", config)
    return home / "out"


@contextmanager
def page_of(run: Path, **settings: Any) -> Iterator[ReviewServer]:
    with open_review(run, **settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


def answer_of(url: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers; a header given here replaces the one that urllib sends."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None and "Content-Type" not in names:
        names["Content-Type"] = "application/json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, names), timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def ask(server: ReviewServer, path: str, body: Any = None) -> Any:
    status, content, _ = answer_of(server.url + path, body)
    assert status == 200, content
    return json.loads(content)


def every_stop(server: ReviewServer) -> list[dict[str, Any]]:
    stops: list[dict[str, Any]] = []
    while found := ask(server, f"stops?after={stops[-1]['stop'] if stops else -1}&count=8&every=1")["stops"]:
        stops += found
    return stops


def decide(server: ReviewServer, stop: dict[str, Any], verdict: str, label: dict[str, Any] | None = None, **more: Any) -> Any:
    key = {} if label is None else {"xyxy": label["key"], "class": label["key_class"]}
    decision = {"verdict": verdict, **key, **more}
    return ask(server, "decide", {"stop": stop["stop"], "image": stop["image"]["number"], "decision": decision})


def dataset_of(out: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """Class and box of every label in the COCO dataset of a run, by the id of its image."""
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for split in ("train", "valid"):
        content = json.loads((out / split / "_annotations.coco.json").read_text())
        names = {row["id"]: row["name"] for row in content["categories"]}
        sources = {row["id"]: row["source"] for row in content["images"]}
        found |= {source: [] for source in sources.values()}
        for row in content["annotations"]:
            x, y, w, h = row["bbox"]
            found[sources[row["image_id"]]].append((names[row["category_id"]], [x, y, x + w, y + h]))
    return found


def redecided(out: Path, **settings: Any) -> dict[str, list[tuple[str, list[float]]]]:
    """The dataset after `decide` with these settings beside the last ones."""
    decide_config, _ = pipeline.last_settings(out)
    pipeline.redecide(out, decide_config.model_copy(update=settings), export=CONFIG.export)
    return dataset_of(out)
