"""What `discover` finds in painted folders of which it is told nothing, beside taking every tag that is frequent enough.

    python benchmarks/discover.py --folders 4 --scenes 40

Each folder holds eight names drawn by chance from the 64, two of them rare. The mini tagger is asked for all 64. Those that are
painted in at least three images should be found, and none that is painted nowhere. Labels made with either ontology are measured
against all that is painted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import measuring, pipeline
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.config import DiscoverConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.discover.concepts import merge_tags
from autodistill_grounded_sam.discovering import discover
from autodistill_grounded_sam.images import find_images, read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import ALL_PAIRS, FRESH_SETTINGS, PainterSettings, paint_dataset
from autodistill_grounded_sam.tag.vocabulary import Vocabulary

SEED = 5_000_000
COMMON, RARE, WEIGHT = 6, 2, 8  # names of each kind, and how much oftener a common one is painted
CONFIG = LabelConfig(
    see=SeeConfig(detector="mini", masks="none"),
    run=RunConfig(device="cpu", offline=True),
    export=ExportConfig(formats=("yolo",)),
)
SETTINGS = DiscoverConfig(tagger="mini")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    rows = [one_folder(number, args.scenes) for number in range(args.folders)]
    facts = {"folders": rows, "in all": {way: total([row[way] for row in rows]) for way in ("discover", "frequent tags")}}
    text = json.dumps(facts, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def one_folder(number: int, scenes: int) -> dict[str, Any]:
    drawn = [ALL_PAIRS[k] for k in np.random.default_rng(SEED + number).permutation(len(ALL_PAIRS))[: COMMON + RARE]]
    fresh = FRESH_SETTINGS
    settings = PainterSettings(
        fresh.width, fresh.height, objects=(2, 6), pairs=(*drawn[:COMMON] * WEIGHT, *drawn[COMMON:]),
        backgrounds=fresh.backgrounds, clutter=fresh.clutter,
    )  # fmt: skip
    names = [f"{colour} {shape}" for colour, shape in drawn]
    with tempfile.TemporaryDirectory() as home:
        truth = paint_dataset(Path(home), scenes, settings, SEED + 1000 * number, names)
        images = Path(home) / "images"
        counts = np.bincount([k for row in read_coco(truth) for k in np.unique(row.class_id)], minlength=len(names))
        there = {name for name, count in zip(names, counts, strict=True) if count >= SETTINGS.min_images}
        found = discover(images, settings=SETTINGS, config=CONFIG).ontology
        ways = {"discover": found, "frequent tags": frequent_tags(images)}
        measured = {way: measure(ontology, images, truth, there, set(names), Path(home) / way) for way, ontology in ways.items()}
    return {"painted": sorted(there), **measured}


def frequent_tags(images: Path) -> Ontology:
    """Every tag of at least so many images, merged as `discover` merges them, and no more."""
    tagger = Vocabulary("mini")
    tags = [tagger.tag([read_image(image.path)])[0] for image in find_images(images).images]
    return Ontology.from_dict({one.name: one.name for one in merge_tags(tags) if len(one.images) >= SETTINGS.min_images})


def measure(ontology: Ontology, images: Path, truth: Path, there: set[str], painted: set[str], out: Path) -> dict[str, Any]:
    found = set(ontology.class_names)
    summary = pipeline.label(images, ontology, out, CONFIG)
    point = measuring.evaluate(out, truth).operating_point
    invented = sum(count for name, count in summary.per_class.items() if name not in painted)
    right, shared = point["precision"], summary.labels - invented
    return {
        "found": len(found & there), "missed": sorted(there - found), "invented": sorted(found - painted),
        "labels": summary.labels, "labels of invented names": invented, "right of the others": round(right * shared),
        "recall": round(point["recall"], 3),
    }  # fmt: skip


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    labels, right = sum(row["labels"] for row in rows), sum(row["right of the others"] for row in rows)
    return {
        "found": sum(row["found"] for row in rows),
        "missed": sum(len(row["missed"]) for row in rows),
        "invented": sum(len(row["invented"]) for row in rows),
        "share of all labels that is right": round(right / labels, 3),
        "mean recall": round(float(np.mean([row["recall"] for row in rows])), 3),
    }


if __name__ == "__main__":
    main()
