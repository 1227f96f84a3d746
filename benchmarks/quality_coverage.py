"""How honest `quality` is: how often its 90 % intervals hold, what its trust is worth, and what its review queue saves.

    python -m benchmarks.quality_coverage --out quality_coverage.json
    python -m benchmarks.quality_coverage --images DIR --truth COCO.json --ontology FILE --detector WEIGHTS --box-threshold 0.2
    python -m benchmarks.quality_coverage --run .cache/real/bccd/50-0/adapted --truth .cache/real/bccd/50-0/pool.json

Without --images, scenes of known truth are painted. The whole folder is labelled once. Then, again and again, some images are
drawn as the labelled ones: what they say is compared with what is true of all.

- coverage: how often the interval of precision and of missed objects holds what is true of the whole run.
- log loss: of trust on the images that were not drawn; beside isotonic regression of the score, and the share of right labels.
- lift: of the labels of those images, sorted by trust, the first tenth is clicked; how many wrong ones that finds, over the
  number that clicking anywhere finds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.datasets import read_dataset
from autodistill_grounded_sam.evaluate.matching import match_names
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.painting import COLOURS, FRESH_SETTINGS, SHAPES, paint_dataset
from autodistill_grounded_sam.quality.calibration import fit, log_loss
from autodistill_grounded_sam.trusting import Estimator, JudgedLabels, judged_labels

SEED = 5_000_000  # of scenes that no training saw
CLICKED = 0.1
FEWEST_WRONG = 10  # a set with fewer wrong labels says nothing about a queue

Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=400, help="painted ones, without --images")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--ontology", type=str)
    parser.add_argument("--detector", default="mini")
    parser.add_argument("--box-threshold", type=float, default=0.3)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--labelled", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--store", type=Path, help="keep the run here, and use it again")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--run", type=Path, help="a run that was decided already, of the images of --truth")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = args.store or Path(folder)
        judged = judged_labels(args.run, args.truth) if args.run else label(home, args)
    facts: dict[str, Any] = {"images": len(judged), "labels": int(judged.labels.sum()), "objects": int(judged.objects.sum())}
    facts |= {"precision": judged.right.sum() / max(1, judged.labels.sum())}
    facts |= {"missed": 1 - judged.right.sum() / max(1, judged.objects.sum())}
    for labelled in args.labelled:
        if 2 * labelled <= len(judged):
            facts[f"{labelled} labelled images"] = {
                **coverage(judged, labelled, args.draws),
                **trust(judged, labelled, args.draws),
            }
    text = json.dumps(facts, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def label(home: Path, args: argparse.Namespace) -> JudgedLabels:
    """Label the folder, once; its labels beside their truth."""
    images, truth, ontology = args.images, args.truth, args.ontology
    if images is None:
        truth, ontology = paint(home / "scenes", args.scenes), shapes()
        images = truth.parent / "images"
    config = LabelConfig(
        see=SeeConfig(detector=args.detector, segmenter="mini"),
        run=RunConfig(device="cpu", offline=True),
        decide=DecideConfig(box_threshold=args.box_threshold, text_threshold=args.box_threshold),
        export=ExportConfig(formats=("yolo",)),
    )

    def of_truth(found: Sequence[Any]) -> list[Any]:
        places = match_names([image.name for image in read_dataset(truth)], [image.id for image in found])
        return [found[place] for place in sorted(places.values())]

    pipeline.see(images, ontology, home / "out", config, only=of_truth)
    pipeline.redecide(home / "out", config.decide, ontology)
    return judged_labels(home / "out", truth)


def shapes() -> Ontology:
    """Eight classes, each asked for in eight colours; the mini models never saw some of these pairs."""
    return Ontology(tuple(ClassSpec(shape, tuple(f"{colour} {shape}" for colour in COLOURS)) for shape in SHAPES))


def paint(folder: Path, count: int) -> Path:
    """Scenes with their truth by shape."""
    names = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
    truth = paint_dataset(folder, count, FRESH_SETTINGS, SEED, names)
    content = json.loads(truth.read_text("utf-8"))
    for row in content["annotations"]:
        row["category_id"] = 1 + (row["category_id"] - 1) // len(COLOURS)
    content["categories"] = [{"id": place + 1, "name": shape} for place, shape in enumerate(SHAPES)]
    truth.write_text(json.dumps(content), encoding="utf-8")
    return truth


def coverage(judged: JudgedLabels, labelled: int, draws: int) -> dict[str, float]:
    """How often the intervals of `labelled` drawn images hold what is true of all, and how wide they are."""
    rng, holds, widths = np.random.default_rng(labelled), defaultdict(list), defaultdict(list)
    places: list[int | None] = [None, *range(len(judged.class_names))]
    for _ in range(draws):
        drawn = np.sort(rng.choice(len(judged), labelled, replace=False))
        others = ~np.isin(judged.image, drawn)
        estimator = Estimator(only(judged, drawn), judged.facts[others], judged.class_id[others], len(judged))
        for place in places:
            said, name = estimator.quality(place), "all" if place is None else "a class"
            for what, share in (("precision", said.precision), ("missed", said.missed)):
                if share.count:  # else there is no interval
                    low_is_right = share.low <= truth_of(judged, what, place) + 1e-9
                    holds[f"coverage of {what}, {name}"].append(
                        low_is_right and share.high >= truth_of(judged, what, place) - 1e-9
                    )
                    widths[f"width of {what}, {name}"].append(share.high - share.low)
    return {key: float(np.mean(values)) for key, values in {**holds, **widths}.items()}


def only(judged: JudgedLabels, images: npt.NDArray[np.intp]) -> JudgedLabels:
    """What was judged of some images."""
    mine = np.isin(judged.image, images)
    return replace(
        judged, right=judged.right[images], labels=judged.labels[images], objects=judged.objects[images],
        facts=judged.facts[mine], class_id=judged.class_id[mine], is_right=judged.is_right[mine],
        image=np.searchsorted(images, judged.image[mine]), names=tuple(judged.names[place] for place in images),
    )  # fmt: skip


def truth_of(judged: JudgedLabels, what: str, place: int | None) -> float:
    """The share over all images."""
    chosen = slice(None) if place is None else [place]
    right, labels, objects = (float(counts[:, chosen].sum()) for counts in (judged.right, judged.labels, judged.objects))
    return right / labels if what == "precision" else 1 - right / objects


def trust(judged: JudgedLabels, labelled: int, draws: int) -> dict[str, float]:
    """Log loss and lift of the review queue on the images that were not drawn."""
    if (~judged.is_right).sum() < FEWEST_WRONG or judged.is_right.sum() < FEWEST_WRONG:
        return {}
    rng, found, classes = np.random.default_rng(labelled), defaultdict(list), 1 + int(judged.class_id.max())
    for _ in range(max(20, draws // 5)):
        drawn = np.isin(judged.image, rng.choice(len(judged), labelled, replace=False))
        facts, right = judged.facts[~drawn], judged.is_right[~drawn]
        if not drawn.any() or right.all():
            continue
        ours = fit(judged.facts[drawn], judged.class_id[drawn], judged.is_right[drawn], classes).trust(
            facts, judged.class_id[~drawn]
        )
        share = np.full(len(right), judged.is_right[drawn].mean())
        for name, told in (
            ("trust", ours), ("isotonic of the score", isotonic(judged, drawn)), ("share of right labels", share),
        ):  # fmt: skip
            found[f"log loss, {name}"].append(log_loss(np.clip(told, 0.01, 0.99).astype(np.float32), right))
        clicks = max(1, int(CLICKED * len(right)))
        for name, order in (("trust", ours), ("the score", facts[:, 0])):
            first = np.argsort(order, kind="stable")[:clicks]
            found[f"lift of a queue by {name}"].append((~right)[first].mean() / (~right).mean())
        found["most lift possible"].append(min(1 / (~right).mean(), 1 / CLICKED))
    return {key: float(np.mean(values)) for key, values in found.items()}


def isotonic(judged: JudgedLabels, drawn: npt.NDArray[np.bool_]) -> Floats:
    """What isotonic regression of the score on the drawn labels says of the others."""
    from scipy.optimize import isotonic_regression

    score = judged.facts[:, 0]
    order = np.argsort(score[drawn], kind="stable")
    fitted = isotonic_regression(judged.is_right[drawn][order].astype(np.float64)).x
    return np.interp(score[~drawn], score[drawn][order], fitted)


if __name__ == "__main__":
    main()
