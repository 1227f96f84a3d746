"""OWL-ViT and OWLv2 as detectors: every patch of the picture is a box with a score for every prompt.

An image is seen without its prompts, so text costs once for all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill_grounded_sam.detect.common import Seen, SquareDetector
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.example_images import Example
from autodistill_grounded_sam.types import Float32, RgbImage

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

SAME_OBJECT_IOU = 0.7  # neighbouring patches answer with nearly the same box; `decide` takes boxes above it for one as well
NEARLY_THE_BEST = 0.8  # of the best overlap with an example's box, after the authors
BLOCK_ROWS = 256  # of a picture that are made float32 at a time


class Owl(SquareDetector):
    """Detector on transformers' OWL-ViT or OWLv2; settings as `SquareDetector`.

    Of boxes that overlap by more than `nms_iou` only the one whose best score is highest stays, with its scores for all
    prompts. OWLv2 sees the picture in the top left corner of a square, and its boxes are of that square; they come back in
    pixels of the image, cut off where they reach into the filling.
    """

    usual_threshold = 0.1  # of transformers; the authors' self-training took 0.3
    model_types = ("owlvit", "owlv2")

    def __init__(self, name: str, *, nms_iou: float = SAME_OBJECT_IOU, **settings: Any) -> None:
        if not 0 < nms_iou <= 1:
            raise ConfigError(f"nms_iou must be in (0, 1], got {nms_iou}")
        super().__init__(name, **settings)
        self._nms_iou = nms_iou
        self._padded = self._model.config.model_type == "owlv2"

    takes_examples = True

    def _read(self, prompts: tuple[str, ...]) -> torch.Tensor:
        """Embeddings (P, d), each of length 1."""
        import torch

        words = [prompt for prompt in prompts if prompt not in self._examples]
        rows = dict(zip(words, self._read_words(words), strict=True)) if words else {}
        rows |= {prompt: self._read_example(self._examples[prompt]) for prompt in prompts if prompt not in rows}
        return torch.stack([rows[prompt] for prompt in prompts])

    def _read_example(self, example: Example) -> torch.Tensor:
        """The embedding (d,), of length 1, of what an example's box holds, as the authors take it: of the patches whose boxes
        overlap it nearly as well as the best one, that which is least like the average of the picture."""
        import torch
        from torchvision.ops import box_iou, generalized_box_iou

        image = example.pixels()
        maps = self._model.image_embedder(self._pixels([image]))[0].float()
        patches = maps.flatten(1, 2)
        with self._exactly():
            boxes = self._model.box_predictor(patches, maps)[0]
            embedded = self._model.class_predictor(patches)[1][0]
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        width, height = (max(image.shape[:2]),) * 2 if self._padded else (image.shape[1], image.shape[0])
        wanted = boxes.new_tensor([example.box]) / boxes.new_tensor([width, height] * 2)
        corners = torch.cat([centre - half, centre + half], dim=1)
        iou = box_iou(wanted, corners)[0]
        if not iou.any():
            iou = generalized_box_iou(wanted, corners)[0]
        near = torch.where(iou >= iou.max() * NEARLY_THE_BEST)[0]
        if not len(near):  # all generalized IoUs are below 0
            near = iou.argmax(keepdim=True)
        chosen = embedded[near[(embedded[near] @ embedded.mean(dim=0)).argmin()]]
        return chosen / chosen.norm()  # type: ignore[no-any-return]

    def _read_words(self, prompts: Sequence[str]) -> torch.Tensor:
        ids, mask = self._tokens(prompts, self._model.config.text_config.max_position_embeddings)
        both = getattr(self._model, self._model.config.model_type)
        embedded = both.get_text_features(input_ids=ids, attention_mask=mask).pooler_output.float()
        return embedded / embedded.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]

    def _look(self, images: Sequence[RgbImage], words: torch.Tensor) -> list[Seen]:
        maps = self._model.image_embedder(self._pixels(images))[0].float()
        patches = maps.flatten(1, 2)
        with self._exactly():  # in bfloat16 a box of a thousand pixels would be wrong by four
            boxes = self._model.box_predictor(patches, maps)
            scores = self._model.class_predictor(patches, words)[0].sigmoid()
        return [Seen(*self._one(image, *answer)) for image, *answer in zip(images, boxes, scores, strict=True)]

    def _one(self, image: RgbImage, boxes: torch.Tensor, scores: torch.Tensor) -> tuple[Float32, Float32]:
        import torch
        from torchvision.ops import nms

        height, width = image.shape[:2]
        sides = (max(height, width),) * 2 if self._padded else (width, height)
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        xyxy = torch.cat([centre - half, centre + half], dim=1) * boxes.new_tensor(sides * 2)
        xyxy = xyxy.clamp(min=0).minimum(boxes.new_tensor((width, height) * 2))
        best = scores.amax(dim=1)
        seen = torch.where((best >= self._floor) & (xyxy[:, 2:] > xyxy[:, :2]).all(dim=1))[0]
        seen = seen[nms(xyxy[seen], best[seen], self._nms_iou)]
        return xyxy[seen].cpu().numpy(), scores[seen].cpu().numpy()

    def _pixels(self, images: Sequence[RgbImage]) -> torch.Tensor:
        import torch

        if not self._padded:
            return super()._pixels(images)
        made = torch.from_numpy(np.stack([in_a_square(image, self._images.size["height"]) for image in images])).to(self._device)
        mean, std = (made.new_tensor(values).view(1, 3, 1, 1) for values in (self._images.image_mean, self._images.image_std))
        return (made - mean) / std


def in_a_square(image_rgb: RgbImage, side_px: int) -> Float32:
    """(3, side, side) in 0..1: the picture at the top left of a black square, then blurred and resized, as OWLv2 was trained.

    The same numbers as transformers' processor, which makes the square and its blur whole: gigabytes for a large photograph.
    """
    height, width = image_rgb.shape[:2]
    side = max(height, width)
    across, down = (_shrinking(side, length, side_px) for length in (width, height))
    narrow = np.empty((height, side_px, 3), np.float32)
    for start in range(0, height, BLOCK_ROWS):
        rows = image_rgb[start : start + BLOCK_ROWS].astype(np.float32) / 255
        flat = across @ rows.transpose(1, 0, 2).reshape(width, -1)
        narrow[start : start + BLOCK_ROWS] = flat.reshape(side_px, len(rows), 3).transpose(1, 0, 2)
    small = (down @ narrow.reshape(height, -1)).reshape(side_px, side_px, 3)
    return np.ascontiguousarray(small.transpose(2, 0, 1))


@lru_cache(maxsize=32)
def _shrinking(side: int, length: int, out: int) -> csr_matrix:
    """(out, length): one axis of a Gaussian blur with mirrored edges, then of bilinear resizing from `side` pixels.

    The pixels from `length` to `side` are black, so they have no columns.
    """
    from scipy.sparse import csr_matrix

    sigma = max(side / out - 1, 0) / 2
    reach = ceil(3 * sigma)
    taps = np.arange(-reach, reach + 1)
    blur = np.exp(-((taps / sigma) ** 2) / 2) if sigma else np.ones(1)
    blur /= blur.sum()
    source = ((np.arange(out) + 0.5) * side / out - 0.5).clip(0)
    first = source.astype(int).clip(max=side - 1)
    share = source - first
    rows, columns, weights = [], [], []
    for near, part in ((first, 1 - share), ((first + 1).clip(max=side - 1), share)):
        touched = np.abs(near[:, None] + taps)
        touched = np.where(touched < side, touched, 2 * (side - 1) - touched)
        inside = touched < length
        rows.append(np.broadcast_to(np.arange(out)[:, None], touched.shape)[inside])
        columns.append(touched[inside])
        weights.append((part[:, None] * blur)[inside])
    cells = (np.concatenate(rows), np.concatenate(columns))
    return csr_matrix((np.concatenate(weights).astype(np.float32), cells), shape=(out, length))
