"""Made-up stores for benchmarks: written by the real StoreWriter, built once a folder, with masks of wavy outlines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.files import write_json
from autodistill_grounded_sam.store.store import Folder, StoreWriter
from autodistill_grounded_sam.types import ImageRecord, Sighting

PART_IMAGES = 512  # as RunConfig's default


def build_once(folder: Path, images: int, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call `build` unless `folder` was built before; what it told then."""
    note = folder / "benchmark.json"
    if not note.exists():
        print(f"building a store of {images} images in {folder}", file=sys.stderr)
        told = build()
        write_json(note, {"images": images, **told})
    built: dict[str, Any] = json.loads(note.read_text("utf-8"))
    if built["images"] != images:
        raise SystemExit(f"{folder} holds {built['images']} images, not {images}; name another --store")
    return built


def write_store(run: Path, ontology: Ontology, images: Sequence[ImageRecord], see: Callable[[int], Sighting]) -> int:
    """A finished run in which image k was seen as `see(k)`, and what `label` would have decided with; its candidates."""
    identity = {"prompts": list(ontology.prompts), "detector": {"name": "made up", "sha256": None}}
    folder, candidates = Folder(images[0].root, images), 0
    with StoreWriter(run, identity, folder, batch_size=PART_IMAGES, part_images=PART_IMAGES, part_seconds=1e9) as store:
        for window, start in enumerate(range(0, len(images), PART_IMAGES)):
            rows = [see(place) for place in range(start, min(start + PART_IMAGES, len(images)))]
            candidates += sum(len(row.candidates) for row in rows if row.candidates is not None)
            store.add(window, 0, rows)
    write_json(run / "decide.json", {"decide": DecideConfig().model_dump(mode="json"), "ontology": ontology.document()})
    return candidates


def draw_blob(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, centre: npt.NDArray[Any], radius: float, corners: int, flattest: float
) -> None:
    """A closed wavy outline around `centre`, filled; its height is `flattest` to 1.2 of its width."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    waves = 0.18 * np.sin(rng.integers(2, 9) * angle + rng.uniform(0, 6)) + rng.normal(0, 0.03, corners)
    reach = radius * (1 + waves)
    outline = np.stack([reach * np.cos(angle), reach * rng.uniform(flattest, 1.2) * np.sin(angle)], axis=1) + centre
    draw.polygon([tuple(corner) for corner in outline.tolist()], fill=1)
