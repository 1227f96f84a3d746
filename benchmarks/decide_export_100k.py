"""Decide and export 100,000 stored images of ten candidates each, as YOLO segments: time by stage, memory, number of labels.

    python -m benchmarks.decide_export_100k --out decide_export_100k.json
    python -m benchmarks.decide_export_100k --images 2000 --store /tmp/some_store   # a hundredth, the store kept

The store is made up but written by the real StoreWriter, beside real JPEGs of 64x48 to 160x120 pixels. Of ten candidates four are
second looks at an object or score too low, the others become labels; masks have wavy outlines, and a fifth of them specks or
pinholes. Deciding and exporting run in one process of their own, from nothing (imports included). Its processor seconds do not
depend on what else the machine is doing. Where a dataset was deleted on an ext4 disk within the last half minute, new files cost
ten times as much: wait before running it again with the same --store.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import Candidates, ImageRecord, Mask, Sighting, Status
from benchmarks.made_up_store import build_once, draw_blob, write_store

CANDIDATES = 10
SECOND_LOOKS, WEAK = 2, 2  # of the candidates: an object seen once more, and one that scores below every threshold
SIZES_WH = ((64, 48), (96, 72), (128, 96), (160, 120), (48, 64))
ONTOLOGY = Ontology(
    tuple(ClassSpec(f"class {n}", (f"thing {n}",)) for n in range(8)),
    negatives=("wall", "floor"),
    exclusive=(("class 0", "class 1"),),
)
MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
from autodistill_grounded_sam.config import DecideConfig, ExportConfig
from autodistill_grounded_sam.pipeline import redecide
summary = redecide(sys.argv[1], DecideConfig(), export=ExportConfig(formats=(sys.argv[2],)))
seconds = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_SELF)
unit = 1 if sys.platform == "darwin" else 1024
dataset = summary.datasets[0]
print(json.dumps({
    "labels": dataset.labels, "written": dict(dataset.images), "round_trip_iou": dataset.round_trip_iou,
    "lowest_iou": dataset.lowest_iou, "notes": list(dataset.notes), "seconds": seconds, "stages": dict(summary.stages),
    "processor_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss * unit / 1e6,
}))
"""


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=100_000)
    flags.add_argument("--format", default="yolo-seg")
    flags.add_argument("--store", type=Path, help="keep the images and the store in this folder, and use them if they are there")
    flags.add_argument("--out", type=Path, help="the JSON file to write")
    wanted = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.store or Path(temporary)
        build_once(folder, wanted.images, lambda: build(folder, wanted.images))
        facts = measure(folder / "out", wanted.images, wanted.format)
    show(facts)
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def build(folder: Path, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    root = folder / "images"
    root.mkdir(parents=True)
    images = [write_image(rng, root, number) for number in range(count)]
    hashes = rng.integers(0, 2**63, count)

    def seen(place: int) -> Sighting:
        return Sighting(images[place], Status.SEEN, see(rng, images[place]), dhash=int(hashes[place]))

    return {"candidates": write_store(folder / "out" / "run", ONTOLOGY, images, seen)}


def write_image(rng: np.random.Generator, root: Path, number: int) -> ImageRecord:
    """A small JPEG of soft noise, no two alike."""
    width, height = SIZES_WH[number % len(SIZES_WH)]
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(file, "JPEG", quality=90)
    name = f"{number:06d}.jpg"
    (root / name).write_bytes(file.getvalue())
    return ImageRecord(name, hashlib.sha256(file.getvalue()).hexdigest(), root, width, height)


def see(rng: np.random.Generator, image: ImageRecord) -> Candidates:
    """What models might see in one image: objects of all sizes that it can hold, two of them twice, two hardly at all."""
    masks, scores = [], rng.beta(0.4, 12, (CANDIDATES, len(ONTOLOGY.prompts))).astype(np.float32)
    size = np.array([image.width, image.height])
    likely = rng.permutation(np.arange(CANDIDATES) % len(ONTOLOGY.class_names))
    objects = [(rng.uniform(0, 1, 2) * size, size.min() * np.exp(rng.uniform(np.log(0.06), np.log(0.5)))) for _ in likely]
    for number in range(CANDIDATES):
        at = number - SECOND_LOOKS if number >= CANDIDATES - SECOND_LOOKS else number
        centre, radius = objects[at]
        masks.append(paint(rng, image.width, image.height, centre + rng.normal(0, radius * 0.03, 2), radius))
        is_weak = number < WEAK
        scores[number, likely[at]] = 0.15 if is_weak else rng.uniform(0.45, 0.95)
    rle = tuple(encode_mask(mask) for mask in masks)
    return Candidates(boxes_xyxy(rle), scores, rle, np.full(CANDIDATES, 0.9, np.float32))


def paint(rng: np.random.Generator, width: int, height: int, centre: Any, radius: float) -> Mask:
    """A blob with a wavy outline, cut at the image's edge; one in five has a speck beside it and a pinhole."""
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw_blob(draw, rng, centre, radius, corners=48, flattest=0.6)
    if rng.random() < 1 / 5:
        for ink, spread in ((0, 0.3), (1, 1.3)):
            draw.point([tuple((centre + rng.normal(0, radius * spread, 2)).tolist())], fill=ink)
    draw.point([(float(np.clip(centre[0], 0, width - 1)), float(np.clip(centre[1], 0, height - 1)))], fill=1)  # never empty
    return np.asarray(canvas, np.bool_)


def measure(out: Path, count: int, format_: str) -> dict[str, Any]:
    """Run it once, and gather what the process and the machine say."""
    load, started = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(out / "run"), format_], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"the measured process failed:\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        "images": count,
        "candidates": count * CANDIDATES,
        **told,
        "seconds": seconds,
        "core_ms_a_candidate": 1000 * told["processor_seconds"] / (count * CANDIDATES),
        "processors": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
    }


def show(facts: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in facts["stages"].items())
    rows = {
        "images": f"{facts['images']:,}",
        "candidates": f"{facts['candidates']:,}",
        "labels": f"{facts['labels']:,}",
        "round trip": f"IoU {facts['round_trip_iou']:.4f}, lowest {facts['lowest_iou']:.3f}" if facts["round_trip_iou"] else "-",
        "seconds": f"{facts['seconds']:.1f} ({stages})",
        "processor": f"{facts['processor_seconds']:.1f} s, {facts['core_ms_a_candidate']:.3f} ms a candidate",
        "peak memory": f"{facts['peak_mb']:.0f} MB",
        "machine": f"{facts['processors']} processors, load {facts['load_before']} before the run",
        "notes": "; ".join(facts["notes"]),
    }
    for name, value in rows.items():
        print(f"{name:<16}{value}")


if __name__ == "__main__":
    main()
