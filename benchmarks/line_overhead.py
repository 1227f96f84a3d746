"""What an image costs beside its models: `label` with instant models, JPEG in, YOLO segments out, store included.

    python benchmarks/line_overhead.py --images 1000 --out line_overhead.json
    python benchmarks/line_overhead.py --images 5000 100000 --width 64 --height 48   # memory at many images

Every image gets ten candidates with masks, six of which become labels. Time and peak memory are of the process that labels;
processor time does not depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Candidates, RgbImage, Rle

CANDIDATES, LABELS = 10, 6
LABEL = """
import json, sys, time
from autodistill_grounded_sam.config import LabelConfig, SeeConfig
from autodistill_grounded_sam.pipeline import label
fake = "benchmarks.line_overhead:Instant"
config = LabelConfig(see=SeeConfig(detector=fake + "Detector", segmenter=fake + "Segmenter"))
started, used = time.perf_counter(), time.process_time()
summary = label(sys.argv[1], {"red circle": "circle", "blue square": "square"}, sys.argv[2], config)
told = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}
told |= {"labels": summary.labels, "stages": dict(summary.stages), "peak_memory_mb": summary.peak_memory_mb}
print(json.dumps(told))
"""


class InstantDetector:
    """The same ten boxes for every image of one size."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [_boxes(image.shape[1], image.shape[0], len(prompts)) for image in images]


class InstantSegmenter:
    """Ellipses in those boxes, drawn once for each size."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Rle, ...]] = {}

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        return [self._segment_one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _segment_one(self, image: RgbImage, found: Candidates) -> Candidates:
        height, width = image.shape[:2]
        if (width, height) not in self._known:
            y, x = np.mgrid[:height, :width] + 0.5
            self._known[width, height] = tuple(
                encode_mask(((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.25)
                for x1, y1, x2, y2 in found.xyxy
            )
        return Candidates(found.xyxy, found.scores, self._known[width, height], np.full(len(found), 0.9, np.float32))


def _boxes(width: int, height: int, prompts: int) -> Candidates:
    column, row = np.arange(CANDIDATES) % 5, np.arange(CANDIDATES) // 5
    boxes = np.stack([column / 5 + 0.01, row / 2 + 0.05, column / 5 + 0.19, row / 2 + 0.45], axis=1)
    scores = np.full((CANDIDATES, prompts), 0.15, np.float32)
    scores[np.arange(LABELS), np.arange(LABELS) % prompts] = np.linspace(0.9, 0.5, LABELS)
    return Candidates((boxes * [width, height, width, height]).astype(np.float32), scores)


def write_images(folder: Path, count: int, width: int, height: int) -> None:
    """Noisy JPEGs of which no two have the same bytes or look alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000])
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for count in args.images:
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder) / "images", count, args.width, args.height)
            command = [sys.executable, "-c", LABEL, f"{folder}/images", f"{folder}/out"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = {"images": count, "width": args.width, "height": args.height, **json.loads(done.stdout)}
        rows.append(row)
        stages = ", ".join(f"{name} {1000 * seconds / count:.2f}" for name, seconds in row["stages"].items())
        print(
            f"{count} images: {1000 * row['seconds'] / count:.2f} ms an image ({stages}), of one processor "
            f"{1000 * row['processor_seconds'] / count:.2f} ms, {row['peak_memory_mb']:.0f} MB at most"
        )
    for first, second in itertools.pairwise(rows):
        grown = 1024 * (second["peak_memory_mb"] - first["peak_memory_mb"]) / (second["images"] - first["images"])
        print(f"from {first['images']} to {second['images']} images: {grown:.3f} KB an image")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
