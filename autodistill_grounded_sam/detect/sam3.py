"""SAM 3 as a detector: a prompt and an image in, boxes out, each scored by whether the prompt is there at all.

The image is seen once for all its prompts, words are read once for all images. Boxes only: masks are the segmenter's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autodistill_grounded_sam.detect.common import SquareDetector
from autodistill_grounded_sam.detect.grounding_dino import merge_captions
from autodistill_grounded_sam.types import Float32, RgbImage

if TYPE_CHECKING:
    import torch

PROMPTS_AT_ONCE = 8  # each takes some 300 MB of attention in the published size


class Words(NamedTuple):
    """Features (P, T, d) and mask (P, T), bool, of P prompts."""

    features: torch.Tensor
    mask: torch.Tensor


class Sam3(SquareDetector):
    """Detector on the image half of transformers' SAM 3; settings as `SquareDetector`.

    Each prompt has queries of its own. A score is the box's probability times that of the prompt being in the image at all.
    Boxes of several prompts with an IoU of 0.9 are one object with the scores of all, so that classes and negatives compete.
    """

    usual_threshold = 0.5
    model_types = ("sam3", "sam3_video")  # facebook/sam3 holds the video model, of which the detector is a part
    model_class = "Sam3Model"

    def _read(self, prompts: tuple[str, ...]) -> list[Words]:
        most = self._model.config.text_config.max_position_embeddings
        made = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            ids, mask = self._tokens(prompts[start : start + PROMPTS_AT_ONCE], most)
            features = self._model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
            made.append(Words(features.float(), mask.bool()))
        return made

    def _look(self, images: Sequence[RgbImage], words: list[Words]) -> list[tuple[Float32, Float32]]:
        seen = self._model.get_vision_features(pixel_values=self._pixels(images))
        maps, places = seen.fpn_hidden_states[-2], seen.fpn_position_encoding[-2]  # the last is for the tracker
        return [
            self._one(image, [self._ask(maps[row : row + 1], places[row : row + 1], some) for some in words])
            for row, image in enumerate(images)
        ]

    def _ask(self, maps: torch.Tensor, places: torch.Tensor, words: Words) -> tuple[Float32, Float32]:
        """Boxes (P, queries, 4), relative xyxy clipped to 0..1, and their scores (P, queries), of one image."""
        from transformers.models.sam3.modeling_sam3 import box_cxcywh_to_xyxy, inverse_sigmoid

        model, many = self._model, len(words.mask)
        fused = model.detr_encoder(
            vision_features=[maps.expand(many, -1, -1, -1)],
            text_features=words.features,
            vision_pos_embeds=[places.expand(many, -1, -1, -1)],
            text_mask=words.mask,
        )
        with self._exactly():  # in bfloat16 a box of a thousand pixels would be wrong by four
            decoded = model.detr_decoder(
                vision_features=fused.last_hidden_state.float(),
                text_features=words.features,
                vision_pos_encoding=fused.pos_embeds_flattened.float(),
                text_mask=words.mask,
                spatial_shapes=fused.spatial_shapes,
            )
            last = decoded.intermediate_hidden_states[-1:]
            shifted = inverse_sigmoid(decoded.reference_boxes[-1]) + model.detr_decoder.box_head(last)[0]
            boxes = box_cxcywh_to_xyxy(shifted.sigmoid()).clamp(0, 1)
            sure = model.dot_product_scoring(decoder_hidden_states=last, text_features=words.features, text_mask=words.mask)
            scores = sure[0, ..., 0].sigmoid() * decoded.presence_logits[-1].sigmoid()
        return boxes.cpu().numpy(), scores.cpu().numpy()

    def _one(self, image: RgbImage, answers: Sequence[tuple[Float32, Float32]]) -> tuple[Float32, Float32]:
        boxes, own = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        prompts, queries = own.shape
        prompt_of = np.repeat(np.arange(prompts), queries)
        scores = np.zeros((prompts * queries, prompts), np.float32)
        scores[np.arange(len(scores)), prompt_of] = own.reshape(-1)
        relative, merged = merge_captions(boxes.reshape(-1, 4), scores, prompt_of, self._floor)
        return (relative * np.array([image.shape[1], image.shape[0]] * 2)).astype(np.float32), merged
