"""Makes the shipped mini weights from nothing: paint, teach, write. `python -m tools.mini.train --out FOLDER`.

Detector and segmenter learn side by side, each on one core, each in legs: small pictures first, then larger ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from autodistill_grounded_sam.painting import FRESH_SETTINGS
from tools.mini.backbone import train_backbone
from tools.mini.data import SETTINGS, Batch, Scenes, painted
from tools.mini.detector import detector_legs, new_detector, save_detector, train_detector
from tools.mini.segmenter import enlarged, learn_outlines, new_segmenter, save_segmenter, segmenter_legs, train_segmenter
from tools.mini.text import build_tokenizer

HELD_SEED, HELD_SCENES = 900_000, 120  # looked at while training; `measure` uses others


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on beside the code: minutes are of processor time, so another processor sees other steps."""

    seed: int = 20261124
    scenes: int = 12_000
    backbone_minutes: float = 10.0
    detector_minutes: float = 65.0
    detector_sharp_minutes: float = 55.0
    outlines_minutes: float = 8.0
    segmenter_minutes: float = 40.0
    segmenter_sharp_minutes: float = 65.0
    segmenter_fine_minutes: float = 45.0


def held_batch(scenes: Scenes) -> Batch:
    pixels = torch.from_numpy(scenes.images.copy()).permute(0, 3, 1, 2).float().div_(255)
    return Batch(pixels, torch.from_numpy(scenes.index.copy()), scenes.pairs.astype("int64"), scenes.boxes)


def teach_detector(recipe: Recipe, cache: Path, out: Path) -> None:
    torch.set_num_threads(1)
    scenes = painted(cache, recipe.scenes, recipe.seed)
    held = held_batch(painted(cache, HELD_SCENES, HELD_SEED, FRESH_SETTINGS))
    tokenizer = build_tokenizer(cache / "words")
    backbone, states = cache / "backbone.pt", (cache / "detector-small.pt", cache / "detector.pt")
    if not backbone.exists():
        train_backbone(scenes, recipe.backbone_minutes, cache / "backbone-partial.pt", recipe.seed)
        (cache / "backbone-partial.pt").rename(backbone)
    torch.manual_seed(recipe.seed)
    model = new_detector(backbone)
    legs = detector_legs(recipe.detector_minutes, recipe.detector_sharp_minutes)
    for k, (leg, state) in enumerate(zip(legs, states, strict=True)):
        if not state.exists():
            train_detector(model, scenes, tokenizer, leg, cache / "detector-partial.pt", recipe.seed + k, held)
            (cache / "detector-partial.pt").rename(state)
        model.load_state_dict(torch.load(state, weights_only=True))
    save_detector(states[-1], tokenizer, out / "detector")


def teach_segmenter(recipe: Recipe, cache: Path, out: Path) -> None:
    torch.set_num_threads(1)
    scenes = painted(cache, recipe.scenes, recipe.seed)
    held = painted(cache, HELD_SCENES, HELD_SEED, FRESH_SETTINGS)
    torch.manual_seed(recipe.seed)
    legs = segmenter_legs(recipe.segmenter_minutes, recipe.segmenter_sharp_minutes, recipe.segmenter_fine_minutes)
    states = (cache / "segmenter-small.pt", cache / "segmenter-sharp.pt", cache / "segmenter.pt")
    model = new_segmenter(legs[0].image_px)
    if not states[0].exists():
        learn_outlines(model, scenes, recipe.outlines_minutes, recipe.seed + 2)
    for k, (leg, state) in enumerate(zip(legs, states, strict=True)):
        model = enlarged(model, leg.image_px)
        if not state.exists():
            train_segmenter(model, scenes, leg, cache / "segmenter-partial.pt", recipe.seed + k, held)
            (cache / "segmenter-partial.pt").rename(state)
        model.load_state_dict(torch.load(state, weights_only=True))
    save_segmenter(states[-1], out / "segmenter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="gets detector/, segmenter/ and recipe.json")
    parser.add_argument("--cache", type=Path, default=Path(".cache/mini"), help="painted scenes and unfinished weights")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    out, cache = given.pop("out"), given.pop("cache")
    recipe = Recipe(**given)
    started = time.time()
    painted(cache, recipe.scenes, recipe.seed, SETTINGS)
    painted(cache, HELD_SCENES, HELD_SEED, FRESH_SETTINGS)
    print(f"painted after {time.time() - started:.0f} s", flush=True)
    context = multiprocessing.get_context("spawn")
    lessons = [context.Process(target=lesson, args=(recipe, cache, out)) for lesson in (teach_detector, teach_segmenter)]
    for lesson in lessons:
        lesson.start()
    for lesson in lessons:
        lesson.join()
    if any(lesson.exitcode for lesson in lessons):
        raise SystemExit("a lesson failed; see above")
    facts = asdict(recipe) | {package: version(package) for package in ("torch", "transformers", "numpy")}
    (out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
