"""Florence-2 as a detector: it answers in words and places, and gives no scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from autodistill_grounded_sam.detect.common import Seen, SquareDetector
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.types import Float32, RgbImage

if TYPE_CHECKING:
    import torch

QUESTION = "Locate {} in the image."  # what the task <OPEN_VOCABULARY_DETECTION> stands for
BINS = 1000  # of each axis; a place is the middle of its bin
PROMPTS_AT_ONCE = 16  # each is some 600 tokens
MOST_TOKENS = 1024  # of an answer, as its authors ask for


class Florence2(SquareDetector):
    """Detector on transformers' Florence-2; settings as `SquareDetector`.

    Every prompt is asked by itself, so that no answer has to be matched with a prompt by its words; the image is seen once for
    all of them. What it finds scores 1 for its prompt and 0 for the others. Images are never looked at together: what is
    written next hangs on the last bit of a number, and so must not hang on the batch.
    """

    model_types = ("florence2",)
    model_class = "Florence2ForConditionalGeneration"

    def _read(self, prompts: tuple[str, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Token ids and mask, of some prompts at a time."""
        words = self._tokenizer
        asked = [f"{words.bos_token}{QUESTION.format(prompt)}{words.eos_token}" for prompt in prompts]
        parts = [asked[start : start + PROMPTS_AT_ONCE] for start in range(0, len(asked), PROMPTS_AT_ONCE)]
        made = [words(part, add_special_tokens=False, padding=True, return_tensors="pt").to(self._device) for part in parts]
        return [(one["input_ids"], one["attention_mask"]) for one in made]

    def _look(self, images: Sequence[RgbImage], words: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Seen]:
        found = []
        for image in images:
            seen = self._model.get_image_features(pixel_values=self._pixels([image])).pooler_output
            answers = [answer for ids, mask in words for answer in self._ask(seen, ids, mask)]
            boxes = [places_in(answer, image.shape[1], image.shape[0]) for answer in answers]
            scores = [np.tile(row, (len(those), 1)) for row, those in zip(np.eye(len(boxes)), boxes, strict=True)]
            found.append(Seen(np.concatenate(boxes), np.concatenate(scores).astype(np.float32)))
        return found

    def _ask(self, seen: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> list[str]:
        import torch

        most = self._model.config.text_config.max_position_embeddings
        if seen.shape[1] + ids.shape[1] > most:
            raise OntologyError(
                f"a prompt is {ids.shape[1]} tokens long as a question; beside the {seen.shape[1]} of an image this model reads "
                f"at most {most - seen.shape[1]}"
            )
        embedded = torch.cat([seen.expand(len(ids), -1, -1), self._model.get_input_embeddings()(ids).to(seen.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(len(ids), seen.shape[1]), mask], dim=1)
        encoded = self._model.model.language_model.encoder(inputs_embeds=embedded, attention_mask=mask)
        longest = min(MOST_TOKENS, most - 1)  # beyond its positions transformers fails
        written = self._model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=longest, do_sample=False)
        return list(self._tokenizer.batch_decode(written, skip_special_tokens=False))


def places_in(answer: str, width: int, height: int) -> Float32:
    """(n, 4) boxes in pixels: each four places of a run, or what a polygon touches on its four sides."""
    places = r"(?:<loc_\d+>)+"
    if "<poly>" in answer:
        polygons = [one for one in re.findall(r"<poly>(.*?)(?:</poly>|$)", answer, re.DOTALL)]
        points = [_bins("".join(re.findall(places, one)), 2) for one in polygons]
        rows = [np.concatenate([one.min(axis=0), one.max(axis=0)]) for one in points if len(one)]
    else:
        rows = [row for run in re.findall(places, answer) for row in _bins(run, 4)]
    bins = np.array(rows, np.float32).reshape(-1, 4)
    return ((bins + 0.5) / BINS * [width, height, width, height]).astype(np.float32)


def _bins(run: str, together: int) -> Float32:
    """The places of a run, (n, together); what is over at the end was cut off and is left out."""
    found = [int(place) for place in re.findall(r"<loc_(\d+)>", run)]
    whole = len(found) // together * together
    return np.array(found[:whole], np.float32).reshape(-1, together)
