"""Third lesson: a tiny SAM learns to cut out what stands in a box."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from autodistill_grounded_sam.adapt.learning import descend, follow
from autodistill_grounded_sam.adapt.loss import mask_loss
from autodistill_grounded_sam.segment.decoder import MaskDecoder
from tools.mini.backbone import cell_names
from tools.mini.data import Batch, Scenes, batches

IMAGE_PX, PATCH_PX = 320, 8  # of the shipped segmenter
WIDTH = 128  # of the mask decoder
BOXES = 5  # of each picture
OUTLINES_RATE = 2e-3  # the learning rate of the first lesson
EXTENTS_WEIGHT = 10.0


@dataclass(frozen=True)
class Leg:
    """A stretch of training: `minutes` of processor time on batches of `images` pictures of `image_px`, the learning rate flat
    for the share `flat` and falling then."""

    minutes: float
    image_px: int
    images: int
    learning_rate: float
    flat: float


def segmenter_legs(minutes: float, sharp_minutes: float, fine_minutes: float) -> tuple[Leg, ...]:
    """Small pictures first, of which an hour holds three times as many; then larger ones: edges are no finer than cells."""
    return (
        Leg(minutes, 192, 4, 1e-3, 0.7),
        Leg(sharp_minutes, 256, 8, 1e-3, 0.2),
        Leg(fine_minutes, IMAGE_PX, 8, 8e-4, 0.0),
    )


def segmenter_config(image_px: int = IMAGE_PX) -> SamConfig:
    """Patches of 8 pixels, not 16: the mask grid is then 2 pixels wide, and thin parts survive.

    The decoder makes masks from an eighth of its width. With 64 that is 8 numbers a pixel, too few to tell an object from
    those it overlaps.
    """
    vision = SamVisionConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, mlp_ratio=2.0, mlp_dim=192, image_size=image_px,
        patch_size=PATCH_PX, window_size=8, global_attn_indexes=[1, 3], output_channels=WIDTH, use_rel_pos=False,
        initializer_range=0.02, num_pos_feats=WIDTH // 2,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=image_px, patch_size=PATCH_PX, mask_input_channels=16)
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4, iou_head_hidden_dim=64
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def new_segmenter(image_px: int) -> SamModel:
    """A model ready to learn.

    transformers draws the position code with a deviation of half its width, where the authors use 1: box corners would be a
    hash. Its weights of 0.02 are right for a width of 768; at 96 they leave the masks at zero for a thousand steps. Above all
    its embeddings (which corner, which mask) of 0.02 can hardly be told apart, where the authors draw them from N(0, 1): with
    that, masks come out after 200 steps.
    """
    model = SamModel(segmenter_config(image_px))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    nn.init.normal_(model.shared_image_embedding.positional_embedding)
    return model


def enlarged(model: SamModel, image_px: int) -> SamModel:
    """The same weights for pictures of `image_px`: only the position code of the patches depends on the size."""
    state = model.state_dict()
    position = state["vision_encoder.pos_embed"].permute(0, 3, 1, 2)
    grid = image_px // PATCH_PX
    state["vision_encoder.pos_embed"] = functional.interpolate(position, (grid, grid), mode="bicubic").permute(0, 2, 3, 1)
    larger = SamModel(segmenter_config(image_px))
    larger.load_state_dict(state)
    return larger


def resized(batch: Batch, image_px: int) -> Batch:
    """As SamImageProcessor does it: the longer side to the model's, int(x + 0.5)."""
    scale = image_px / max(batch.pixels.shape[-2:])
    size = tuple(int(side * scale + 0.5) for side in batch.pixels.shape[-2:])
    pixels = functional.interpolate(batch.pixels, size=size, mode="bilinear", antialias=True)
    return Batch(pixels, batch.index, batch.pairs, batch.boxes)


def padded(batch: Batch) -> torch.Tensor:
    pixels = batch.normalised()
    height, width = pixels.shape[-2:]
    side = max(height, width)
    return functional.pad(pixels, (0, side - width, 0, side - height))


