"""SAM's mask decoder as this tool runs it: transformers' modules and weights, the same answer within rounding, less work.

An image has thousands of cells, a box has seven tokens. Wherever the two meet, the projections are applied to the tokens:

    (x Wk)' q = x' (Wk' q)      A (t Wv) Wo = A (t Wv Wo)      A' (x Wv + b) = (A' x) Wv + b,   as rows of A' sum to 1

The first layer sees the same cells for every box of an image; what it needs of them is computed once. Only the masks that are
asked for are made, not all four. On a CPU boxes go one by one past their cells, so that these stay in the cache; elsewhere all go
at once. SAM-HQ and SAM 2 have the same transformer and other ends: `decoder_hq`, `decoder_sam2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.segment.encoder import encode

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_CELLS = 512  # that are upsampled at once on a CPU, for each thread


class SeenImage(NamedTuple):
    """What all boxes of an image share: `cells` (cells, d), `placed` (the same with their positions added), and what the first
    layer makes of them: `keys`, `values`, `queries` (heads, cells, channels). `fine` are the finer features of models that have
    some."""

    cells: Tensor
    placed: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor
    fine: Any = None


class MaskDecoder:
    """Answers for the encoders and the mask decoder of a transformers SamModel, in eval mode."""

    iou_token = 0  # its place among the tokens; those of the masks follow it

    def __init__(self, model: Any) -> None:
        import torch

        self._model, self._decoder = model, model.mask_decoder
        with torch.no_grad():  # and not in inference mode: this decoder is trained as well
            self._positions: Tensor = model.get_image_wide_positional_embeddings()[0].flatten(1).T.contiguous()

    def embed(self, pixels: Tensor) -> Sequence[Any]:
        """What `see` wants of each image: of `pixels` (images, 3, side, side) the embeddings (images, d, grid, grid)."""
        return encode(self._model.vision_encoder, pixels).float()  # type: ignore[return-value]

    def see(self, embedding: Any) -> SeenImage:
        """`embedding` (d, grid, grid) of an image."""
        return self._see(embedding)

    def _see(self, embedding: Tensor, fine: Any = None) -> SeenImage:
        cells = embedding.flatten(1).T + self._model.prompt_encoder.no_mask_embed.weight
        placed, layer = cells + self._positions, self._decoder.transformer.layers[0]
        to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        return SeenImage(
            cells,
            placed,
            _heads(to_image, to_image.k_proj(placed)),
            _heads(to_image, to_image.v_proj(cells)),
            _heads(to_tokens, to_tokens.q_proj(placed)),
            fine,
        )

    def decode(self, image: SeenImage, xyxy: Tensor, guess: MaskGuess) -> tuple[Tensor, Tensor]:
        """Logits (n, 4 grid, 4 grid) of a mask for each box (n, 4), in pixels of SAM's input, and its predicted IoU (n,)."""
        import torch

        transformer = self._decoder.transformer
        corners = self._model.prompt_encoder._embed_boxes(xyxy[None])[0]
        first = torch.cat([torch.cat(self._own_tokens()).expand(len(xyxy), -1, -1), corners], dim=1)
        tokens, cells = self._first_layer(image, first)  # `cells` in parts, each (boxes, cells, d)
        for layer in transformer.layers[1:]:
            tokens = _added(layer.layer_norm1, _self_attention(layer.self_attn, tokens + first, tokens), tokens)
            tokens = self._look_at_cells(layer.cross_attn_token_to_image, layer.layer_norm2, tokens, first, cells)
            tokens = _added(layer.layer_norm3, layer.mlp(tokens), tokens)
            cells = self._look_at_tokens(layer, tokens, first, cells)
        tokens = self._look_at_cells(
            transformer.final_attn_token_to_image, transformer.layer_norm_final_attn, tokens, first, cells
        )
        return self._answer(image, tokens, cells, guess)

    def _own_tokens(self) -> list[Tensor]:
        return [self._decoder.iou_token.weight, self._decoder.mask_tokens.weight]

    def _first_layer(self, image: SeenImage, first: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens (n, T, d) and cells after the layer in which all boxes meet the same cells."""
        import torch

        layer, cells = self._decoder.transformer.layers[0], image.cells
        to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        tokens = layer.layer_norm1(_self_attention(layer.self_attn, first, first))
        queries = _heads(to_image, to_image.q_proj(tokens + first))
        seen = torch.nn.functional.scaled_dot_product_attention(
            queries.transpose(0, 1).flatten(1, 2), image.keys, image.values
        )  # (heads, n * T, channels): every token of every box asks the same cells
        seen = torch.unflatten(seen, 1, (len(first), -1)).transpose(0, 1)
        tokens = _added(layer.layer_norm2, _output(to_image)(seen.transpose(1, 2).flatten(2)), tokens)
        tokens = _added(layer.layer_norm3, layer.mlp(tokens), tokens)
        keys = _heads(to_tokens, to_tokens.k_proj(tokens + first)) * to_tokens.scaling
        given = _given(to_tokens, tokens)
        changed = []
        for part in self._parts(first):
            shares = (keys[part] @ image.queries.transpose(-1, -2)).softmax(dim=-2)  # (n, heads, T, cells)
            changed.append(layer.layer_norm4(cells + shares.flatten(1, 2).transpose(1, 2) @ given[part]))
        return tokens, changed

    def _look_at_cells(self, attention: Any, norm: Any, tokens: Tensor, first: Tensor, cells: list[Tensor]) -> Tensor:
        """Tokens (n, T, d) with what they take from their own cells added."""
        import torch

        asking = torch.unflatten(attention.q_proj(tokens + first), -1, (attention.num_attention_heads, -1)) * attention.scaling
        columns = torch.einsum("nthc,hcd->nhtd", asking, _by_head(attention, attention.k_proj.weight)).flatten(1, 2)
        parts = []
        for part, own in zip(self._parts(tokens), cells, strict=True):
            shares = (columns[part] @ (own + self._positions).transpose(1, 2)).softmax(dim=-1)
            parts.append(shares @ own)
        taken = torch.unflatten(torch.cat(parts), 1, (attention.num_attention_heads, -1))
        values = torch.einsum("nhtd,hcd->nthc", taken, _by_head(attention, attention.v_proj.weight)).flatten(2)
        return _added(norm, _output(attention)(values + attention.v_proj.bias), tokens)

    def _look_at_tokens(self, layer: Any, tokens: Tensor, first: Tensor, cells: list[Tensor]) -> list[Tensor]:
        """Cells with what each takes from the tokens of its box added."""
        import torch

        attention = layer.cross_attn_image_to_token
        heads = attention.num_attention_heads
        asked = torch.unflatten(attention.k_proj(tokens + first), -1, (heads, -1)) * attention.scaling
        columns = torch.einsum("nthc,hcd->nhtd", asked, _by_head(attention, attention.q_proj.weight)).flatten(1, 2)
        offsets = torch.einsum("nthc,hc->nht", asked, torch.unflatten(attention.q_proj.bias, 0, (heads, -1))).flatten(1)[
            ..., None
        ]
        given, changed = _given(attention, tokens), []
        for part, own in zip(self._parts(tokens), cells, strict=True):
            logits = torch.baddbmm(offsets[part], columns[part], (own + self._positions).transpose(1, 2))
            shares = torch.unflatten(logits, 1, (heads, -1)).softmax(dim=2).flatten(1, 2)  # (n, heads * T, cells)
            changed.append(layer.layer_norm4(torch.baddbmm(own, shares.transpose(1, 2), given[part])))
        return changed

    def _answer(self, image: SeenImage, tokens: Tensor, cells: list[Tensor], guess: MaskGuess) -> tuple[Tensor, Tensor]:
        """Logits and predicted IoU of the mask that SAM gives to each box."""
        weights, iou = self._chosen(tokens, guess)
        return self._draw(image, cells, weights[:, None])[:, 0], iou

    def _chosen(self, tokens: Tensor, guess: MaskGuess) -> tuple[Tensor, Tensor]:
        """Of each box the weights (n, c) of one mask, SAM's single answer or of its three guesses the one that it rates best, and
        its predicted IoU (n,)."""
        import torch

        weights, iou = self._guesses(tokens)
        every = torch.arange(len(iou), device=iou.device)
        chosen = iou[:, 1:].argmax(dim=1) + 1 if guess == "best-of-three" else torch.zeros_like(every)
        return weights[every, chosen], iou[every, chosen]

    def _guesses(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (n, 4, c) of the single answer and the three guesses, and their predicted IoU (n, 4)."""
        import torch

        nets, first = self._decoder.output_hypernetworks_mlps, self.iou_token + 1
        weights = torch.stack([net(tokens[:, first + k]) for k, net in enumerate(nets)], dim=1)
        return weights, self._decoder.iou_prediction_head(tokens[:, self.iou_token])

    def _draw(self, image: SeenImage, cells: list[Tensor], weights: Tensor) -> Tensor:
        """Logits (n, k, 4 grid, 4 grid) of the masks of `weights` (n, k, c)."""
        boxes, asked, _ = weights.shape
        masks = weights.new_empty((boxes, cells[0].shape[1], 2, 2, 2, 2, asked))
        for part, own in zip(self._parts(weights), cells, strict=True):
            for block in blocks_of(own):
                drawn = self._upscaled(image, own, block).flatten(1, -2) @ weights[part].transpose(1, 2)
                masks[part, block] = drawn.view(len(own), -1, *masks.shape[2:])
        return picture_of(masks)

    def _upscaled(self, image: SeenImage, cells: Tensor, block: slice) -> Tensor:
        """Some cells of (boxes, cells, d) as (boxes, cells, 2, 2, 2, 2, c): row and column of the first doubling, then of the
        second."""
        import torch

        decoder, norm = self._decoder, self._decoder.upscale_layer_norm
        fine = doubled(decoder.upscale_conv1, cells[:, block])
        fine = torch.nn.functional.layer_norm(fine, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return decoder.activation(doubled(decoder.upscale_conv2, decoder.activation(fine)))  # type: ignore[no-any-return]

    def _parts(self, boxes: Tensor) -> Iterator[slice]:
        """The boxes whose cells are looked at together."""
        together = 1 if boxes.device.type == "cpu" else len(boxes)
        return (slice(start, start + together) for start in range(0, len(boxes), together))


def blocks_of(cells: Tensor) -> Iterator[slice]:
    """Of (boxes, cells, d): the cells that are upscaled together."""
    import torch

    count = cells.shape[1]
    step = BLOCK_CELLS * torch.get_num_threads() if cells.device.type == "cpu" else count
    return (slice(start, start + step) for start in range(0, count, step))


def picture_of(values: Tensor) -> Tensor:
    """(n, c, 4 grid, 4 grid) from `values` (n, cells, 2, 2, 2, 2, c)."""
    boxes, count, *_, channels = values.shape
    grid = int(count**0.5)
    whole = values.view(boxes, grid, grid, 2, 2, 2, 2, channels).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return whole.reshape(boxes, channels, 4 * grid, 4 * grid)


def _output(attention: Any) -> Any:
    """The output projection, which transformers calls by two names."""
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def _heads(attention: Any, states: Tensor) -> Tensor:
    """(..., heads, length, channels) of (..., length, heads * channels)."""
    import torch

    return torch.unflatten(states, -1, (attention.num_attention_heads, -1)).transpose(-2, -3)


def _by_head(attention: Any, weight: Tensor) -> Tensor:
    """The weight (heads * channels, d) of a projection as (heads, channels, d)."""
    import torch

    return torch.unflatten(weight, 0, (attention.num_attention_heads, -1))


def _given(attention: Any, tokens: Tensor) -> Tensor:
    """What the tokens (n, T, d) give to a cell that looks at them, after the output projection: (n, heads * T, d). Each head's
    shares sum to 1, so each brings its part of the bias."""
    import torch

    heads, output = attention.num_attention_heads, _output(attention)
    values = torch.unflatten(attention.v_proj(tokens), -1, (heads, -1))
    given = torch.einsum("nthc,dhc->nhtd", values, torch.unflatten(output.weight, 1, (heads, -1)))
    given = given + output.bias / heads
    return given.flatten(1, 2)  # type: ignore[no-any-return]


def _self_attention(attention: Any, asking: Tensor, tokens: Tensor) -> Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    query, key = _heads(attention, attention.q_proj(asking)), _heads(attention, attention.k_proj(asking))
    seen = scaled_dot_product_attention(query, key, _heads(attention, attention.v_proj(tokens)))
    return _output(attention)(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def doubled(convolution: Any, cells: Tensor) -> Tensor:
    """A transposed convolution of kernel 2 and stride 2, for which every cell stands alone: (..., d) to (..., 2, 2, channels)."""
    import torch

    weight, bias = convolution.weight, convolution.bias  # weight (d, channels, 2, 2)
    fine = cells @ weight.permute(0, 2, 3, 1).flatten(1) + bias.repeat(4)
    return torch.unflatten(fine, -1, (2, 2, -1))


def _added(norm: Any, states: Tensor, residual: Tensor) -> Tensor:
    return norm(states + residual)  # type: ignore[no-any-return]
