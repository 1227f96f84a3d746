"""How long it takes to decide 10,000 images anew from what was seen: `grounded-sam decide RUN --box-threshold 0.3 --json`.

The store is made up but written by the real StoreWriter: 640x480 images, 12 candidates on average and up to 100, 20 prompts,
each object seen one to four times, masks with wavy outlines of which a third have specks or pinholes. The command runs in a
process of its own; what it imported and its largest memory are told by that process. Seconds are on the wall, start of
Python and imports included; `processor_seconds` do not depend on what else the machine is doing.

    python -m benchmarks.decide_10k --out decide_10k.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import Candidates, Float32, ImageRecord, Mask, Rle, Sighting, Status
from benchmarks.made_up_store import build_once, draw_blob, write_store

WIDTH, HEIGHT = 640, 480
ONTOLOGY = Ontology(
    tuple(ClassSpec(f"class {n}", (f"thing {n}", f"other word {n}")) for n in range(8)),
    negatives=("wall", "floor", "sky", "shadow"),
    exclusive=(("class 0", "class 1"),),
)

# The console script's own entry point, with a line about itself at the end.
WATCHED = """
import atexit, json, resource, sys
def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({"torch", "transformers", "ultralytics", "supervision", "autodistill", "cv2"} & set(sys.modules))
    facts = {"heavy_imports": heavy, "processor_seconds": used.ru_utime + used.ru_stime, "peak_rss": used.ru_maxrss}
    print("\\n" + json.dumps(facts), file=sys.stderr)
atexit.register(tell)
from autodistill_grounded_sam.cli import main
main()
"""


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=10_000)
    flags.add_argument("--store", type=Path, help="keep the store in this folder, and use it if it is there")
    flags.add_argument("--out", type=Path, help="the JSON file to write")
    wanted = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = (wanted.store or Path(temporary)) / "run"
        facts = {**build_once(run, wanted.images, lambda: build(run, wanted.images)), **measure(run)}
    show(facts)
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def build(run: Path, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = [ImageRecord(f"{n:06d}.jpg", f"{n:064x}", Path("/pictures"), WIDTH, HEIGHT) for n in range(count)]
    return {
        "candidates": write_store(run, ONTOLOGY, images, lambda place: Sighting(images[place], Status.SEEN, see(rng), dhash=0))
    }


def see(rng: np.random.Generator) -> Candidates:
    """What models might see in one image: a few objects, each one to four times, and now and then a herd around them."""
    wanted = min(round(rng.gamma(0.8, 15)), 100)
    boxes: list[Float32] = []
    scores: list[Float32] = []
    rle: list[Rle] = []
    for radius, centre, likely in _objects(rng):
        for _ in range(rng.integers(1, 5)):
            if len(boxes) == wanted:
                return _candidates(boxes, scores, rle)
            mask = paint(rng, centre + rng.normal(0, radius * 0.04, 2), radius * rng.uniform(0.92, 1.08))
            y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes.append(np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float32))
            scores.append(_scores(rng, likely))
            rle.append(encode_mask(mask))
    raise AssertionError("the stream of objects never ends")


def _objects(rng: np.random.Generator) -> Iterator[tuple[float, Any, int]]:
    while True:
        centre = rng.uniform([40, 40], [WIDTH - 40, HEIGHT - 40])
        yield float(np.exp(rng.uniform(np.log(12), np.log(160)))), centre, int(rng.integers(len(ONTOLOGY.prompts)))


def _candidates(boxes: list[Float32], scores: list[Float32], rle: list[Rle]) -> Candidates:
    prompts = len(ONTOLOGY.prompts)
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32).reshape(-1, prompts),
        tuple(rle),
        np.full(len(boxes), 0.9, np.float32),
    )


def _scores(rng: np.random.Generator, likely: int) -> Float32:
    """Most prompts score next to nothing, the likely one mostly above the floor of 0.1."""
    scores = rng.beta(0.4, 12, len(ONTOLOGY.prompts))
    scores[likely] = 0.1 + 0.85 * rng.beta(1.2, 2.2)
    return scores.astype(np.float32)


def paint(rng: np.random.Generator, centre: Any, radius: float) -> Mask:
    """A blob with a wavy outline of 64 corners, cut at the image's edge; one in three has specks beside it and pinholes."""
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(canvas)
    draw_blob(draw, rng, centre, radius, corners=64, flattest=0.5)
    if rng.random() < 1 / 3:
        for ink, spread in ((0, 0.4), (0, 0.4), (1, 1.1), (1, 1.1)):
            x, y = centre + rng.normal(0, radius * spread, 2)
            size = rng.uniform(0.5, max(radius * 0.05, 1))
            draw.ellipse([x - size, y - size, x + size, y + size], fill=ink)
    draw.point([(float(np.clip(centre[0], 0, WIDTH - 1)), float(np.clip(centre[1], 0, HEIGHT - 1)))], fill=1)  # never empty
    return np.asarray(canvas, np.bool_)


def measure(run: Path) -> dict[str, Any]:
    """Run the command once and gather what it and the machine say."""
    load = os.getloadavg()[0]
    command = ["decide", str(run), "--box-threshold", "0.3", "--json"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WATCHED, *command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    told = json.loads(done.stderr.strip().splitlines()[-1])
    summary = json.loads(done.stdout)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        "labels": sum(summary["per_class"].values()),
        "seconds": round(seconds, 2),
        "processor_seconds": round(told["processor_seconds"], 2),
        "torch_imported": "torch" in told["heavy_imports"],
        "heavy_imports": told["heavy_imports"],
        "peak_rss_mb": round(told["peak_rss"] * unit / 1e6),
        "command": f"grounded-sam {' '.join(command)}",
        "processors": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
    }


def show(facts: dict[str, Any]) -> None:
    rows = {
        "images": f"{facts['images']:,}",
        "candidates": f"{facts['candidates']:,}",
        "labels": f"{facts['labels']:,}",
        "seconds": f"{facts['seconds']:.2f} (processor: {facts['processor_seconds']:.2f})",
        "images/s": f"{facts['images'] / facts['seconds']:,.0f}",
        "torch imported": "yes" if facts["torch_imported"] else "no",
        "peak memory": f"{facts['peak_rss_mb']} MB",
        "machine": f"{facts['processors']} processors, load {facts['load_before']} before the run",
    }
    for name, value in rows.items():
        print(f"{name:<16}{value}")


if __name__ == "__main__":
    main()
