"""The segmenter's mask decoder learns the masks of the labelled images; its image encoder, which costs, looks once at each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.adapt.learning import descend, follow
from autodistill_grounded_sam.adapt.loss import mask_loss
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.loading import quiet_loading
from autodistill_grounded_sam.masks import decode_mask, mask_iou
from autodistill_grounded_sam.segment.sam import Sam, fitted_size, square_pixels
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

BOXES = 16  # of an image and step
JITTERS = (0.0, 0.03, 0.08)  # of a box, as shares of its sides: a detector's boxes are not a person's
STEPS_AN_IMAGE, MOST_STEPS = 40, 2000
LEARNING_RATE = 5e-4  # 40 steps on three images of another kind of mask: IoU 0.39 to 0.49; with 1e-4 it did not move
LOOKS = 6


class Seen(NamedTuple):
    """What the frozen encoder saw of one image, as it is or mirrored: `embedding` (1, c, g, g); `boxes` (n, 4) in pixels of the
    padded square; `truth` (n, low, low), the share of each cell of the mask grid that the object covers."""

    embedding: Tensor
    boxes: Tensor
    truth: Tensor


def masked(examples: Sequence[Example]) -> list[Example]:
    """Those of which every label has a mask, and that have one."""
    return [example for example in examples if example.rle]


def train_masks(
    model: Any,
    learn: Sequence[Example],
    held: Sequence[Example],
    *,
    steps: int | None,
    seed: int,
    device: str,
    on_look: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> tuple[Any, list[tuple[int, dict[str, float]]]]:
    """The model with the decoder that cuts the held-out objects out best (the parent's own, if none is better), and the looks.

    `steps` None: by the number of images. Without held-out masks the last decoder is kept.
    """
    model = model.to(device).eval()
    seen = [
        view
        for example in learn
        for view in see(model, read_image(example.path), example.xyxy, np.stack([*map(decode_mask, example.rle or ())]), device)
    ]
    planned = min(steps or MOST_STEPS, MOST_STEPS, STEPS_AN_IMAGE * len(learn))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    decoder = model.mask_decoder.requires_grad_(True)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    mean, best = copy.deepcopy(decoder), copy.deepcopy(decoder)
    looks: list[tuple[int, dict[str, float]]] = []
    for step in range(planned + 1):
        if step % max(1, planned // LOOKS) == 0 or step == planned:
            model.mask_decoder = mean
            looks.append((step, {"mask_iou": held_iou(model, held, device)} if held else {}))
            model.mask_decoder = decoder
            if not held or looks[-1][1]["mask_iou"] >= max(figures["mask_iou"] for _, figures in looks):
                best.load_state_dict(mean.state_dict())
            if on_look is not None and held:
                on_look(step, planned, looks[-1][1])
        if step < planned:
            rng = np.random.default_rng((seed, step))
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / 20) * (1 - step / planned)
            descend(optimiser, _loss(model, seen[int(rng.integers(len(seen)))], rng))
            follow(mean, decoder, min(0.99, (1 + step) / (10 + step)))
    model.mask_decoder = best
    return model, looks


def held_iou(model: Any, held: Sequence[Example], device: str) -> float:
    """Mean IoU of the masks that the segmenter makes from the boxes that people drew, over all objects."""
    segmenter, values = Sam("adapting", device=device, loaded=model), []
    for example in held:
        asked = Candidates(example.xyxy, np.ones((len(example.xyxy), 1), np.float32))
        (found,) = segmenter.segment([read_image(example.path)], [asked])
        values += [mask_iou(ours, truth) for ours, truth in zip(found.rle or (), example.rle or (), strict=True)]
    return float(np.mean(values))


def save_segmenter(model: Any, folder: Path, dtype: str) -> None:
    """Write a transformers folder, for `--segmenter`."""
    from transformers import SamImageProcessor, SamProcessor

    side, low = model.config.vision_config.image_size, 4 * model.prompt_encoder.image_embedding_size[0]
    images = SamImageProcessor(
        size={"longest_edge": side}, mask_size={"longest_edge": low},
        pad_size={"height": side, "width": side}, mask_pad_size={"height": low, "width": low},
    )  # fmt: skip
    with quiet_loading():
        model.to("cpu", getattr(torch, dtype)).save_pretrained(folder)
    SamProcessor(images).save_pretrained(folder)


def see(model: Any, image: RgbImage, xyxy: Float32, masks: npt.NDArray[Any], device: str) -> list[Seen]:
    """An image with boxes (n, 4) and masks (n, height, width), as it is and mirrored."""
    side = model.config.vision_config.image_size
    height, width = fitted_size(image.shape[0], image.shape[1], side)
    boxes = xyxy * (np.array([width, height] * 2, np.float32) / np.array([image.shape[1], image.shape[0]] * 2, np.float32))
    turned = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    views = []
    for pixels, own, truth in ((image, boxes, masks), (image[:, ::-1], turned, masks[:, :, ::-1])):
        with torch.inference_mode():
            square = torch.from_numpy(square_pixels(np.ascontiguousarray(pixels), side))[None].to(device)
            embedding = model.vision_encoder(square).last_hidden_state
        low = 4 * embedding.shape[-1]
        grid = (max(1, round(low * height / side)), max(1, round(low * width / side)))
        shares = interpolate(torch.from_numpy(truth.astype(np.float32))[:, None], grid, mode="area")[:, 0]
        shares = pad(shares, (0, low - grid[1], 0, low - grid[0]))
        views.append(Seen(embedding.clone(), torch.from_numpy(own.astype(np.float32)), shares))
    return views


def _loss(model: Any, seen: Seen, rng: np.random.Generator) -> Tensor:
    picks = rng.permutation(len(seen.boxes))[:BOXES]
    boxes = seen.boxes[picks]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    jitter = rng.uniform(-1, 1, tuple(boxes.shape)) * rng.choice(JITTERS, (len(picks), 1))
    device = seen.embedding.device
    asked = (boxes + torch.from_numpy(jitter.astype(np.float32)) * sides).to(device)[None]
    answer = model(image_embeddings=seen.embedding, input_boxes=asked, multimask_output=False)
    return mask_loss(answer.pred_masks[0, :, 0], answer.iou_scores[0, :, 0], seen.truth[picks].to(device))
