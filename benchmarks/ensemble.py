"""What views of an image, and a second detector, bring; and whether their agreement tells right labels from wrong ones.

    python -m benchmarks.ensemble --scenes 100 --detectors mini mini:flip mini:scale mini:flip,scale mini+adapted

A detector is a name as `--detector` takes it, with its views after a colon. AP ranks all candidates down to the floor; precision
and recall are at the shipped thresholds. The last two figures are the probability that a right label has the higher score, or the
higher agreement, than a wrong one (area under the ROC curve).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from autodistill_grounded_sam import measuring, pipeline
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.config import DecideConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.engine.seams import box_iou
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import ALL_PAIRS, FRESH_SETTINGS, paint_dataset
from autodistill_grounded_sam.store.store import Store

SEED = 5_000_000  # of scenes that no training painted
NAMES = [f"{colour} {shape}" for colour, shape in ALL_PAIRS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--detectors", nargs="+", default=["mini", "mini:flip", "mini:scale", "mini:flip,scale"])
    parser.add_argument("--images", type=Path, help="a folder of photographs instead of painted scenes")
    parser.add_argument("--truth", type=Path, help="COCO json of some of them")
    parser.add_argument("--ontology", default="painted_shapes")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        truth = args.truth or paint_dataset(Path(folder) / "scenes", args.scenes, FRESH_SETTINGS, SEED, NAMES)
        images = args.images or truth.parent / "images"
        facts = {}
        for name in args.detectors:
            facts[name] = measured(name, images, truth, args.ontology, Path(folder) / str(len(facts)))
            print(name, json.dumps(facts[name]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def measured(name: str, images: Path, truth: Path, ontology: str, out: Path) -> dict[str, Any]:
    detector, _, views = name.partition(":")
    config = LabelConfig(
        see=SeeConfig(detector=detector, views=tuple(views.split(",")) if views else (), masks="none"),
        run=RunConfig(device="cpu", offline=True),
    )
    wanted = {image.name for image in read_coco(truth)}
    words = Ontology.load(ontology)
    seen = pipeline.see(images, words, out, config, only=lambda found: [image for image in found if image.id in wanted])
    pipeline.redecide(seen.run, DecideConfig(box_threshold=0.1, text_threshold=0.1), words)
    ranked = measuring.evaluate(seen.run, truth).box
    pipeline.redecide(seen.run, DecideConfig(), words)
    decided = measuring.evaluate(seen.run, truth)
    figures = {"AP": ranked["AP"], "AP50": ranked["AP50"]}
    figures |= {key: decided.operating_point[key] for key in ("precision", "recall")}
    return {**figures, **told_apart(seen.run, images, truth), "seconds an image": seen.stages["see"] / len(wanted)}


def told_apart(run: Path, images: Path, truth_file: Path) -> dict[str, float]:
    truth = {image.name: image for image in read_coco(truth_file)}
    seen = {sighting.image.id: sighting.candidates for sighting in Store(run).sightings()}
    right, score, agreement = [], [], []
    names, labelled = pipeline.decided_labels(run, images)
    for image, labels in labelled:
        own, candidates = truth[image.id], seen[image.id]
        for row, box in enumerate(labels.xyxy):
            iou = box_iou(box, own.xyxy) * (own.class_id == labels.class_id[row] if len(names.class_names) > 1 else 1)
            right.append(bool((iou >= 0.5).any()))
            score.append(float(labels.score[row]))
            if candidates is not None and candidates.agreement is not None:
                agreement.append(float(candidates.agreement[labels.candidate[row]]))
    figures = {"score tells": _auc(score, right)}
    return {**figures, "agreement tells": _auc(agreement, right)} if agreement else figures


def _auc(values: list[float], right: list[bool]) -> float:
    hits = np.array(right)
    if hits.all() or not hits.any():
        return float("nan")
    ranks = rankdata(values)
    return float((ranks[hits].mean() - (hits.sum() + 1) / 2) / (~hits).sum())


if __name__ == "__main__":
    main()
