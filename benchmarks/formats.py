"""What each export format keeps of masks that people drew: labels, mask IoU of what comes back, and what could not be kept.

    python benchmarks/formats.py [--shared ../shared] [--json FILE]

The images are the 32 of `data/coco_ccby` with 180 objects: small ones, holes, parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from autodistill_grounded_sam.coco_datasets import coco_class_names, read_coco
from autodistill_grounded_sam.export.formats import FORMATS, export_dataset
from autodistill_grounded_sam.images import dataset_stems, scan
from autodistill_grounded_sam.types import Labels, State


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.shared / "data" / "coco_ccby"
    truth = {row.name: row for row in read_coco(folder / "annotations.json")}
    names = coco_class_names(folder / "annotations.json")
    rows = []
    for image in scan(folder / "images").images:
        row = truth[image.id]
        count, ones = len(row.class_id), np.ones(len(row.class_id), np.float32)
        place = np.arange(count, dtype=np.int32)
        state = State.LABELLED if count else State.EMPTY
        rows.append((image, Labels(state, row.class_id, ones, ones, row.xyxy, place, row.rle)))
    stems = dataset_stems([image.id for image, _ in rows])
    print(f"{sum(len(labels) for _, labels in rows)} labels of {len(rows)} images\n")
    print(f"{'format':14} {'labels':>6} {'mean IoU':>9} {'lowest':>7} {'MB':>6} {'s':>5}  notes")
    figures = {}
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as place_of_it:
            started = time.perf_counter()
            summary = export_dataset(rows, names, name, Path(place_of_it), split=lambda _: "train", stems=stems)
            seconds = time.perf_counter() - started
            size_mb = sum(path.stat().st_size for path in Path(place_of_it).rglob("*") if path.is_file()) / 1e6
        mean, lowest = ("" if iou is None else f"{iou:.4f}" for iou in (summary.round_trip_iou, summary.lowest_iou))
        notes = "; ".join(note for note in summary.notes if "no image fell to" not in note)
        print(f"{name:14} {summary.labels:6} {mean:>9} {lowest:>7} {size_mb:6.1f} {seconds:5.1f}  {notes}")
        figures[name] = {"labels": summary.labels, "iou": summary.round_trip_iou, "lowest": summary.lowest_iou, "notes": notes}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
