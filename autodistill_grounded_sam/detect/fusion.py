"""Grounding DINO's attention between image and text, with its large projections folded into the text.

The published layer brings every cell of the image from 256 to 1024 numbers three times (query, value, output). A caption has
some dozens of tokens, an image some ten thousand cells, and each projection meets the text in a product:

    (v Wq) k'  = v (Wq k')          A (t W) Wo = A (t W Wo)          A' (v W + b) = (A' v) W + b,   as rows of A' sum to 1

So the projections are applied to the text, once a caption, and the cells are multiplied with 4 T columns instead of 1024.
No weight changes; the answer differs by rounding alone. A quarter of the detector's arithmetic goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class FoldedFusion:
    """One `GroundingDinoFusionLayer`, for an image and a caption without padding; shares the layer's weights."""

    def __init__(self, layer: Any) -> None:
        self._layer, attention = layer, layer.attn
        self._heads, self._scale = attention.num_heads, attention.scale

    def __call__(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """`vision` (b, cells, d) and `text` (b, tokens, d), each with what it takes from the other added."""
        import torch

        layer, attention, heads = self._layer, self._layer.attn, self._heads
        vision, text = layer.layer_norm_vision(vision), layer.layer_norm_text(text)
        batch, cells, width = vision.shape
        tokens = text.shape[1]

        keys = attention.text_proj(text).view(batch, tokens, heads, -1)
        query = attention.vision_proj
        seen_by = torch.einsum("bthe,hed->bdht", keys, query.weight.view(heads, -1, width) * self._scale)
        offset = torch.einsum("bthe,he->bht", keys, query.bias.view(heads, -1) * self._scale)
        logits = torch.baddbmm(offset.reshape(batch, 1, -1), vision, seen_by.reshape(batch, width, -1)).float()

        by_token = (logits - logits.amax(dim=1, keepdim=True)).exp_()  # softmax over cells; its sums divide below
        gathered = torch.bmm(by_token.transpose(1, 2), vision) / by_token.sum(dim=1)[..., None]
        value = attention.values_vision_proj
        taken = torch.einsum("bhtd,hed->bthe", gathered.view(batch, heads, tokens, width), value.weight.view(heads, -1, width))
        for_text = attention.out_text_proj(taken.reshape(batch, tokens, -1) + value.bias)

        output = attention.out_vision_proj
        values = attention.values_text_proj(text).view(batch, tokens, heads, -1)
        given = torch.einsum("bthe,dhe->bhtd", values, output.weight.view(width, heads, -1))
        given = (given + output.bias / heads) * layer.vision_param  # each head's shares sum to 1, so each brings its part
        shares = logits.view(batch, cells, heads, tokens).softmax(dim=-1).view(batch, cells, -1)
        return (
            torch.baddbmm(vision, shares, given.reshape(batch, heads * tokens, width)),
            text + layer.text_param * for_text,
        )
