"""SAM 3 as a detector: a prompt and an image in, boxes out, each scored by whether the prompt is there at all.

The image is seen once for all its prompts, words are read once for all images. Boxes only: masks are the segmenter's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autodistill_grounded_sam.detect.common import SquareDetector
from autodistill_grounded_sam.detect.grounding_dino import merge_captions
from autodistill_grounded_sam.example_images import Example
from autodistill_grounded_sam.types import Float32, RgbImage

if TYPE_CHECKING:
    import torch

VISUAL = "visual"  # the authors' word beside a box
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
    takes_examples = True
    model_types = ("sam3", "sam3_video")  # facebook/sam3 holds the video model, of which the detector is a part
    model_class = "Sam3Model"

    def _read(self, prompts: tuple[str, ...]) -> list[Words]:
        most = self._model.config.text_config.max_position_embeddings
        made = []
        for are_examples, some in groupby(prompts, lambda prompt: prompt in self._examples):
            alike = list(some)
            if are_examples:
                made += [self._read_example(self._examples[prompt], most) for prompt in alike]
                continue
            for start in range(0, len(alike), PROMPTS_AT_ONCE):
                made.append(self._read_words(alike[start : start + PROMPTS_AT_ONCE], most))
        return made

    def _read_words(self, prompts: Sequence[str], most: int) -> Words:
        ids, mask = self._tokens(prompts, most)
        features = self._model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return Words(features.float(), mask.bool())

    def _read_example(self, example: Example, most: int) -> Words:
        """The word "visual", which stands for an example, and what the geometry encoder makes of the box in its own picture."""
        import torch

        image, word = example.pixels(), self._read_words([VISUAL], most)
        seen = self._model.get_vision_features(pixel_values=self._pixels([image]))
        x1, y1, x2, y2 = (example.box[i] / image.shape[1 - i % 2] for i in range(4))
        box = word.features.new_tensor([[[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]]])
        shown = self._model.geometry_encoder(
            box_embeddings=box,
            box_mask=torch.ones_like(box[..., 0], dtype=torch.bool),
            box_labels=torch.ones_like(box[..., 0], dtype=torch.long),
            img_feats=seen.fpn_hidden_states[:-1],
            img_pos_embeds=seen.fpn_position_encoding[:-1],
        )
        features = torch.cat([word.features, shown.last_hidden_state.float()], dim=1)
        return Words(features, torch.cat([word.mask, shown.attention_mask.bool()], dim=1))

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
