"""Models that write about an image, as taggers: the things in what they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autodistill_grounded_sam.detect.common import check_image, load_model
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.loading import Precision, inference
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.tag.phrases import things_in
from autodistill_grounded_sam.types import RgbImage
from autodistill_grounded_sam.weights import find_weights

QUESTION = "List every kind of object that you see in this image: nouns in the singular, separated by commas, and nothing else."
FLORENCE_TASK = "<DENSE_REGION_CAPTION>"  # a few words for every region: more things than in a caption of the whole
MOST_TOKENS = 256  # of an answer


class Captioner:
    """Tagger on any image-text-to-text model of transformers: BLIP and its like write a caption, Florence-2 the captions of
    regions, chat models the answer to `QUESTION`.

    They give no probabilities: all that they name scores 1. Images are never looked at together, since what is written next can
    hang on the last bit of a number. Raises WeightsError for weights that are missing or of another kind of model, ConfigError
    for `words`, which are for detectors.
    """

    def __init__(
        self,
        name: str,
        *,
        words: Sequence[str] | None = None,
        device: str = "cpu",
        offline: bool = False,
        precision: Precision = "float32",
        most_tokens: int = MOST_TOKENS,
    ) -> None:
        from transformers import AutoProcessor

        if words is not None:
            raise ConfigError(
                f"{name} says what it sees in its own words; a list of them is for a detector as tagger, leave it out"
            )
        found = find_weights(name, "tagger", offline=offline)
        self._model = load_model(found.path, (found.model_type,), "AutoModelForImageTextToText").to(device)
        self._processor = AutoProcessor.from_pretrained(found.path, local_files_only=True)
        self._device, self._precision, self._most_tokens = device, precision, most_tokens

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]:
        """What is named in what the model writes about each image, in that order, each thing once."""
        for image in images:
            check_image(image)
        return [[Tag(thing, 1.0) for thing in things_in(self.say(image))] for image in images]

    def say(self, image_rgb: RgbImage) -> str:
        """What the model writes about one image; the marks of places in it, if any, are left in."""
        inputs = self._inputs(image_rgb).to(self._device)
        with inference(self._device, self._precision):
            written = self._model.generate(**inputs, max_new_tokens=self._most_tokens, do_sample=False)[0]
        asked = inputs["input_ids"][0] if "input_ids" in inputs else written[:0]
        if len(asked) <= len(written) and bool((written[: len(asked)] == asked).all()):
            written = written[len(asked) :]  # decoders repeat the question before the answer
        marks = self._model.config.model_type == "florence2"
        return str(self._processor.decode(written, skip_special_tokens=not marks))

    def _inputs(self, image_rgb: RgbImage) -> Any:
        from PIL import Image

        picture = Image.fromarray(image_rgb)
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]
            told = [{"role": "user", "content": content}]
            return self._processor.apply_chat_template(
                told, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        if self._model.config.model_type == "florence2":
            return self._processor(images=picture, text=FLORENCE_TASK, return_tensors="pt")
        return self._processor(images=picture, return_tensors="pt")