def pick_boxes(
    batch: Batch, rng: np.random.Generator, jitters: tuple[float, ...], boxes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (b, k, 4) in input pixels, their truth (b, k, m, m) as shares of grid cells of 2 pixels, and which of the k count
    (b, k)."""
    height, width = batch.pixels.shape[-2:]
    scale = np.array([width, height, width, height], np.float32)
    chosen, truths, valid = [], [], []
    for k in range(len(batch.pixels)):
        present = np.flatnonzero(batch.pairs[k, :, 0] >= 0)
        if not len(present):
            present = np.zeros(1, int)
        weight = 1 + 3 * _overlapped(batch.boxes[k, present])  # lone objects are cut out well early; these take longest
        picks = rng.choice(present, min(boxes, len(present)), replace=False, p=weight / weight.sum())
        valid.append([True] * len(picks) + [False] * (boxes - len(picks)))
        picks = np.resize(picks, boxes)
        box = batch.boxes[k, picks] * scale
        size = np.tile(box[:, 2:] - box[:, :2], 2)
        chosen.append(np.clip(box + rng.uniform(-1, 1, box.shape) * rng.choice(jitters, (boxes, 1)) * size, 0, scale))
        truths.append(batch.index[k][None] == torch.from_numpy(picks + 1)[:, None, None])
    grid, side = mask_grid(batch), max(height, width) // 2
    shares = functional.interpolate(torch.stack(truths).float(), size=grid, mode="area")
    shares = functional.pad(shares, (0, side - grid[1], 0, side - grid[0]))
    return torch.from_numpy(np.stack(chosen).astype(np.float32)), shares, torch.tensor(valid)


def mask_grid(batch: Batch) -> tuple[int, int]:
    """Height and width of the picture in cells of the mask grid, a quarter of a patch wide."""
    height, width = batch.pixels.shape[-2:]
    return round(height * 4 / PATCH_PX), round(width * 4 / PATCH_PX)


def _overlapped(boxes: np.ndarray) -> np.ndarray:
    """(n,) True for boxes that share some area with another."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) > low).all(-1)
    return shared.sum(1) > 1


def learn_outlines(model: SamModel, scenes: Scenes, minutes: float, seed: int) -> None:
    """First the image alone, for `minutes` of processor time: the colour under every cell of the mask grid, ground included.

    It goes through the very layers that make masks (encoder, neck, upscaling), so that they carry outlines before boxes are
    asked about.
    """
    head = nn.Conv2d(WIDTH // 8, 9, 1)
    decoder, parameters = model.mask_decoder, [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=OUTLINES_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    source = batches(scenes, 8, seed)
    start, step, said, losses = time.process_time(), 0, 0.0, []
    while (spent := (time.process_time() - start) / 60) < minutes:
        for group in optimiser.param_groups:
            group["lr"] = OUTLINES_RATE * min(1, (step + 1) / 100) * min(1, (1 - spent / minutes) / 0.6 + 0.05)
        batch = resized(next(source), model.config.vision_config.image_size)
        height, width = mask_grid(batch)
        embeddings = model.vision_encoder(padded(batch)).last_hidden_state
        half = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(embeddings)))
        logits = head(decoder.activation(decoder.upscale_conv2(half)))[..., :height, :width]
        loss = functional.cross_entropy(logits, cell_names(batch, (height, width))[0])
        descend(optimiser, loss)
        losses.append(loss.item())
        step += 1
        if spent - said > 1:
            said = spent
            print(f"outlines {spent:.1f} min, step {step}, loss {np.mean(losses[-100:]):.4f}", flush=True)


def train_segmenter(model: SamModel, scenes: Scenes, leg: Leg, out: Path, seed: int, held: Scenes) -> None:
    """Train `model` for one leg; the running mean of its weights is what is saved to `out`."""
    mean, decoder = copy.deepcopy(model).eval(), MaskDecoder(model)  # of half the cost of transformers' own, same gradients
    extents = nn.Conv2d(WIDTH, 4, 1)
    parameters = [*model.parameters(), *extents.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=leg.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rng = np.random.default_rng(seed)
    source = batches(scenes, leg.images, seed)
    start, step, said, losses = time.process_time(), 0, 0.0, []
    while (spent := (time.process_time() - start) / 60) < leg.minutes:
        share = spent / leg.minutes
        fall = 1 if share < leg.flat else max(0.02, (1 - share) / (1 - leg.flat))
        for group in optimiser.param_groups:
            group["lr"] = leg.learning_rate * min(1, (step + 1) / 150) * fall
        batch = resized(next(source), leg.image_px)
        boxes, truth, valid = pick_boxes(batch, rng, (0.0, 0.03, 0.08), BOXES)
        embeddings = model.vision_encoder(padded(batch)).last_hidden_state
        answers = [
            decoder.decode(decoder.see(embedding), own, "single") for embedding, own in zip(embeddings, boxes, strict=True)
        ]
        masks, guesses = (torch.stack(parts) for parts in zip(*answers, strict=True))
        cut_loss = mask_loss(masks[valid], guesses[valid], truth[valid])
        extents_loss = _extents_loss(extents(embeddings), batch)
        descend(optimiser, cut_loss + EXTENTS_WEIGHT * extents_loss)
        losses.append((cut_loss.item(), extents_loss.item()))
        step += 1
        if step % 4 == 0:
            follow(mean, model, 0.99)
        if spent - said > 2:
            said = spent
            recent = "loss {:.3f}, extents {:.4f}".format(*np.mean(losses[-200:], axis=0))
            print(f"segmenter {spent:.1f} min, step {step}, {recent}, {held_iou(mean, held)}", flush=True)
            torch.save(mean.state_dict(), out)
    print(f"segmenter's leg done after {step} steps, {held_iou(mean, held)}", flush=True)
    torch.save(mean.state_dict(), out)


def _extents_loss(guess: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Training only: every patch tells the box of the object under it, as shares of the padded square (L1 over `guess`
    (b, 4, h, w)). It says which of two overlapping objects a box means."""
    height, width = batch.pixels.shape[-2:]
    grid = (round(height / PATCH_PX), round(width / PATCH_PX))
    index = functional.interpolate(batch.index[:, None].float(), size=grid, mode="nearest-exact")[:, 0].long()
    shares = torch.from_numpy(batch.boxes) * torch.tensor([width, height, width, height]) / max(height, width)
    own = torch.gather(shares, 1, (index - 1).clamp(min=0).flatten(1)[..., None].expand(-1, -1, 4))
    guess = guess[..., : grid[0], : grid[1]].flatten(2).transpose(1, 2)
    return (guess - own).abs()[index.flatten(1) > 0].mean()


@torch.no_grad()
def held_iou(model: SamModel, held: Scenes, count: int = 60) -> str:
    """Mean mask IoU at full resolution from true boxes, and from boxes shaken by 8 %, on scenes of the fresh setting."""
    said, side = [], model.config.vision_config.image_size
    for jitter in (0.0, 0.08):
        rng, values = np.random.default_rng(5), []
        for image, index, pairs, boxes in zip(held.images[:count], held.index, held.pairs, held.boxes, strict=False):
            many = int((pairs[:, 0] >= 0).sum())
            pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
            small = resized(Batch(pixels, pixels, pairs, boxes), side)
            size = small.pixels.shape[-2:]
            inputs = padded(small)
            box = boxes[:many] * np.array([size[1], size[0]] * 2, np.float32)
            box = box + rng.uniform(-jitter, jitter, box.shape) * np.tile(box[:, 2:] - box[:, :2], 2)
            asked = torch.from_numpy(box.astype(np.float32))[None]
            logits = model(pixel_values=inputs, input_boxes=asked, multimask_output=False).pred_masks[0]
            full = functional.interpolate(logits, (side, side), mode="bilinear")[..., : size[0], : size[1]]
            full = functional.interpolate(full, index.shape, mode="bilinear")[:, 0].numpy() > 0
            for k, mask in enumerate(full):
                truth = index == k + 1
                values.append((mask & truth).sum() / max((mask | truth).sum(), 1))
        said.append(f"{np.mean(values):.3f} (over 0.8: {np.mean(np.array(values) > 0.8):.2f})")
    return f"mask IoU from true boxes {said[0]}, from shaken boxes {said[1]}"


def save_segmenter(state: Path, out: Path) -> None:
    """Write a transformers folder in fp16, as `from_pretrained` reads it."""
    model = SamModel(segmenter_config())
    model.load_state_dict(torch.load(state, weights_only=True))
    model.half().save_pretrained(out)
    images = SamImageProcessor(
        size={"longest_edge": IMAGE_PX}, mask_size={"longest_edge": IMAGE_PX // 2},
        pad_size={"height": IMAGE_PX, "width": IMAGE_PX}, mask_pad_size={"height": IMAGE_PX // 2, "width": IMAGE_PX // 2},
    )  # fmt: skip
    SamProcessor(images).save_pretrained(out)
