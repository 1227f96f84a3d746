"""Second lesson: a tiny Grounding DINO learns to find what a caption asks for."""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import batched_nms, box_convert
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from autodistill_grounded_sam.adapt.learning import descend, follow
from autodistill_grounded_sam.adapt.loss import Target, detector_loss
from autodistill_grounded_sam.painting import ALL_PAIRS, SHAPES, UNSEEN_PAIRS
from tools.mini.backbone import backbone_config
from tools.mini.data import COLOUR_NAMES, Batch, Scenes, batches, shrunk
from tools.mini.text import MOST_TOKENS, Caption, ask, caption_of

SHORT_SIDE_PX = 160  # of the shipped detector
BATCH = 8


@dataclass(frozen=True)
class Leg:
    """A stretch of training: `minutes` of processor time on pictures of `short_side_px`, the learning rate falling to 0 at its
    end; `lone_words` is the share of captions that ask for shapes or colours by themselves."""

    minutes: float
    short_side_px: int
    learning_rate: float
    lone_words: float


def detector_legs(minutes: float, sharp_minutes: float) -> tuple[Leg, Leg]:
    """Small pictures first, where most objects are seen in an hour; then larger ones, that tell shapes of 20 pixels apart."""
    return Leg(minutes, 128, 1e-3, 0.15), Leg(sharp_minutes, SHORT_SIDE_PX, 5e-4, 0.3)


