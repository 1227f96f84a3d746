"""Grounding DINO's forward pass for what this tool asks: images without padding, one caption for all of them.

It runs on the modules and weights of a transformers model and answers as that does, within rounding. What is saved: features of
an image are shared by its captions (`see`), those of a caption by all images (`read`); the fusion is folded (fusion.py);
deformable attention gathers (deformable.py); what treats cells one by one runs in blocks that stay in the processor's cache;
boxes are proposed for the best cells only; no mask is made where nothing is padded.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from autodistill_grounded_sam.detect.deformable import Looking, Shapes, attend
from autodistill_grounded_sam.detect.fusion import FoldedFusion

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK_CELLS = 1024  # for each thread of a CPU: a block of activations then stays in its cache


class Seen(NamedTuple):
    """The text-free half of a pass over images of one size: features (b, cells, d) and what belongs to the size."""

    features: Tensor
    size: Size


class Read(NamedTuple):
    """The image-free half: features (1, tokens, d) of a caption, its positions, and what its tokens may look at."""

    features: Tensor
    positions: Tensor
    mask: Tensor


class Size(NamedTuple):
    """What all images of one input size share. `centres` (cells, 2, n) are those of the cells on the map of each place that they
    look at, in its cells; `proposals` (cells, 4) are logits of cxcywh, inf where `inside` (cells, 1) is not set."""

    shapes: Shapes
    positions: Tensor
    centres: Tensor
    proposals: Tensor
    inside: Tensor


class FastGroundingDino:
    """Holds a transformers model, in eval mode, and answers for it; `fits` says whether it can."""

    def __init__(self, model: Any) -> None:
        self._head, self._model = model, model.model
        encoder, decoder = self._model.encoder.layers, self._model.decoder.layers
        self._fusions = [FoldedFusion(layer.fusion_layer) for layer in encoder]
        self._looking_around = [Looking(layer.deformable_layer.self_attn) for layer in encoder]
        self._looking_at = [Looking(layer.encoder_attn) for layer in decoder]
        self._size_of = lru_cache(maxsize=4)(self._size)

    @staticmethod
    def fits(model: Any) -> bool:
        """Two-stage models with sine positions and learnt queries: every released one is."""
        config = model.config
        return bool(
            getattr(config, "two_stage", True)
            and getattr(config, "embedding_init_target", True)
            and getattr(config, "position_embedding_type", "sine") == "sine"
        )

    def see(self, pixels: Tensor) -> Seen:
        """`pixels` (b, 3, height, width), normalised, all of it picture."""
        import torch

        model = self._model
        maps: list[Tensor] = []
        features = model.backbone.conv_encoder.model(pixels, return_dict=True).feature_maps
        for level, project in enumerate(model.input_proj_vision):
            source = features[level] if level < len(features) else features[-1] if level == len(features) else maps[-1]
            maps.append(project(source))
        size = self._size_of(tuple(tuple(one.shape[-2:]) for one in maps), pixels.device)
        return Seen(torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1), size)

    def read(self, input_ids: Tensor) -> Read:
        """`input_ids` (1, tokens) of one caption."""
        import torch
        from transformers.models.grounding_dino import modeling_grounding_dino as original

        model = self._model
        mask, places = original.generate_masks_with_special_tokens_and_transfer_map(input_ids, model.special_tokens)
        mask = mask if mask.ndim == 4 else mask[:, None]
        words = model.text_backbone(input_ids, mask, torch.zeros_like(input_ids), places, return_dict=True).last_hidden_state
        features = model.text_projection(words)
        positions = original.encode_sinusoidal_position_embedding(
            places[..., None].to(features.dtype), num_pos_feats=model.config.d_model
        )
        return Read(features, positions, mask[:, 0])

    def ask(self, seen: Seen, read: Read) -> tuple[Tensor, Tensor]:
        """Logits (b, queries, tokens) and boxes (b, queries, 4), cxcywh as shares of the image."""
        import torch

        vision, batch = seen.features, len(seen.features)
        text = read.features.expand(batch, -1, -1)
        positions, mask = read.positions.expand(batch, -1, -1), read.mask.expand(batch, -1, -1)
        for fusion, looking, layer in zip(self._fusions, self._looking_around, self._model.encoder.layers, strict=True):
            vision, text = fusion(vision, text)
            text, _ = layer.text_enhancer_layer(text, attention_masks=mask, position_embeddings=positions)
            vision = torch.stack([_look_around(one, layer.deformable_layer, looking, seen.size) for one in vision])
        proposals = self._propose(vision, text, seen.size)
        return self._decode(vision, text, proposals, seen.size)

    def _propose(self, vision: Tensor, text: Tensor, size: Size) -> Tensor:
        """Boxes (b, queries, 4), cxcywh, of the cells that answer the caption best."""
        model = self._model
        cells = model.enc_output_norm(model.enc_output(vision * size.inside))
        logits = _match(model.encoder_output_class_embed, cells, text)
        best = logits.amax(dim=-1).topk(model.config.num_queries, dim=1).indices[..., None]
        chosen = cells.gather(1, best.expand(-1, -1, cells.shape[-1]))
        proposals = size.proposals.expand(len(cells), -1, -1).gather(1, best.expand(-1, -1, 4))
        boxes: Tensor = (model.encoder_output_bbox_embed(chosen) + proposals).sigmoid()
        return boxes

    def _decode(self, vision: Tensor, text: Tensor, boxes: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        import torch
        from transformers.models.grounding_dino import modeling_grounding_dino as original

        model, decoder = self._model, self._model.decoder
        queries = model.query_position_embeddings.weight.expand(len(vision), -1, -1)
        before, normed = boxes, queries
        for layer, looking, refine in zip(decoder.layers, self._looking_at, decoder.bbox_embed, strict=True):
            places = original.encode_sinusoidal_position_embedding(boxes, num_pos_feats=model.config.d_model // 2)
            places = decoder.reference_points_head(places)
            asking = queries + places
            queries = _added(layer.self_attn_layer_norm, _attend(layer.self_attn, asking, asking, queries), queries)
            words = _attend(layer.encoder_attn_text, queries + places, text, text)
            queries = _added(layer.encoder_attn_text_layer_norm, words, queries)
            asking = queries + places
            taken = torch.stack(
                [_look_at(layer.encoder_attn, looking, *row, size) for row in zip(vision, asking, boxes, strict=True)]
            )
            queries = _added(layer.encoder_attn_layer_norm, layer.encoder_attn.output_proj(taken), queries)
            queries = _added(layer.final_layer_norm, layer.fc2(layer.activation_fn(layer.fc1(queries))), queries)
            before, normed = boxes, decoder.layer_norm(queries)
            boxes = (refine(queries) + torch.special.logit(boxes, eps=1e-5)).sigmoid()
        logits = _match(self._head.class_embed[-1], normed, text)
        return logits, (self._head.bbox_embed[-1](normed) + torch.special.logit(before, eps=1e-5)).sigmoid()

    def _size(self, shapes: Shapes, device: torch.device) -> Size:
        import torch

        model, maps = self._model, self._looking_around[0].maps(shapes, device)
        positions, shares, proposals = [], [], []
        for level, (height, width) in enumerate(shapes):
            picture = torch.ones((1, height, width), dtype=torch.bool, device=device)
            sine = model.backbone.position_embedding(picture, picture)[0].flatten(1).T
            positions.append(sine + model.level_embed[level])
            y = (torch.arange(height, device=device) + 0.5) / height
            x = (torch.arange(width, device=device) + 0.5) / width
            grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).view(-1, 2)
            shares.append(grid)
            proposals.append(torch.cat([grid, torch.full_like(grid, 0.05 * 2.0**level)], dim=-1))
        boxes, share = torch.cat(proposals), torch.cat(shares)
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
        logits = torch.log(boxes / (1 - boxes)).masked_fill(~inside, float("inf"))
        return Size(shapes, torch.cat(positions), share[..., None] * maps.sides - 0.5, logits, inside)


def _look_around(vision: Tensor, layer: Any, looking: Looking, size: Size) -> Tensor:
    """An encoder layer's deformable attention and feed-forward net, over one image (cells, d), block by block."""
    import torch

    attention, blocks, step = layer.self_attn, [], _block(vision)
    maps = looking.maps(size.shapes, vision.device)
    values = torch.cat([attention.value_proj(cells) for cells in torch.split(vision, step)]).view(len(vision), maps.heads, -1)
    for start in range(0, len(vision), step):
        block = slice(start, start + step)
        cells = vision[block]
        offsets, weights = looking(cells + size.positions[block])
        taken = attend(values, offsets + size.centres[block], weights, maps)
        cells = _added(layer.self_attn_layer_norm, attention.output_proj(taken), cells)
        cells = _added(layer.final_layer_norm, layer.fc2(layer.activation_fn(layer.fc1(cells))), cells)
        blocks.append(cells)
    return torch.cat(blocks)


