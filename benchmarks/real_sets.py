"""The sets of real photographs, each split by digest into labelled images, the pool, and a test part that people labelled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.files import write_json

# treecrowns (4 images) and coco_ccby (50 classes on 32 images, and every detector was trained on COCO) cannot be measured on.
SETS = ("bccd", "microcontrollers", "nuclei", "fruits_nuts")
SHOTS = (10, 20, 50)
TEST_SHARE, MOST_TEST = 0.28, 100
LEAST_POOL = 3


@dataclass(frozen=True)
class RealSet:
    """A set and its split. `labelled`, `pool` and `test` are rows of COCO's `images`; in the order of the digests of the files,
    so that the labelled images of 10 are among those of 20, and the test part is the same for all."""

    name: str
    home: Path
    content: dict[str, Any]
    labelled: tuple[dict[str, Any], ...]
    pool: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...]

    @property
    def images(self) -> Path:
        return self.home / "images"

    @property
    def ontology(self) -> Ontology:
        """The prompts that were guessed by whoever took the set in; nobody measured or chose among them."""
        return Ontology.load(json.loads((self.home / "ontology.json").read_text("utf-8"))["ontology"])

    def write(self, part: str, folder: Path) -> Path:
        """The annotations of `labelled`, `pool`, `test`, or `human` (all but the test part) as a COCO json; its path."""
        images = self.labelled + self.pool if part == "human" else getattr(self, part)
        ids = {image["id"] for image in images}
        annotations = [row for row in self.content["annotations"] if row["image_id"] in ids]
        file = folder / f"{part}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {**self.content, "images": list(images), "annotations": annotations})
        return file


def read_set(home: Path, shots: int, seed: int) -> RealSet | None:
    """The set in this folder with `shots` labelled images, or None if too few are left to label; another seed draws others."""
    content = json.loads((home / "annotations.json").read_text("utf-8"))

    def drawn(image: dict[str, Any]) -> str:
        digest = hashlib.sha256((home / "images" / image["file_name"]).read_bytes()).hexdigest()
        return digest if seed == 0 else hashlib.sha256(f"{seed} {digest}".encode()).hexdigest()

    images = sorted(content["images"], key=drawn)
    tests = min(MOST_TEST, round(TEST_SHARE * len(images)))
    labelled, pool, test = images[:shots], images[shots:-tests], images[-tests:]
    if len(pool) < LEAST_POOL:
        return None
    return RealSet(home.name, home, content, tuple(labelled), tuple(pool), tuple(test))
