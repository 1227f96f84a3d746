"""What a segmenter makes of true boxes, and what its other guess of a mask brings.

    python benchmarks/masks_from_boxes.py mini mini:best-of-three ellipse grabcut --data ../shared/data --sets nuclei fruits_nuts

Mean IoU over all objects of painted scenes, and of photographs with masks that people drew. The gain is that over the first
segmenter, with a 95 % interval from drawing images anew. The three guesses of `mini` were never trained: it refuses them in a
run, and here they show what that looks like.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.masks import encode_mask, mask_iou
from autodistill_grounded_sam.painting import FRESH_SETTINGS, paint_scene
from autodistill_grounded_sam.protocols import Segmenter
from autodistill_grounded_sam.segment.models import load
from autodistill_grounded_sam.segment.sam import Sam
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage, Rle

SEED = 3_000_000  # of scenes that no training painted
Labelled = tuple[RgbImage, Float32, list[Rle]]  # an image, true boxes and true masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "segmenters", nargs="+", help="names, each with :best-of-three or :hq-only if not the single answer is meant"
    )
    parser.add_argument("--data", type=Path, help="folders of images/ and annotations.json")
    parser.add_argument("--sets", nargs="*", default=[])
    parser.add_argument("--images", type=int, default=100, help="of each set at most")
    args = parser.parse_args()
    segmenters = {name: built(name) for name in args.segmenters}
    facts = {"painted scenes": measured(segmenters, painted(args.images))}
    for name in args.sets:
        facts[name] = measured(segmenters, photographs(args.data / name, args.images))
    print(json.dumps(facts, indent=2))


def built(name: str) -> Segmenter:
    name, _, guess = name.partition(":")
    if guess:
        return Sam(name, mask_guess=guess, loaded=load(name))  # type: ignore[arg-type]
    return plugins.load("segmenters", name, offline=True)  # type: ignore[no-any-return]


def painted(count: int) -> Iterator[Labelled]:
    for number in range(count):
        scene = paint_scene(FRESH_SETTINGS, SEED + number)
        boxes = np.array([thing.xyxy for thing in scene.objects], np.float32).reshape(-1, 4)
        yield scene.image_rgb, boxes, [encode_mask(thing.mask) for thing in scene.objects]


def photographs(home: Path, count: int) -> Iterator[Labelled]:
    for number, image in enumerate(read_coco(home / "annotations.json")):
        if number == count:
            return
        yield read_image(home / "images" / image.name), image.xyxy, list(image.rle or ())


def measured(segmenters: Mapping[str, Segmenter], labelled: Iterator[Labelled]) -> dict[str, Any]:
    images: list[np.ndarray] = []  # of each image the IoU (objects, segmenters)
    for image, boxes, truth in labelled:
        asked = Candidates(boxes, np.ones((len(boxes), 1), np.float32))
        found = [segmenter.segment([image], [asked])[0].rle or () for segmenter in segmenters.values()]
        if truth:
            images.append(np.array([[mask_iou(mask, true) for mask, true in zip(own, truth, strict=True)] for own in found]).T)
    rng = np.random.default_rng(0)
    draws = [np.concatenate([images[k] for k in rng.integers(len(images), size=len(images))]).mean(axis=0) for _ in range(1000)]
    low, high = np.quantile(np.array(draws) - np.array(draws)[:, :1], [0.025, 0.975], axis=0).round(4)
    means = np.concatenate(images).mean(axis=0)
    facts: dict[str, Any] = {"images": len(images), "objects": sum(map(len, images))}
    for column, name in enumerate(segmenters):
        facts[name] = {"mean IoU": round(float(means[column]), 4), "gain": [float(low[column]), float(high[column])]}
    return facts


if __name__ == "__main__":
    main()
