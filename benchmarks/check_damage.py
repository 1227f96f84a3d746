"""How much planted damage `check` finds: 10 % of the labels of a real set are dropped, shifted or swapped on purpose.

    python -m benchmarks.check_damage --data ../shared/data --cache .cache/check --sets microcontrollers bccd

A third of the damaged labels each is dropped, shifted so that the IoU with what it was is 0.3 to 0.6, and given another class.
The list is judged at its first k suspicions, k being 20 % of the number of labels in the damaged dataset, and at its first 20 %
of lines; a damage counts as found where a suspicion of its image names it: for a dropped label, an overlooked box that overlaps
it by IoU 0.5 or more; for a shifted or swapped one, a suspicion of that very label, of whatever kind. Each damage counts once.
Then damage is drawn anew, `--draws` times, and judged by the same models: less of the figure is then luck of the draw.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autodistill_grounded_sam.checking import LIKELY, SEEN, check_dataset
from autodistill_grounded_sam.cross_fitting import CrossFit
from autodistill_grounded_sam.evaluate.operating_point import MATCH_IOU, box_overlaps
from autodistill_grounded_sam.store.files import write_json

DAMAGED_SHARE = 0.10
KINDS = ("dropped", "shifted", "swapped")
SHIFT_IOU = (0.3, 0.6)
TOP_SHARE = 0.20
SAME_BOX = 0.98  # the list rounds to hundredths of a pixel
_ADAPTED = CrossFit(turns=True, device="cpu", offline=True)  # both sets were photographed from above
# Short of what `adapt` takes by itself, so that both are measured in half an hour of processor time.
SETTINGS = {"microcontrollers": replace(_ADAPTED, length=600), "bccd": replace(_ADAPTED, length=500, side_px=224)}


class Damage(NamedTuple):
    """One label made wrong: in which image, how, its box before, and its box and class after (None where it was dropped)."""

    image: str
    kind: str
    before: list[float]
    after: list[float] | None
    class_name: str | None


def damaged(content: dict[str, Any], seed: int) -> tuple[dict[str, Any], list[Damage]]:
    """A COCO dataset with 10 % of its labels damaged, and what was done to it."""
    random = np.random.default_rng(seed)
    annotations = content["annotations"]
    chosen = random.permutation(len(annotations))[: round(DAMAGED_SHARE * len(annotations))]
    kind_of = {int(place): KINDS[number % len(KINDS)] for number, place in enumerate(chosen)}
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    kept, done = [], []
    for place, annotation in enumerate(annotations):
        kind, image = kind_of.get(place), images[annotation["image_id"]]
        changed = dict(annotation)
        if kind == "shifted":
            changed["bbox"] = _shifted(annotation["bbox"], image["width"], image["height"], random)
            changed.pop("segmentation", None)
        elif kind == "swapped":
            changed["category_id"] = int(random.choice([other for other in sorted(names) if other != annotation["category_id"]]))
        if kind != "dropped":
            kept.append(changed)
        if kind is not None:
            after, name = (None, None) if kind == "dropped" else (_xyxy(changed["bbox"]), names[changed["category_id"]])
            done.append(Damage(image["file_name"], kind, _xyxy(annotation["bbox"]), after, name))
    return {**content, "annotations": kept}, done


def _shifted(bbox: Sequence[float], width: int, height: int, random: np.random.Generator) -> list[float]:
    """The box moved, and made up to a third larger or smaller, until its IoU with itself is in SHIFT_IOU, inside the image."""
    x, y, w, h = bbox
    while True:
        w2, h2 = w * random.uniform(0.75, 1.33), h * random.uniform(0.75, 1.33)
        x2, y2 = x + w * random.uniform(-0.6, 0.6), y + h * random.uniform(-0.6, 0.6)
        x2, y2, right, bottom = max(x2, 0), max(y2, 0), min(x2 + w2, width), min(y2 + h2, height)
        if right - x2 < 1 or bottom - y2 < 1:
            continue
        iou = box_overlaps(_boxes([_xyxy(bbox)]), _boxes([[x2, y2, right, bottom]]))[0][0, 0]
        if SHIFT_IOU[0] <= iou <= SHIFT_IOU[1]:
            return [round(float(value), 2) for value in (x2, y2, right - x2, bottom - y2)]


def _xyxy(bbox: Sequence[float]) -> list[float]:
    x, y, w, h = (float(value) for value in bbox)
    return [x, y, x + w, y + h]


def _boxes(rows: Sequence[Sequence[float]]) -> Any:
    return np.array(rows, np.float32).reshape(-1, 4)


def found_at(lines: Sequence[dict[str, Any]], damage: Sequence[Damage]) -> list[int | None]:
    """The place in the list (from 0) of the first line that names each damage, None where none does; a line names one damage."""
    by_image: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        by_image.setdefault(line["image"], []).append(place)
    used: set[int] = set()
    found: list[int | None] = []
    for one in damage:
        first = next((p for p in by_image.get(one.image, []) if p not in used and _names(lines[p], one)), None)
        if first is not None:
            used.add(first)
        found.append(first)
    return found


def _names(line: dict[str, Any], one: Damage) -> bool:
    if one.after is None:
        return line["kind"] == "overlooked" and _iou(line["proposed_xyxy"], one.before) >= MATCH_IOU
    return line["class"] == one.class_name and line["xyxy"] is not None and _iou(line["xyxy"], one.after) > SAME_BOX


def _iou(first: Sequence[float], second: Sequence[float]) -> float:
    return float(box_overlaps(_boxes([first]), _boxes([second]))[0][0, 0])


def figures(lines: Sequence[dict[str, Any]], damage: Sequence[Damage], labels: int) -> dict[str, Any]:
    """The share of damage among the first k lines, k 20 % of the labels, and among the first 20 % of the lines; per kind too."""
    places = found_at(lines, damage)

    def share(limit: int, kind: str | None = None) -> float:
        own = [place for place, one in zip(places, damage, strict=True) if kind in (None, one.kind)]
        return sum(place is not None and place < limit for place in own) / len(own)

    k, fifth = round(TOP_SHARE * labels), round(TOP_SHARE * len(lines))
    likely = sum(line["suspicion"] >= LIKELY for line in lines)  # the list is in order, so these are its first lines
    return {
        "labels": labels, "damaged": len(damage), "lines": len(lines), "k": k,
        "likely": likely, "planted among likely": sum(place is not None and place < likely for place in places),
        "in first k": {"all": share(k), **{kind: share(k, kind) for kind in KINDS}},
        "in first fifth of the lines": {"all": share(fifth), **{kind: share(fifth, kind) for kind in KINDS}},
        "in first as many as damaged": {"all": share(len(damage)), **{kind: share(len(damage), kind) for kind in KINDS}},
    }  # fmt: skip


def measure(data: Path, cache: Path, seed: int, settings: CrossFit, draws: int) -> dict[str, Any]:
    """Damage the set in `data`, check it, and see how much of the damage comes first."""
    home = cache / data.name / str(seed)
    home.mkdir(parents=True, exist_ok=True)
    content, damage = damaged(json.loads((data / "annotations.json").read_text("utf-8")), seed)
    write_json(home / "damaged.json", content)
    words = json.loads((data / "ontology.json").read_text("utf-8"))["ontology"]
    started = time.process_time()
    result = check_dataset(
        home / "damaged.json", images=data / "images", out=home / "check", ontology=words, settings=settings,
        on_figures=lambda step, steps, told: logging.info("%s, seed %d: step %d of %d %s", data.name, seed, step, steps, told),
    )  # fmt: skip
    told = figures(result.suspicions, damage, result.labels)
    again = [redrawn(data, home, 1000 * (seed + 1) + draw) for draw in range(draws)]
    for name in [name for name in told if name.startswith("in first")]:
        shares = {kind: [one[name][kind] for one in again] for kind in told[name]}
        told[f"{name}, mean of {draws} draws"] = {kind: float(np.mean(values)) for kind, values in shares.items()}
        told[f"{name}, least"] = {kind: min(values) for kind, values in shares.items()}
    return {"set": data.name, "seed": seed, **told, "processor_minutes": (time.process_time() - started) / 60}


def redrawn(data: Path, home: Path, seed: int) -> dict[str, Any]:
    """The figures for damage drawn anew, judged by the same folds: still no model saw the labels that it judges."""
    content, damage = damaged(json.loads((data / "annotations.json").read_text("utf-8")), seed)
    write_json(home / "redrawn.json", content)
    result = check_dataset(home / "redrawn.json", predictions=home / "check" / SEEN, out=home / "redrawn")
    return figures(result.suspicions, damage, result.labels)


def table(told: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table, a line for each set and way of counting."""
    lines = ["| set | seed | labels, damaged | counted | all | " + " | ".join(KINDS) + " |", "|---" * (5 + len(KINDS)) + "|"]
    for one in told:
        for name in (name for name in one if name.startswith("in first")):
            shares = " | ".join(f"{value:.2f}" for value in one[name].values())
            lines.append(f"| {one['set']} | {one['seed']} | {one['labels']}, {one['damaged']} | {name} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/check"))
    parser.add_argument("--sets", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--draws", type=int, default=20, help="how often damage is drawn anew for the same folds")
    parser.add_argument("--student", help="a target of `distill` instead of the adapted detector, such as yolov8n.yaml")
    parser.add_argument("--epochs", type=int, default=60, help="of the student")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    told = []
    for name in args.sets:
        for seed in args.seeds:
            settings = replace(SETTINGS[name], seed=seed)
            if args.student:
                settings = CrossFit(student=args.student, length=args.epochs, side_px=320, device="cpu", offline=True, seed=seed)
            told.append(measure(args.data / name, args.cache, seed, settings, args.draws))
    if args.json:
        write_json(args.json, told)
    print(table(told))


if __name__ == "__main__":
    main()
