"""What two detectors of different kinds bring together, and whether one number a detector is calibration enough.

    python -m benchmarks.real --data ../shared/data --cache .cache/real --sets nuclei --shots 20 --students a   # makes both
    python -m benchmarks.two_detectors --sets nuclei microcontrollers --shots 20

A is `mini` adapted to the N labelled images, B the YOLOv8n trained on the same (student "a" of `benchmarks.real`). Whatever a
calibration needs is found on the pool, which neither learnt from; all figures are of the test part. AP ranks all candidates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.adapt.measuring import named_objects
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.distill.students import load_student
from autodistill_grounded_sam.engine.ensemble import COMMON_THRESHOLD, calibrated, fuse
from autodistill_grounded_sam.evaluate.average_precision import average_precision
from autodistill_grounded_sam.evaluate.matching import Objects, Pair, class_key
from autodistill_grounded_sam.evaluate.operating_point import match_boxes
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Candidates, DatasetImage, Float32
from benchmarks.real_sets import read_set

FLOOR = 0.05
THRESHOLDS = np.arange(0.05, 0.951, 0.01)
USUAL = (0.35, 0.25)  # of Grounding DINO and of ultralytics

Seen = list[tuple[DatasetImage, list[Candidates]]]  # of each image what A and B saw, a column of scores a class
Calibrate = Callable[[Float32], Float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/real"), help="of `benchmarks.real`")
    parser.add_argument("--sets", nargs="+", default=["nuclei"])
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    facts = {}
    for name in args.sets:
        facts[name] = measured(args.data / name, args.cache / name / f"{args.shots}-0", args.shots)
        for kind, figures in facts[name].items():
            print(name, kind, json.dumps(figures), flush=True)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def measured(home: Path, made: Path, shots: int) -> dict[str, Any]:
    data = read_set(home, shots, 0)
    if data is None:
        raise SystemExit(f"{home} has too few images for {shots} labelled ones")
    words = data.ontology
    detector = plugins.load("detectors", str(made / "weights"), device="cpu", offline=True, floor=FLOOR)
    student = load_student(made / "student-a" / "best.pt", device="cpu")
    classes = Ontology.from_dict({name: name for name in words.class_names})

    def seen(part: str) -> Seen:
        rows = []
        for row in read_coco(made / f"{part}.json"):
            pixels = read_image(data.images / row.name)
            (found,) = detector.detect([pixels], words.prompts)
            answer = student.predict(pixels, confidence=FLOOR)
            rows.append((row, [_by_class(found, words), _of_student(answer, words)]))
        return rows

    def truth_of(row: DatasetImage) -> Objects:
        names = [category["name"] for category in sorted(data.content["categories"], key=lambda one: one["id"])]
        own = {class_key(name): place for place, name in enumerate(words.class_names)}
        return Objects.of(np.array([own[class_key(names[k])] for k in row.class_id], np.int32), row.xyxy)

    def pairs(rows: Seen, join: Callable[[list[Candidates]], Candidates]) -> list[Pair]:
        return [Pair(row.name, row.width, row.height, truth_of(row), named_objects(join(both), classes)) for row, both in rows]

    pool, test = seen("pool"), seen("test")
    alone = [pairs(pool, lambda both, k=k: both[k]) for k in (0, 1)]  # type: ignore[misc]
    best = [_best_threshold(one) for one in alone]
    ways: dict[str, Sequence[Calibrate]] = {
        "as they are": [lambda scores: scores] * 2,
        "usual thresholds": [_shift(threshold) for threshold in USUAL],
        "best thresholds": [_shift(threshold) for threshold in best],
        "isotonic": [_isotonic(one) for one in alone],
        "ranks": [_ranks(one) for one in alone],
    }
    count = len(words.class_names)
    figures: dict[str, Any] = {"best thresholds": best, "A": _ap(pairs(test, lambda both: both[0]), count)}
    figures["B"] = _ap(pairs(test, lambda both: both[1]), count)
    for name, (of_a, of_b) in ways.items():

        def join(both: list[Candidates], of_a: Calibrate = of_a, of_b: Calibrate = of_b) -> Candidates:
            return fuse([Candidates(one.xyxy, of(one.scores)) for one, of in zip(both, (of_a, of_b), strict=True)])

        joined = pairs(test, join)
        figures[f"A+B, {name}"] = _ap(joined, count)
        if name == "best thresholds":
            figures["told apart"] = _told_apart([(truth_of(row), join(both)) for row, both in test])
    return figures


def _by_class(found: Candidates, words: Ontology) -> Candidates:
    """The scores of the best prompt of each class."""
    scores = np.zeros((len(found), len(words.class_names)), np.float32)
    for prompt, class_id in enumerate(words.prompt_class.tolist()):
        scores[:, class_id] = np.maximum(scores[:, class_id], found.scores[:, prompt])
    return Candidates(found.xyxy, scores)


def _of_student(answer: Any, words: Ontology) -> Candidates:
    scores = np.zeros((len(answer.scores), len(words.class_names)), np.float32)
    own = {class_key(name): place for place, name in enumerate(words.class_names)}
    scores[np.arange(len(scores)), [own[class_key(name)] for name in answer.class_names]] = answer.scores
    return Candidates(answer.xyxy, scores)


def _judged(pairs: Sequence[Pair]) -> tuple[Float32, Any, int]:
    """Score of every label, if it is right at an IoU of 0.5, and the number of objects."""
    score, right = [], []
    for pair in pairs:
        score.append(pair.labels.score)
        right.append(match_boxes(pair.labels, pair.truth, within_class=True).truth_of >= 0)
    return np.concatenate(score), np.concatenate(right), sum(len(pair.truth) for pair in pairs)


def _best_threshold(pairs: Sequence[Pair]) -> float:
    score, right, objects = _judged(pairs)
    f1 = [2 * right[score >= t].sum() / max((score >= t).sum() + objects, 1) for t in THRESHOLDS]
    return round(float(THRESHOLDS[int(np.argmax(f1))]), 2)


def _shift(threshold: float) -> Calibrate:
    return lambda scores: calibrated(scores, threshold)


def _isotonic(pairs: Sequence[Pair]) -> Calibrate:
    """The share of right labels by score; a score of 0 stays 0."""
    score, right, _ = _judged(pairs)
    curve = IsotonicRegression(y_min=0, y_max=1).fit(score, right)
    at, share = curve.X_thresholds_, curve.y_thresholds_
    return lambda scores: np.where(scores > 0, np.interp(scores, at, share), 0).astype(np.float32)


def _ranks(pairs: Sequence[Pair]) -> Calibrate:
    """The share of labels that score less."""
    score = np.sort(_judged(pairs)[0])
    return lambda scores: (np.searchsorted(score, scores) / max(len(score), 1)).astype(np.float32)


def _ap(pairs: Sequence[Pair], classes: int) -> dict[str, float]:
    overall = average_precision(pairs, classes, "box").overall
    return {name: round(float(overall[name]), 3) for name in ("AP", "AP50")}


def _told_apart(rows: Sequence[tuple[Objects, Candidates]]) -> dict[str, float]:
    """How often, of the labels at the common threshold, a right one stands above a wrong one: by its score, by its agreement,
    and by its spare score times the agreement, as a review queue might have it."""
    by: dict[str, list[Any]] = {"score": [], "agreement": [], "both": []}
    right = []
    for truth, found in rows:
        score = found.scores.max(axis=1, initial=0)
        kept = found.select(score >= COMMON_THRESHOLD)
        if not len(kept) or kept.agreement is None:
            continue
        best = kept.scores.max(axis=1)
        labels = Objects.of(kept.scores.argmax(axis=1).astype(np.int32), kept.xyxy, best)
        right.append(match_boxes(labels, truth, within_class=True).truth_of >= 0)
        by["score"].append(best)
        by["agreement"].append(kept.agreement)
        by["both"].append((best - COMMON_THRESHOLD) * kept.agreement)
    hits = np.concatenate(right)
    ranks = {name: rankdata(np.concatenate(values)) for name, values in by.items()}
    return {name: round(float((rank[hits].mean() - (hits.sum() + 1) / 2) / (~hits).sum()), 3) for name, rank in ranks.items()} | {
        "labels": len(hits),
        "wrong": int((~hits).sum()),
    }


if __name__ == "__main__":
    main()
