"""What tiles bring for small objects in large images, and whether they cost precision or duplicates.

    python -m benchmarks.tiles --scenes 20 --out tiles.json
    python -m benchmarks.tiles --scenes 0 --detector nuclei/weights --images ../shared/data/nuclei/images --truth test.json ...

Labels at the shipped thresholds against the truth, matched best first at an IoU of 0.5 of boxes, whatever their class. A label
that matches nothing, and overlaps an object which a better label has taken by an IoU of 0.3 or more, is a duplicate. Recall is
told by the shorter side of the box; and, for all objects, at the score where the precision is that of the whole look alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.masks import mask_iou
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import ALL_PAIRS, PainterSettings, paint_dataset

SEED = 4_000_000  # of scenes that no training painted
NAMES = [f"{colour} {shape}" for colour, shape in ALL_PAIRS]
BACKGROUNDS = ("waves", "cloud", "stripes")
# The shorter side is 600 px, of which the input of `mini` keeps 160: objects of 20 to 55 px, of both kinds, and large ones alone.
SCENES = {
    "small": PainterSettings(800, 600, (10, 25), (0.035, 0.09), backgrounds=BACKGROUNDS, clutter=(1, 5)),
    "mixed": PainterSettings(800, 600, (8, 16), (0.035, 0.45), backgrounds=BACKGROUNDS, clutter=(1, 5)),
    "large": PainterSettings(800, 600, (2, 5), (0.3, 0.5), backgrounds=BACKGROUNDS, clutter=(1, 5)),
}
MATCH_IOU, DUPLICATE_IOU = 0.5, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20, help="painted scenes of each kind")
    parser.add_argument("--detector", default="mini")
    parser.add_argument("--segmenter", default="mini")
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--truth", type=Path, help="COCO json of some of them")
    parser.add_argument("--ontology", default="painted_shapes")
    parser.add_argument("--larger-than", type=int, default=0, help="leave out photographs whose longer side is at most this")
    parser.add_argument("--small-px", type=float, default=32, help="shorter side below which an object is small")
    parser.add_argument("--max-candidates", type=int, default=100, help="kept of an image, as SeeConfig has it")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    facts = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.images:
            facts["photographs"] = measured(args, args.images, args.truth, Path(folder) / "photographs")
        for kind, settings in SCENES.items() if args.scenes else ():
            truth = paint_dataset(Path(folder) / kind, args.scenes, settings, SEED, NAMES)
            print(kind, flush=True)
            facts[kind] = measured(args, truth.parent / "images", truth, Path(folder) / f"{kind}-out")
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def measured(args: argparse.Namespace, images: Path, truth_file: Path, out: Path) -> dict[str, Any]:
    truth = {image.name: image for image in read_coco(truth_file) if max(image.width, image.height) > args.larger_than}
    words, facts = Ontology.load(args.ontology), {}
    alone: float | None = None  # the precision of the whole look
    for name, see in {
        "none": {"tiles": "none"},
        "auto": {"tiles": "auto"},
        "all": {"tiles": "all"},
        "all, boxes only": {"tiles": "all", "masks": "none"},
    }.items():
        config = LabelConfig(
            see=SeeConfig(detector=args.detector, segmenter=args.segmenter, max_candidates=args.max_candidates, **see),
            run=RunConfig(device="cpu", offline=True),
        )
        seen = pipeline.see(images, words, out / name, config, only=lambda found: [image for image in found if image.id in truth])
        pipeline.redecide(seen.run, config.decide, words)
        tally = Tally(args.small_px)
        for image, labels in pipeline.decided_labels(seen.run, images)[1]:
            tally.add(truth[image.id], labels)
        alone = tally.figures()["precision"] if alone is None else alone
        recall = {"recall at the precision of none": tally.recall_at(alone)}
        facts[name] = {**tally.figures(), **recall, "seconds an image": seen.stages["see"] / len(truth)}
        print(name, json.dumps(facts[name]), flush=True)
    return facts


class Tally:
    """Counts of labels and objects, of those below `small_px` apart."""

    def __init__(self, small_px: float) -> None:
        self.small_px = small_px
        self.duplicates = 0
        self.judged: list[tuple[float, bool]] = []  # score of each label, and if it is right
        self.found: dict[bool, list[bool]] = {True: [], False: []}  # by whether the object is small
        self.mask_iou: list[float] = []

    def add(self, truth: Any, labels: Any) -> None:
        sides = np.minimum(labels.xyxy[:, None, 2:], truth.xyxy[:, 2:]) - np.maximum(labels.xyxy[:, None, :2], truth.xyxy[:, :2])
        shared = sides.clip(0).prod(axis=2)
        area = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (labels.xyxy, truth.xyxy)]
        iou = shared / np.maximum(area[0][:, None] + area[1] - shared, 1e-9)
        taken = np.zeros(len(truth.xyxy), bool)
        for row in range(len(labels)):
            free = np.where(taken, 0, iou[row])
            best = int(free.argmax()) if len(free) else 0
            right = bool(len(free) and free[best] >= MATCH_IOU)
            self.judged.append((float(labels.score[row]), right))
            if right:
                taken[best] = True
                small = (truth.xyxy[best, 2:] - truth.xyxy[best, :2]).min() < self.small_px
                if small and truth.rle is not None and labels.rle is not None:
                    self.mask_iou.append(mask_iou(labels.rle[row], truth.rle[best]))
            elif len(free) and (iou[row][taken] >= DUPLICATE_IOU).any():
                self.duplicates += 1
        for box, hit in zip(truth.xyxy, taken.tolist(), strict=True):
            self.found[bool((box[2:] - box[:2]).min() < self.small_px)].append(hit)

    def figures(self) -> dict[str, Any]:
        named = {"small": self.found[True], "other": self.found[False]}
        return {
            "precision": sum(right for _, right in self.judged) / max(len(self.judged), 1),
            "duplicates": self.duplicates,
            **{f"recall, {name}": float(np.mean(hits)) for name, hits in named.items() if hits},
            **{f"objects, {name}": len(hits) for name, hits in named.items() if hits},
            **({"mask IoU of matched small ones": float(np.mean(self.mask_iou))} if self.mask_iou else {}),
        }

    def recall_at(self, precision: float) -> float:
        """Of all objects, at the lowest score from which on the labels are as precise as this; 0 where they never are."""
        right = np.array([right for _, right in sorted(self.judged, key=lambda one: -one[0])], np.float64).cumsum()
        enough = np.flatnonzero(right >= precision * np.arange(1, len(right) + 1))
        return float(right[enough[-1]] / sum(map(len, self.found.values()))) if len(enough) else 0.0


if __name__ == "__main__":
    main()
