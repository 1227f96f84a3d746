"""What few labelled photographs are worth: adapt, tune, label the rest, train students; measured on labels that people made.

    python -m benchmarks.real --data ../shared/data --cache .cache/real --out docs/real.md

For every set and number of labelled images (N): AP of `mini` as it is, adapted, and adapted and tuned, on the pool; and AP50 on
the test part of one student (same epochs, from random weights) trained on (a) the N labelled images, (b) these and the labels
that the adapted detector gave the pool, (c) the same without the images that `quality` puts up for review, (d) all of them
labelled by people. Every step is kept in the cache and not done again, so it may be broken off; a step of other settings is
done anew. `--quick` is one small set with short training: it shows that all of it runs, not what it is worth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.adapting import adapt_weights
from autodistill_grounded_sam.config import DecideConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.distill.students import predict_folder
from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget
from autodistill_grounded_sam.evaluate.average_precision import average_precision, average_precision_draws
from autodistill_grounded_sam.evaluate.matching import join
from autodistill_grounded_sam.evaluate.report import evaluate_labels
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.files import write_json
from autodistill_grounded_sam.trusting import assess
from autodistill_grounded_sam.tuning import tune
from autodistill_grounded_sam.types import DatasetImage, State
from benchmarks.real_sets import SETS, SHOTS, RealSet, read_set
from benchmarks.real_students import human_rows, write_yolo
from benchmarks.real_table import page

DRAWS = 200  # bootstrap samples of the images of a figure
STUDENTS = "adbc"
INTERVAL = (5, 95)  # percentiles
RANKED = {"box_threshold": 0.0, "text_threshold": 0.0}  # AP ranks every candidate that was stored


@dataclass(frozen=True)
class Settings:
    """What every cell of the table has in common."""

    steps: int = 1300
    images_seen: int = 7000  # by the student that learns from all images; the epochs that makes are the same for all four
    most_epochs: int = 200
    imgsz: int = 320
    trust: float = 0.5
    floor: float = 0.05


QUICK = Settings(steps=24, images_seen=40, imgsz=160)


class Cell:
    """One set with N labelled images and one seed; every method is one step, done once."""

    def __init__(self, real: RealSet, seed: int, settings: Settings, cache: Path) -> None:
        self.real, self.seed, self.settings = real, seed, settings
        self.shots = len(real.labelled)
        self.home = cache / real.name / f"{self.shots}-{seed}"
        self.home.mkdir(parents=True, exist_ok=True)
        self.epochs = min(settings.most_epochs, round(settings.images_seen / len(real.labelled + real.pool)))
        self.truth = {part: real.write(part, self.home) for part in ("labelled", "pool", "test", "human")}

    def figures(self, students: str = STUDENTS) -> dict[str, Any]:
        """All that the table tells of this cell, with those of the students that are named."""
        counts = {part: len(getattr(self.real, part)) for part in ("labelled", "pool", "test")}
        told: dict[str, Any] = {"set": self.real.name, "shots": self.shots, "seed": self.seed, "images": counts}
        told["adapt"] = self.once("adapt", self.adapt, steps=self.settings.steps)
        told["mini"] = self.once("mini", lambda: self.teacher("mini", "mini"), floor=self.settings.floor)
        told["adapted"] = self.once("adapted", lambda: self.teacher("adapted", str(self.home / "weights")), of=told["adapt"])
        told["tuned"] = self.once("tuned", self.tune, of=told["adapted"])
        told["students"] = {name: self.student(name) for name in STUDENTS if name in students}
        return told

    def once(self, name: str, work: Callable[[], dict[str, Any]], **depends: Any) -> dict[str, Any]:
        """What `work` says, from the cache if it was said before of the same `depends`."""
        file = self.place(name) / f"{name}.json"
        if file.is_file():
            kept = json.loads(file.read_text("utf-8"))
            if kept["depends"] == json.loads(json.dumps(depends)):
                return kept["says"]
        logging.info("%s, %d labelled, seed %d: %s", self.real.name, self.shots, self.seed, name)
        started = (time.process_time(), time.monotonic())
        says = work()
        says |= {"processor_minutes": (time.process_time() - started[0]) / 60, "minutes": (time.monotonic() - started[1]) / 60}
        write_json(file, {"depends": depends, "says": says})
        return json.loads(json.dumps(says))

    def place(self, name: str) -> Path:
        """Where a step keeps its files: what does not depend on the number of labelled images is done once a set."""
        home = self.home.with_name(f"all-{self.seed}") if name == "student-d" else self.home
        home.mkdir(parents=True, exist_ok=True)
        return home

    def adapt(self) -> dict[str, Any]:
        """Adapted weights; everything in these sets was seen from above, so quarter turns are learnt too."""
        done = adapt_weights(
            self.real.images, self.truth["labelled"], self.real.ontology, self.home / "weights",
            steps=self.settings.steps, seed=self.seed, turns=True, device="cpu", offline=True,
        )  # fmt: skip
        side = done.recipe["shorter_side_px"]
        return {"held_out": dict(done.figures), "steps": done.steps, "side": side, "weights": _digest(self.home / "weights")}

    def teacher(self, name: str, detector: str) -> dict[str, Any]:
        """Show the labelled images and the pool to a detector; its labels of the pool at the default thresholds, and its AP."""
        config = LabelConfig(
            see=SeeConfig(detector=detector, masks="none", floor=self.settings.floor),
            run=RunConfig(device="cpu", offline=True),
        )
        shutil.rmtree(self.home / name, ignore_errors=True)  # of other weights
        wanted = {image["file_name"] for image in self.real.labelled + self.real.pool}
        seen = pipeline.see(
            self.real.images, self.real.ontology, self.home / name, config,
            only=lambda found: [image for image in found if image.id in wanted],
        )  # fmt: skip
        return self.measured(seen.run, self.real.ontology, DecideConfig())

    def tune(self) -> dict[str, Any]:
        """Tune on the labelled images, and learn from them which labels to trust."""
        run = self.home / "adapted" / "run"
        pipeline.redecide(run, DecideConfig(), self.real.ontology)
        tuned = tune(run, self.truth["labelled"], out=self.home / "tuned.yaml")
        told = self.measured(run, tuned.ontology, tuned.decide)  # decides the run anew, as the next two lines need it
        assess(run, self.truth["labelled"], trust=self.settings.trust)
        told["evidence"], told["settings"] = list(tuned.evidence), tuned.decide.model_dump(mode="json")
        return told

    def measured(self, run: Path, words: Ontology, decide: DecideConfig) -> dict[str, Any]:
        """AP over every candidate, and precision and recall at the thresholds; leaves the run decided at the thresholds."""
        everything = replace(words, classes=tuple(replace(spec, box_threshold=0.0) for spec in words.classes))
        pipeline.redecide(run, decide.model_copy(update=RANKED), everything)
        told = self._ap(_labels(run), self.real.ontology.class_names, "pool")
        pipeline.redecide(run, decide, words)
        point = evaluate_labels(_only(_labels(run), self.truth["pool"]), words.class_names, self.truth["pool"]).operating_point
        return {**told, **{name: point[name] for name in ("precision", "recall", "f1")}}

    def student(self, name: str) -> dict[str, Any]:
        """Train the student on one of the four, and measure it on the test part and, for (a), on the pool."""
        rows = self.rows(name)
        settings = {"epochs": self.epochs, "imgsz": self.settings.imgsz}
        return self.once(f"student-{name}", lambda: self._student(name, rows), settings=settings, rows=_digest_of_rows(rows))

    def rows(self, name: str) -> list[DatasetImage]:
        """What the student of this name learns from."""
        rows = human_rows(self.truth["labelled" if name in "abc" else "human"], self.real.ontology.class_names)
        if name in "bc":
            run, own = self.home / "adapted" / "run", {row.name for row in rows}
            decide, _ = pipeline.last_settings(run)
            pipeline.redecide(run, decide.model_copy(update={"trust": self.settings.trust if name == "c" else 0.0}))
            rows += [row for row in _labels(run) if row.name not in own]
        return rows

    def _student(self, name: str, rows: Sequence[DatasetImage]) -> dict[str, Any]:
        home = self.place(f"student-{name}")
        dataset = write_yolo(home / f"dataset-{name}", self.real.images, rows, self.real.ontology.class_names)
        trained = UltralyticsTarget("yolov8n.yaml", offline=True).train(
            dataset, out=home / f"student-{name}", epochs=self.epochs, imgsz=self.settings.imgsz, batch=8, seed=self.seed,
            device="cpu", val=False,
        )  # fmt: skip
        says: dict[str, Any] = {"epochs": self.epochs, "images": len(rows), "labels": sum(len(row.class_id) for row in rows)}
        says["test"] = self._student_ap(trained.weights, "test")
        if name == "a":
            says["pool"] = self._student_ap(trained.weights, "pool")
        return says

    def _student_ap(self, weights: Path, part: str) -> dict[str, Any]:
        files = [self.real.images / image["file_name"] for image in getattr(self.real, part)]
        names = self.real.ontology.class_names
        rows = [
            DatasetImage(
                None, seen.image, "train", seen.width, seen.height,
                np.array([names.index(of) for of in seen.class_names], np.int32), seen.xyxy, None, seen.scores,
            )
            for seen in predict_folder(weights, files, imgsz=self.settings.imgsz, device="cpu")
        ]  # fmt: skip
        return self._ap(rows, names, part)

    def _ap(self, rows: Sequence[DatasetImage], names: Sequence[str], part: str) -> dict[str, Any]:
        joined = join(_only(rows, self.truth[part]), names, self.truth[part])
        overall = average_precision(joined.pairs, joined.known, "box")
        draws = average_precision_draws(joined.pairs, joined.known, "box", DRAWS)
        between = {name: np.nanpercentile([one[name] for one in draws], INTERVAL).tolist() for name in ("AP50", "AP")}
        classes = {joined.class_names[place]: one["AP50"] for place, one in enumerate(overall.per_class)}
        return {"AP50": overall.overall["AP50"], "AP": overall.overall["AP"], "between": between, "classes": classes}


def _labels(run: Path) -> list[DatasetImage]:
    """The images of a run with their labels, without those that wait for review."""
    return [
        DatasetImage(
            image.path, image.id, "train", image.width, image.height, labels.class_id, labels.xyxy, None, labels.score
        )
        for image, labels in pipeline.decided_labels(run)[1]
        if labels.state is not State.REVIEW
    ]  # fmt: skip


def _only(rows: Sequence[DatasetImage], truth: Path) -> list[DatasetImage]:
    names = {image["file_name"] for image in json.loads(truth.read_text("utf-8"))["images"]}
    return [row for row in rows if row.name in names]


def _digest_of_rows(rows: Sequence[DatasetImage]) -> str:
    total = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.name):
        total.update(row.name.encode() + row.class_id.tobytes() + row.xyxy.tobytes())
    return total.hexdigest()


def _digest(weights: Path) -> str:
    return hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/real"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--shots", nargs="+", type=int, default=sorted(SHOTS, reverse=True))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="write the page here, from all that the cache holds of these")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--students", default=STUDENTS, help="those to train; `a` alone takes minutes")
    parser.add_argument("--quick", action="store_true", help="fruits_nuts with 10 labelled images, trained for minutes")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.quick:
        args.sets, args.shots, args.seeds = ["fruits_nuts"], [10], [0]
    told = []
    for seed in args.seeds:
        for shots in args.shots:
            for name in args.sets:
                real = read_set(args.data / name, shots, seed)
                if real is not None:
                    told.append(Cell(real, seed, QUICK if args.quick else Settings(), args.cache).figures(args.students))
    if args.json:
        write_json(args.json, told)
    text = page(told)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
