"""OmDet-Turbo as a detector: all prompts in one forward pass, words read once for all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autodistill_grounded_sam.detect.common import Seen, SquareDetector
from autodistill_grounded_sam.errors import MissingExtraError
from autodistill_grounded_sam.types import Float32, RgbImage

if TYPE_CHECKING:
    import torch

NMS_IOU = 0.5  # of the authors' code, within one class


class Words(NamedTuple):
    """What was asked: an embedding a prompt (P, 1, d), and the sentence that names them all (T, 1, d) with its mask (1, T)."""

    classes: torch.Tensor
    task: torch.Tensor
    task_mask: torch.Tensor


class OmDetTurbo(SquareDetector):
    """Detector on transformers' OmDet-Turbo; settings as `SquareDetector`.

    The model also reads the sentence "Detect a, b, c." of all prompts, cut at 77 tokens as its authors do. A box stays if it
    survives non-maximum suppression in the class of its best score, and keeps its scores for all prompts.
    """

    usual_threshold = 0.3
    model_types = ("omdet-turbo",)

    def __init__(self, name: str, **settings: Any) -> None:
        try:
            super().__init__(name, **settings)
        except ImportError as error:
            if "timm" not in str(error):
                raise
            raise MissingExtraError(f"the image encoder of {name} is timm's and", extra="omdet") from error

    def _read(self, prompts: tuple[str, ...]) -> Words:
        most = self._model.config.text_config.max_position_embeddings
        ids, _ = self._tokens(prompts, most)
        sentence = self._tokenizer(
            f"Detect {', '.join(prompts)}.", padding="max_length", max_length=most, truncation=True, return_tensors="pt"
        ).to(self._device)
        read = self._model.language_backbone
        classes = read(ids, encode_type="class").float()[:, None]
        task, mask = read(sentence["input_ids"], mask=sentence["attention_mask"], encode_type="task")
        return Words(classes, task.float(), mask)

    def _look(self, images: Sequence[RgbImage], words: Words) -> list[Seen]:
        seen = self._model.encoder(self._model.vision_backbone(self._pixels(images)), return_dict=True).extracted_states
        many = len(images)
        with self._exactly():  # in bfloat16 a box of a thousand pixels would be wrong by four
            answer = self._model.decoder(
                [one.float() for one in seen],
                words.classes.expand(-1, many, -1),
                words.task.expand(-1, many, -1),
                words.task_mask.expand(many, -1),
                return_dict=True,
            )
            scores = answer.decoder_classes[-1].sigmoid()
        return [Seen(*self._one(image, *one)) for image, *one in zip(images, answer.decoder_coords[-1], scores, strict=True)]

    def _one(self, image: RgbImage, boxes: torch.Tensor, scores: torch.Tensor) -> tuple[Float32, Float32]:
        import torch
        from torchvision.ops import batched_nms

        height, width = image.shape[:2]
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        xyxy = torch.cat([centre - half, centre + half], dim=1) * boxes.new_tensor((width, height) * 2)
        query, prompt = torch.where(scores >= self._floor)
        kept = batched_nms(xyxy[query], scores[query, prompt], prompt, NMS_IOU)
        query, prompt = query[kept], prompt[kept]
        best = query[prompt == scores.argmax(dim=1)[query]]
        return xyxy[best].cpu().numpy(), scores[best].cpu().numpy()