def _look_at(attention: Any, looking: Looking, vision: Tensor, asking: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """A decoder layer's deformable attention over one image: every query looks around in its own box."""
    maps = looking.maps(size.shapes, vision.device)
    values = attention.value_proj(vision).view(len(vision), maps.heads, -1)
    offsets, weights = looking(asking)
    places = boxes[:, :2, None] + offsets * (boxes[:, 2:, None] * (0.5 / attention.n_points))
    return attend(values, places * maps.sides - 0.5, weights, maps)


def _attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    def split(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    answer = scaled_dot_product_attention(
        split(attention.query(queries)), split(attention.key(keys)), split(attention.value(values))
    )
    return attention.out_proj(answer.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _match(embed: Any, cells: Tensor, text: Tensor) -> Tensor:
    """Products of cells and tokens; MM Grounding DINO scales and shifts them."""
    logits = cells @ text.transpose(1, 2)
    bias = getattr(embed, "bias", None)
    scaled: Tensor = logits if bias is None else logits / math.sqrt(cells.shape[-1]) + bias
    return scaled


def _added(norm: Any, states: Tensor, residual: Tensor) -> Tensor:
    together = states.add_(residual) if states.dtype == residual.dtype else states + residual
    return norm(together)  # type: ignore[no-any-return]


def _block(states: Tensor) -> int:
    import torch

    return BLOCK_CELLS * torch.get_num_threads() if states.device.type == "cpu" else len(states)
