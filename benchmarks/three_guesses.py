"""What `best-of-three` brings once a segmenter has learnt three guesses: `mini`, on painted scenes, with guesses trained here.

    python -m benchmarks.three_guesses --scenes 300 --steps 3000

`mini` as shipped has learnt its single answer alone. Here its three further masks begin as copies of that one and learn as SAM's
did: of each object's three losses the least counts (the others a tenth), and each guess learns to say its own IoU. All else is
frozen, so the single answer stays that of the shipped weights. Boxes are true ones, and ones whose sides are off by up to a share
of the box, as a detector's are.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch

from autodistill_grounded_sam.adapt.loss import mask_loss
from autodistill_grounded_sam.adapt.mask_training import Seen, see
from autodistill_grounded_sam.masks import mask_iou
from autodistill_grounded_sam.painting import FRESH_SETTINGS, paint_scene
from autodistill_grounded_sam.segment.models import load
from autodistill_grounded_sam.segment.sam import Sam
from autodistill_grounded_sam.types import Candidates, Float32
from benchmarks.masks_from_boxes import painted

LEARN = 4_000_000  # the first of the scenes that the guesses learn from
OFF = (0.0, 0.1, 0.2)  # how far a side of a box may be off, as a share of the box
BOXES, DRAWS, LEARNING_RATE = 16, 1000, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300, help="to learn from")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--measure", type=int, default=100, help="scenes that no training painted")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = learnt(load("mini").eval(), seen_scenes(args.scenes), args.steps)
    print(json.dumps({f"sides off by up to {off:.0%}": measured(model, off, args.measure) for off in OFF}, indent=2))


def seen_scenes(count: int) -> list[Seen]:
    model, seen = load("mini").eval(), []
    for number in range(count):
        scene = paint_scene(FRESH_SETTINGS, LEARN + number)
        if scene.objects:
            boxes = np.array([thing.xyxy for thing in scene.objects], np.float32)
            seen += see(model, scene.image_rgb, boxes, np.stack([thing.mask for thing in scene.objects]), "cpu")
    return seen


def learnt(model: Any, seen: list[Seen], steps: int) -> Any:
    """The model with three guesses that have learnt; only the three small nets that draw them and the head that rates change."""
    decoder = model.mask_decoder
    model.requires_grad_(False)
    single, *guesses = decoder.output_hypernetworks_mlps
    for guess in guesses:
        guess.load_state_dict(single.state_dict())
        for parameter in guess.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter) * parameter.std()
    own = [*(one for guess in guesses for one in guess.parameters()), *decoder.iou_prediction_head.parameters()]
    for parameter in own:
        parameter.requires_grad_(True)
    optimiser, rng = torch.optim.AdamW(own, lr=LEARNING_RATE), np.random.default_rng(0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        one = seen[int(rng.integers(len(seen)))]
        picks = rng.permutation(len(one.boxes))[:BOXES]
        asked = torch.from_numpy(moved(one.boxes[picks].numpy(), float(rng.choice(OFF)), rng))[None]
        answer = model(image_embeddings=one.embedding.clone(), input_boxes=asked, multimask_output=True)
        losses = torch.stack(
            [
                torch.stack(
                    [mask_loss(mask[None], rating[None], truth[None]) for mask, rating in zip(masks, ratings, strict=True)]
                )
                for masks, ratings, truth in zip(answer.pred_masks[0], answer.iou_scores[0], one.truth[picks], strict=True)
            ]
        )  # (boxes, 3); a rating's own error is a small part of it, so every guess is rated
        loss = losses.min(dim=1).values.mean() + 0.1 * losses.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 500 == 0:
            print(f"step {step}: {losses.min(dim=1).values.mean():.3f}", file=sys.stderr)
    return model.requires_grad_(False)


def moved(xyxy: Float32, off: float, rng: np.random.Generator) -> Float32:
    """Boxes (n, 4) whose sides are each off by up to a share of the box."""
    sides = np.tile(xyxy[:, 2:] - xyxy[:, :2], 2)
    return (xyxy + rng.uniform(-off, off, xyxy.shape) * sides).astype(np.float32)


def measured(model: Any, off: float, count: int) -> dict[str, Any]:
    """Mean IoU of the single answer, and of the guess that is rated best; gain with a 95 % interval."""
    segmenters = {guess: Sam("three guesses", mask_guess=guess, loaded=model) for guess in ("single", "best-of-three")}
    rng, images = np.random.default_rng(1), []
    for image, boxes, truth in painted(count):
        asked = Candidates(moved(boxes, off, rng), np.ones((len(boxes), 1), np.float32))
        found = [one.segment([image], [asked])[0].rle or () for one in segmenters.values()]
        if truth:
            images.append(np.array([[mask_iou(mask, true) for mask, true in zip(own, truth, strict=True)] for own in found]).T)
    draws = np.array(
        [np.concatenate([images[k] for k in rng.integers(len(images), size=len(images))]).mean(0) for _ in range(DRAWS)]
    )
    single, best = np.concatenate(images).mean(axis=0).round(4).tolist()
    low, high = np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975]).round(4).tolist()
    return {"objects": sum(map(len, images)), "single": single, "best of three": best, "gain": [low, high]}


if __name__ == "__main__":
    main()
