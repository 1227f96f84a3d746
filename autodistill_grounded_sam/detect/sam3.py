"""SAM 3 as a detector: a prompt and an image in, boxes out, each scored by whether the prompt is there at all, and their masks.

The image is seen once for all its prompts, words are read once for all images. Masks are drawn only if they are asked for, of
the boxes that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.detect.common import Seen, SquareDetector
from autodistill_grounded_sam.detect.grounding_dino import merge_captions
from autodistill_grounded_sam.example_images import Example
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.types import Float32, RgbImage, Rle

if TYPE_CHECKING:
    import torch

VISUAL = "visual"  # the authors' word beside a box
PROMPTS_AT_ONCE = 8  # each takes some 300 MB of attention in the published size


class Words(NamedTuple):
    """Features (P, T, d) and mask (P, T), bool, of P prompts."""

    features: torch.Tensor
    mask: torch.Tensor


class Answer(NamedTuple):
    """Of some P prompts about one image: boxes (P, queries, 4), relative xyxy in 0..1, and their scores (P, queries); the image
    (P, cells, d) as it was read with these words, and the queries (P, queries, d), if masks are to be made of them."""

    boxes: Float32
    scores: Float32
    words: Words
    read: torch.Tensor | None
    queries: torch.Tensor | None


class Sam3(SquareDetector):
    """Detector on the image half of transformers' SAM 3; settings as `SquareDetector`.

    Each prompt has queries of its own. A score is the box's probability times that of the prompt being in the image at all.
    Boxes of several prompts with an IoU of 0.9 are one object with the scores of all, so that classes and negatives compete.
    """

    usual_threshold = 0.5
    takes_examples = True
    makes_masks = True
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

    def _look(self, images: Sequence[RgbImage], words: list[Words]) -> Iterator[Seen]:
        seen = self._model.get_vision_features(pixel_values=self._pixels(images))
        for row, image in enumerate(images):
            maps = [level[row : row + 1] for level in seen.fpn_hidden_states[:-1]]  # the last is for the tracker
            place = seen.fpn_position_encoding[-2][row : row + 1]
            yield self._one(image, maps, [self._ask(maps[-1], place, some) for some in words])

    def _ask(self, maps: torch.Tensor, places: torch.Tensor, words: Words) -> Answer:
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
        kept = (fused.last_hidden_state, last[0]) if self._own_masks else (None, None)  # 5 MB a prompt
        return Answer(boxes.cpu().numpy(), scores.cpu().numpy(), words, *kept)

    def _one(self, image: RgbImage, maps: Sequence[torch.Tensor], answers: Sequence[Answer]) -> Seen:
        boxes, own = (np.concatenate([answer[part] for answer in answers]) for part in range(2))
        prompts, queries = own.shape
        height, width = image.shape[:2]
        prompt_of = np.repeat(np.arange(prompts), queries)
        scores = np.zeros((prompts * queries, prompts), np.float32)
        scores[np.arange(len(scores)), prompt_of] = own.reshape(-1)
        relative, merged, rows = merge_captions(boxes.reshape(-1, 4), scores, prompt_of, self._floor)

        def masks(which: npt.NDArray[np.int_]) -> tuple[Rle, ...]:
            made: dict[int, Rle] = {}
            for prompt, (answer, place) in enumerate((one, k) for one in answers for k in range(len(one.scores))):
                own_rows = which[prompt_of[rows[which]] == prompt]
                if len(own_rows):  # prompt by prompt, as one takes 85 MB of pixels
                    drawn = self._draw(maps, answer, place, rows[own_rows] % queries, height, width)
                    made.update(zip(own_rows.tolist(), drawn, strict=True))
            return tuple(made[row] for row in which.tolist())

        xyxy = (relative * np.array([width, height] * 2)).astype(np.float32)
        return Seen(xyxy, merged, masks if self._own_masks else None)

    def _draw(
        self,
        maps: Sequence[torch.Tensor],
        answer: Answer,
        prompt: int,
        queries: npt.NDArray[np.int_],
        height: int,
        width: int,
    ) -> Iterator[Rle]:
        """The masks of some queries of the answer's `prompt`-th prompt, as the authors make them: logits enlarged, then cut at 0.
        (transformers enlarges probabilities, which moves a border by a part of a pixel of the small mask.)"""
        import torch

        read, queries_of = cast(
            "tuple[torch.Tensor, torch.Tensor]", (answer.read, answer.queries)
        )  # kept, as masks were asked for
        one = slice(prompt, prompt + 1)
        with self._exactly():
            drawn = self._model.mask_decoder(
                decoder_queries=queries_of[one, torch.from_numpy(queries).to(queries_of.device)].float(),
                backbone_features=[level.float() for level in maps],
                encoder_hidden_states=read[one].float(),
                prompt_features=answer.words.features[one],
                prompt_mask=answer.words.mask[one],
            ).pred_masks[0]
            for logits in drawn:  # one by one: a hundred of a large photograph take gigabytes
                size = (height, width)
                large = torch.nn.functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)
                yield encode_mask((large[0, 0] > 0).cpu().numpy())