def detector_config() -> GroundingDinoConfig:
    text = BertConfig(
        vocab_size=1030, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=MOST_TOKENS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return GroundingDinoConfig(
        backbone_config=backbone_config(), text_config=text, d_model=64, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=40,
        num_feature_levels=3, encoder_n_points=2, decoder_n_points=4, two_stage=True, max_text_len=MOST_TOKENS, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, fusion_dropout=0.0, fusion_droppath=0.0, auxiliary_loss=True,
    )  # fmt: skip


def new_detector(backbone_state: Path) -> GroundingDinoForObjectDetection:
    """A model ready to learn: the taught backbone in it, and the few initial values that a start from nothing needs."""
    model = GroundingDinoForObjectDetection(detector_config())
    state = {k: v for k, v in torch.load(backbone_state, weights_only=True).items() if "num_batches_tracked" not in k}
    model.model.backbone.conv_encoder.model.load_state_dict(state)
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the stem is frozen for pretrained ResNets; ours is to go on learning
    # Logits are bare products <LN(v), LN(t)>. Small gains and opposite offsets make the first scores sigmoid(-3.5).
    offset = (3.5 / 64) ** 0.5
    text_norm = model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    for norm, sign in ((text_norm, 1), (model.model.enc_output_norm, -1), (model.model.decoder.layer_norm, -1)):
        nn.init.constant_(norm.weight, 0.35)
        nn.init.constant_(norm.bias, sign * offset)
    for layer in model.model.encoder.layers:  # 1e-4 would keep text and image apart for the whole of a short training
        nn.init.constant_(layer.fusion_layer.vision_param, 0.5)
        nn.init.constant_(layer.fusion_layer.text_param, 0.5)
    for linear in model.model.decoder.reference_points_head.layers:
        nn.init.xavier_uniform_(linear.weight)
    return model


def forward(model: GroundingDinoForObjectDetection, batch: Batch, caption: Caption) -> Any:
    ids = caption.input_ids.expand(len(batch.pixels), -1)
    return model(pixel_values=batch.normalised(), input_ids=ids, attention_mask=torch.ones_like(ids))


def train_detector(
    model: GroundingDinoForObjectDetection,
    scenes: Scenes,
    tokenizer: BertTokenizerFast,
    leg: Leg,
    out: Path,
    seed: int,
    held: Batch,
) -> None:
    """Train `model` for one leg; the running mean of its weights is what is saved to `out`."""
    held = dataclasses.replace(held, pixels=shrunk(held.pixels, leg.short_side_px))
    slow = [p for n, p in model.named_parameters() if "sampling_offsets" in n or "backbone.conv_encoder" in n]
    fast = [p for n, p in model.named_parameters() if not ("sampling_offsets" in n or "backbone.conv_encoder" in n)]
    groups = [{"params": fast, "share": 1.0}, {"params": slow, "share": 0.25}]
    optimiser = torch.optim.AdamW(groups, lr=leg.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    mean = copy.deepcopy(model).eval()
    rng = np.random.default_rng(seed)
    source = batches(scenes, BATCH, seed, leg.short_side_px)
    start, step, said, losses = time.process_time(), 0, 0.0, []
    while (spent := (time.process_time() - start) / 60) < leg.minutes:
        share = spent / leg.minutes
        for group in optimiser.param_groups:
            rate = min(1, (step + 1) / 150) * (1 if share < 0.4 else (1 - share) / 0.6)
            group["lr"] = leg.learning_rate * group["share"] * rate
        batch = next(source)
        caption = ask(tokenizer, rng, batch.pairs[batch.pairs[..., 0] >= 0], leg.lone_words)
        outputs = forward(model, batch, caption)
        tokens = caption.input_ids.shape[1]
        loss = detector_loss(model, outputs, tokens, targets_of(batch.pairs, batch.boxes, caption.targets))
        descend(optimiser, loss)
        losses.append(loss.item())
        step += 1
        if step % 4 == 0:
            follow(mean, model, 0.99 if share < 0.4 else 0.996)
        if spent - said > 3:
            said = spent
            figures = quick_figures(mean, tokenizer, held)
            print(f"detector {spent:.1f} min, step {step}, loss {np.mean(losses[-200:]):.3f}, {figures}", flush=True)
            torch.save(mean.state_dict(), out)
    print(f"detector done after {step} steps, {quick_figures(mean, tokenizer, held)}", flush=True)
    torch.save(mean.state_dict(), out)


def targets_of(pairs: np.ndarray, boxes: np.ndarray, answers: Any) -> list[Target]:
    """Tokens and boxes of the objects that the caption asks for, by image."""
    result = []
    for row, box in zip(pairs, boxes, strict=True):
        present = row[:, 0] >= 0
        tokens = answers(row[present]).astype(np.float32)
        asked = tokens.any(1)
        truth = box_convert(torch.from_numpy(box[present][asked]), "xyxy", "cxcywh")
        result.append(Target(torch.from_numpy(tokens[asked]), truth))
    return result


@torch.no_grad()
def quick_figures(model: GroundingDinoForObjectDetection, tokenizer: BertTokenizerFast, held: Batch) -> str:
    """All 64 pairs in one caption: pooled AP50 on seen and unseen pairs, and the share of right names among found boxes."""
    meaning = np.array([(COLOUR_NAMES.index(c), SHAPES.index(s)) for c, s in ALL_PAIRS])
    caption = caption_of(tokenizer, [f"{c} {s}" for c, s in ALL_PAIRS], meaning)
    spans = torch.from_numpy(np.stack([caption.phrase_of_token == k for k in range(len(meaning))]).astype(np.float32))
    unseen = np.array([pair in UNSEEN_PAIRS for pair in ALL_PAIRS])
    hits: dict[bool, list[tuple[float, bool]]] = {False: [], True: []}
    counts, named = {False: 0, True: 0}, []
    for start in range(0, len(held.pixels), 20):
        part = Batch(
            held.pixels[start : start + 20], held.index[:0], held.pairs[start : start + 20], held.boxes[start : start + 20]
        )
        outputs = forward(model, part, caption)
        scores = outputs.logits[..., : spans.shape[1]].sigmoid() @ (spans / spans.sum(1, keepdim=True)).T
        centre, half = outputs.pred_boxes[..., :2], outputs.pred_boxes[..., 2:] / 2
        for score, box, pairs, truth in zip(
            scores, torch.cat([centre - half, centre + half], -1), part.pairs, part.boxes, strict=True
        ):
            best, name = score.max(-1)
            keep = batched_nms(box, best, name, 0.7)
            present = pairs[:, 0] >= 0
            wanted = [int(c * len(SHAPES) + s) for c, s in pairs[present]]
            for k in wanted:
                counts[bool(unseen[k])] += 1
            free = [True] * len(wanted)
            iou = _iou(box[keep].numpy(), truth[present])
            for row, (value, kind) in enumerate(zip(best[keep].tolist(), name[keep].tolist(), strict=True)):
                match = [k for k in np.argsort(-iou[row]) if iou[row, k] >= 0.5]
                if match and value >= 0.35:
                    named.append(wanted[match[0]] == kind)
                own = [k for k in match if free[k] and wanted[k] == kind]
                if own:
                    free[own[0]] = False
                hits[bool(unseen[kind])].append((value, bool(own)))
    good = [hit for side in hits.values() for value, hit in side if value >= 0.35]
    total = sum(counts.values())
    ap50 = {side: _average_precision(hits[side], counts[side]) for side in (False, True)}
    return (
        f"AP50 seen {ap50[False]:.3f} unseen {ap50[True]:.3f}, "
        f"at 0.35 precision {np.mean(good or [0]):.3f} recall {sum(good) / total:.3f}, named rightly {np.mean(named or [0]):.3f}"
    )


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    shared = np.clip(np.minimum(first[:, None, 2:], second[None, :, 2:]) - corner, 0, None).prod(-1)
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (first, second)]
    return shared / np.maximum(area[0][:, None] + area[1][None] - shared, 1e-9)


def _average_precision(hits: list[tuple[float, bool]], count: int) -> float:
    if not hits or not count:
        return 0.0
    right = np.array([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])])
    found = np.cumsum(right)
    precision = np.maximum.accumulate((found / np.arange(1, len(right) + 1))[::-1])[::-1]
    return float((precision * right).sum() / count)


def save_detector(state: Path, tokenizer: BertTokenizerFast, out: Path) -> None:
    """Write a transformers folder in fp16, as `from_pretrained` reads it."""
    model = GroundingDinoForObjectDetection(detector_config())
    model.load_state_dict(torch.load(state, weights_only=True))
    images = GroundingDinoImageProcessor(size={"shortest_edge": SHORT_SIDE_PX, "longest_edge": 4 * SHORT_SIDE_PX})
    model.half().save_pretrained(out)
    GroundingDinoProcessor(images, tokenizer).save_pretrained(out)
