"""SAM 2's mask decoder (and EdgeTAM's, which is the same): SAM's transformer, finer features added while the cells are upscaled,
and a single answer that gives way to the best of three where it is not stable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.segment.decoder import MaskDecoder, SeenImage, doubled

if TYPE_CHECKING:
    from torch import Tensor


class Sam2MaskDecoder(MaskDecoder):
    """Answers for the encoders and the mask decoder of a transformers Sam2Model or EdgeTamModel, in eval mode."""

    iou_token = 1  # after the token that says whether there is an object at all, which is not asked: there is a box

    def embed(self, pixels: Tensor) -> Sequence[Any]:
        """The feature maps of each image, fine to coarse: (d / 8, 4 grid, 4 grid), (d / 4, 2 grid, 2 grid), (d, grid, grid)."""
        return list(zip(*(level.float() for level in self._model.get_image_embeddings(pixels)), strict=True))

    def see(self, embedding: Any) -> SeenImage:
        finest, fine, last = embedding
        return self._see(last, (_by_cell(fine, 1), _by_cell(finest, 2)))

    def _own_tokens(self) -> list[Tensor]:
        return [self._decoder.obj_score_token.weight, *super()._own_tokens()]

    def _upscaled(self, image: SeenImage, cells: Tensor, block: slice) -> Tensor:
        from torch.nn.functional import layer_norm

        decoder, norm = self._decoder, self._decoder.upscale_layer_norm
        fine = doubled(decoder.upscale_conv1, cells[:, block]) + image.fine[0][block]
        fine = decoder.activation(layer_norm(fine, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        finest = doubled(decoder.upscale_conv2, fine) + image.fine[1][block]
        return decoder.activation(finest)  # type: ignore[no-any-return]

    def _answer(self, image: SeenImage, tokens: Tensor, cells: list[Tensor], guess: MaskGuess) -> tuple[Tensor, Tensor]:
        import torch

        if guess != "single" or not self._decoder.dynamic_multimask_via_stability:
            return super()._answer(image, tokens, cells, guess)
        pairs = [self._chosen(tokens, one) for one in ("single", "best-of-three")]
        masks = self._draw(image, cells, torch.stack([weights for weights, _ in pairs], dim=1))
        steady = self._steady(masks[:, 0])
        return torch.where(steady[:, None, None], masks[:, 0], masks[:, 1]), torch.where(steady, pairs[0][1], pairs[1][1])

    def _steady(self, logits: Tensor) -> Tensor:
        """Of each mask (n, h, w) whether its area hardly changes when the threshold moves a little: (n,) bool."""
        import torch

        decoder = self._decoder
        delta = decoder.dynamic_multimask_stability_delta
        inner, outer = ((logits > limit).flatten(1).sum(dim=1).float() for limit in (delta, -delta))
        shares = torch.where(outer > 0, inner / outer, 1.0)
        return shares >= decoder.dynamic_multimask_stability_thresh  # type: ignore[no-any-return]


def _by_cell(features: Tensor, doublings: int) -> Tensor:
    """(c, h, w) of a finer grid as (cells, 2, 2, c), or (cells, 2, 2, 2, 2, c): row and column within each doubling."""
    channels, height, width = features.shape
    side = 2**doublings
    halves = (2,) * doublings
    split = features.view(channels, height // side, *halves, width // side, *halves)
    rows, columns = range(2, 2 + doublings), range(3 + doublings, 3 + 2 * doublings)
    order = [1, 2 + doublings, *(axis for pair in zip(rows, columns, strict=True) for axis in pair), 0]
    return split.permute(order).reshape(-1, *(halves * 2), channels)
