"""SAM-HQ's mask decoder: SAM's, and one token more whose mask is drawn on finer features.

transformers' own forward pass (4.57 to 5.23 at least) throws the transformer's image output away and upscales the image as it was
before; its masks have an IoU of 0.56 to 0.83 with those of the authors' code on the same weights. This one is the authors'.
`tests/segment/test_decoder_hq.py` fails on the day transformers is mended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.segment.decoder import MaskDecoder, SeenImage, blocks_of, picture_of
from autodistill_grounded_sam.segment.encoder import encode

if TYPE_CHECKING:
    from torch import Tensor


class HqMaskDecoder(MaskDecoder):
    """Answers for the encoders and the mask decoder of a transformers SamHQModel, in eval mode."""

    def embed(self, pixels: Tensor) -> Sequence[Any]:
        early: list[Tensor] = []
        embeddings = encode(self._model.vision_encoder, pixels, early).float()
        return list(zip(embeddings, early[0].float(), strict=True))

    def see(self, embedding: Any) -> SeenImage:
        """`embedding` (d, grid, grid) of an image, and the encoder's states (grid, grid, width) after its first global layer."""
        decoder, (last, early) = self._decoder, embedding
        fine = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(last[None]))))
        early = decoder.compress_vit_norm(decoder.compress_vit_conv1(early.permute(2, 0, 1)[None]))
        return self._see(last, fine + decoder.compress_vit_conv2(decoder.activation(early)))

    def _own_tokens(self) -> list[Tensor]:
        return [*super()._own_tokens(), self._decoder.hq_token.weight]

    def _answer(self, image: SeenImage, tokens: Tensor, cells: list[Tensor], guess: MaskGuess) -> tuple[Tensor, Tensor]:
        import torch

        decoder, hq_token = self._decoder, self.iou_token + 1 + len(self._decoder.mask_tokens.weight)
        weights, iou = self._chosen(tokens, guess)
        weights = torch.zeros_like(weights) if guess == "hq-only" else weights
        hq_weights = decoder.hq_mask_mlp(tokens[:, hq_token])
        masks = []
        for part, own in zip(self._parts(tokens), cells, strict=True):
            upscaled = picture_of(torch.cat([self._upscaled(image, own, block) for block in blocks_of(own)], dim=1))
            fine = decoder.mask_conv2(decoder.activation(decoder.mask_norm(decoder.mask_conv1(upscaled)))) + image.fine
            masks.append(_drawn(weights[part], upscaled) + _drawn(hq_weights[part], fine))
        return torch.cat(masks), iou


def _drawn(weights: Tensor, features: Tensor) -> Tensor:
    """Logits (n, h, w) of `weights` (n, c) and `features` (n, c, h, w)."""
    return (weights[:, None] @ features.flatten(2)).view(-1, *features.shape[2:])
