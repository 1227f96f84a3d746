"""Grounding DINO (and MM Grounding DINO, LLMDet) of transformers as a detector of the house.

Every image keeps its own size: nothing is padded, so a result does not depend on what an image was batched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.detect.common import check_floor_and_batch, check_image, load_model
from autodistill_grounded_sam.detect.fast import FastGroundingDino
from autodistill_grounded_sam.detect.spans import Caption, SpanScore, pack_captions, span_scores
from autodistill_grounded_sam.errors import ConfigError, OntologyError, WeightsError
from autodistill_grounded_sam.loading import Precision, inference
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage
from autodistill_grounded_sam.weights import FoundWeights, find_weights

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")
MOST_TOKENS = 256  # the official code cuts there; a model may read fewer
SAME_OBJECT_IOU = 0.9  # of boxes that two captions found: above it they are one object
MOST_TO_MERGE = 300  # boxes of one caption: three times the 100 of an image that a store keeps (`max_candidates`)
OFFICIAL_SIZES_PX = (800, 1333)


class GroundingDino:
    """Detector on transformers' Grounding DINO: `mini`, a hub id, a transformers folder, or an official `.pth`.

    `shorter_side_px` and `longer_side_px` bound the model's input (default: as the model was trained, 800 and 1333 for the
    official ones); the proportions are kept. Prompts of one group in `prompt_groups` travel in one caption. `span_score` and
    `text_threshold` are those of `spans.span_scores`. Candidates below `floor` are left out. `batch_size` is the most images in
    one forward pass; None is 1 on a CPU, where more is no faster and one by one gives the very same bits in any batch, else
    all. `config` and `tokenizer` are for official files: overrides of what the shapes do not tell, and where their words
    come from. `device` is a torch device, `precision` that of `loading.inference`. `fast` is our own forward pass (see
    fast.py), equal within rounding; without it, and for models that it does not know, transformers' is used. `loaded` is a model
    that is in memory already; `name` is only its name then.

    Raises WeightsError where the weights are missing, damaged or of another kind of model, ConfigError for wrong settings.
    """

    def __init__(
        self,
        name: str = "mini",
        *,
        device: str = "cpu",
        offline: bool = False,
        shorter_side_px: int | None = None,
        longer_side_px: int | None = None,
        prompt_groups: Sequence[Sequence[str]] = (),
        span_score: SpanScore = "gate",
        text_threshold: float = 0.25,
        floor: float = 0.05,
        batch_size: int | None = None,
        precision: Precision = "float32",
        fast: bool = True,
        config: Mapping[str, Any] | None = None,
        tokenizer: str = "bert-base-uncased",
        loaded: Loaded | None = None,
    ) -> None:
        if span_score not in ("mean", "max", "gate"):
            raise ConfigError(f"span_score must be mean, max or gate, got {span_score!r}")
        check_floor_and_batch(floor, batch_size)
        model, words, inputs = loaded or load(name, offline=offline, config=config, tokenizer=tokenizer)
        self.name = name
        self._model, self._tokenizer = model.to(device), words
        self._forward: Any = (FastGroundingDino if fast and FastGroundingDino.fits(self._model) else _ByTheBook)(self._model)
        self._inputs = inputs.bounded(shorter_side_px, longer_side_px)
        self._device, self._precision, self._batch_size = (
            device,
            precision,
            batch_size or (1 if device.startswith("cpu") else None),
        )
        self._groups, self._span_score, self._text_threshold = prompt_groups, span_score, text_threshold
        self._floor = floor
        self._captions = lru_cache(maxsize=8)(self._pack)
        self._read = lru_cache(maxsize=64)(self._read_caption)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size has inside the model; images of one such size can share a forward pass.

        Equals the official rule, but never below what the model needs for its queries: an extremely long and thin image is
        made thicker there (boxes are relative, so they come back right).
        """
        return enough_cells(self._model.config, *self._inputs.size(width, height))

    def group_prompts(self, prompt_groups: Sequence[Sequence[str]]) -> None:
        """From now on prompts of these groups travel in one caption."""
        self._groups = prompt_groups
        self._captions.cache_clear()

    def captions(self, prompts: Sequence[str]) -> tuple[Caption, ...]:
        """The captions that ask these prompts, as few as fit; raises OntologyError for a prompt that is too long by itself."""
        return self._captions(tuple(prompts))

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        """All boxes of which some prompt scores at least `floor`, best first, one column of scores a prompt, in order.

        Boxes of different captions with an IoU of 0.9 are one object with the scores of both, so that all classes and
        negatives compete; exact duplicates are one candidate.
        """
        captions = self.captions(prompts)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            check_image(image)
            groups.setdefault(self.resized_size(image.shape[1], image.shape[0]), []).append(index)
        results = [Candidates.none(len(prompts))] * len(images)
        for size, members in groups.items() if captions else ():
            step = self._batch_size or len(members)
            for start in range(0, len(members), step):
                part = members[start : start + step]
                for index, found in zip(part, self._see([images[i] for i in part], size, captions, len(prompts)), strict=True):
                    results[index] = found
        return results

    def queries(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        """The box of every query as the model says it: not clipped, merged, sorted or left out; scored by the mean over each
        prompt's tokens, whatever `span_score` is. This is what the official evaluation ranks.

        Raises OntologyError for prompts that do not fit in one caption.
        """
        captions = self.captions(prompts)
        if len(captions) > 1:
            raise OntologyError(
                f"{len(prompts)} prompts take {len(captions)} captions of {self.name} but must fit in one: ask fewer or shorter"
            )
        results = [Candidates.none(len(prompts))] * len(images)
        for index, image in enumerate(images) if captions else ():
            check_image(image)
            height, width = image.shape[:2]
            ((logits, boxes),) = self._ask([image], self.resized_size(width, height), captions)
            columns = np.zeros((len(boxes[0]), len(prompts)), np.float32)
            columns[:, captions[0].prompts] = span_scores(logits[0], captions[0], "mean")
            results[index] = Candidates(boxes[0] * np.array([width, height] * 2, np.float32), columns)
        return results

    def _see(
        self, images: Sequence[RgbImage], size: tuple[int, int], captions: Sequence[Caption], prompts: int
    ) -> list[Candidates]:
        answers = self._ask(images, size, captions)
        results = []
        for row, image in enumerate(images):
            boxes, scores, caption_of = [], [], []
            for number, (caption, (logits, found)) in enumerate(zip(captions, answers, strict=True)):
                columns = np.zeros((len(found[row]), prompts), np.float32)
                columns[:, caption.prompts] = span_scores(logits[row], caption, self._span_score, self._text_threshold)
                boxes.append(found[row].clip(0, 1))
                scores.append(columns)
                caption_of.append(np.full(len(columns), number))
            relative, merged, _ = merge_captions(
                np.concatenate(boxes), np.concatenate(scores), np.concatenate(caption_of), self._floor
            )
            results.append(_candidates(relative, merged, image.shape[1], image.shape[0]))
        return results

    def _ask(
        self, images: Sequence[RgbImage], size: tuple[int, int], captions: Sequence[Caption]
    ) -> list[tuple[Float32, Float32]]:
        """For each caption: logits (images, queries, tokens) and boxes (images, queries, 4), relative xyxy."""
        import torch

        with inference(self._device, self._precision):
            pixels = torch.cat([self._inputs.pixels(image, size, self._device) for image in images])
            seen, answers = self._forward.see(pixels), []
            for caption in captions:
                logits, boxes = self._forward.ask(seen, self._read(tuple(caption.input_ids)))
                centre, extent = boxes[..., :2].float(), boxes[..., 2:].float()
                corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1)
                answers.append((logits.float().cpu().numpy(), corners.cpu().numpy()))
        return answers

    def _read_caption(self, input_ids: tuple[int, ...]) -> Any:
        import torch

        return self._forward.read(torch.tensor([input_ids], device=self._device))

    def _pack(self, prompts: tuple[str, ...]) -> tuple[Caption, ...]:
        settings = self._model.config
        limit = min(MOST_TOKENS, settings.max_text_len)
        # Positions count anew after every delimiter, and a prompt's dot has one as well.
        return pack_captions(prompts, self._tokenizer, limit, self._groups, settings.text_config.max_position_embeddings - 1)


class _ByTheBook:
    """transformers' own forward pass, for models that FastGroundingDino does not know."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def read(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids

    def ask(self, seen: torch.Tensor, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = read.expand(len(seen), -1)
        answer = self._model(pixel_values=seen, input_ids=ids, attention_mask=ids.new_ones(ids.shape))
        return answer.logits, answer.pred_boxes


def merge_captions(
    boxes_xyxy: Float32, scores: Float32, caption_of: npt.NDArray[np.int_], floor: float
) -> tuple[Float32, Float32, npt.NDArray[np.int_]]:
    """Boxes (n, 4) and scores (n, P) above the floor, best first, and the rows (n,) that they come from; one object that several
    captions found becomes one row.

    A box takes the element-wise maximum with every box of another caption that overlaps it by IoU >= 0.9, then of such
    boxes only the best remains. Boxes of the same caption are left as they are: `decide` judges duplicates. Of several captions
    each one's best `MOST_TO_MERGE` boxes take part.
    """
    best = scores.max(axis=1)
    usable = np.flatnonzero(np.isfinite(boxes_xyxy).all(axis=1))
    rows = usable[np.argsort(-best[usable], kind="stable")]
    several = len(np.unique(caption_of)) > 1
    if several:
        rows = rows[_rank_in_caption(caption_of[rows]) < MOST_TO_MERGE]
    boxes, merged, captions = boxes_xyxy[rows], scores[rows], caption_of[rows]
    kept = best[rows] >= floor  # the first ones; what is below the floor still gives its scores to what is above
    for row in range(int(kept.sum())) if several else ():
        if kept[row]:  # only what is still there is compared, a row at a time: all pairs at once take a gigabyte
            same = np.flatnonzero((_iou(boxes[row], boxes) >= SAME_OBJECT_IOU) & (captions != captions[row]))
            merged[row] = np.maximum(scores[rows[row]], scores[rows[same]].max(axis=0, initial=0))
            kept[same[same > row]] = False
    boxes, merged, rows = boxes[kept], merged[kept], rows[kept]
    order = np.argsort(-merged.max(axis=1), kind="stable")
    return boxes[order], merged[order], rows[order]


def _rank_in_caption(caption_of: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
    """How many rows of the same caption come before each row."""
    order = np.argsort(caption_of, kind="stable")
    numbers, starts = np.unique(caption_of[order], return_index=True)
    ranks = np.empty(len(order), np.int_)
    ranks[order] = np.arange(len(order)) - starts[np.searchsorted(numbers, caption_of[order])]
    return ranks


def _iou(box_xyxy: Float32, others_xyxy: Float32) -> Float32:
    x1, y1, x2, y2 = others_xyxy.T
    width = (np.minimum(box_xyxy[2], x2) - np.maximum(box_xyxy[0], x1)).clip(0)
    common = width * (np.minimum(box_xyxy[3], y2) - np.maximum(box_xyxy[1], y1)).clip(0)
    area, areas = (box_xyxy[2:] - box_xyxy[:2]).clip(0).prod(), (x2 - x1).clip(0) * (y2 - y1).clip(0)
    iou: Float32 = common / np.maximum(area + areas - common, np.finfo(np.float32).tiny)
    return iou


def _candidates(relative_xyxy: Float32, scores: Float32, width: int, height: int) -> Candidates:
    """In pixels; rows of one and the same box become one with the best of each score."""
    scale = np.array([width, height, width, height], np.float32)
    xyxy = (relative_xyxy * scale).astype(np.float32)
    whole = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    xyxy, scores = xyxy[whole], scores[whole]
    _, first, group = np.unique(xyxy, axis=0, return_index=True, return_inverse=True)
    best_of_group = np.zeros((len(first), scores.shape[1]), np.float32)
    np.maximum.at(best_of_group, group.reshape(-1), scores)
    boxes = xyxy[first]
    order = np.lexsort((first, -best_of_group.max(axis=1, initial=0)))  # rows come best first; equals stay in that order
    return Candidates(boxes[order], best_of_group[order])


class Loaded(NamedTuple):
    """A model in eval mode with float32 weights, its tokenizer, and how an image becomes its input."""

    model: Any
    tokenizer: Any
    inputs: Inputs


def load(
    name: str, *, offline: bool = False, config: Mapping[str, Any] | None = None, tokenizer: str = "bert-base-uncased"
) -> Loaded:
    """What `name` stands for, with the arguments and errors of `GroundingDino`."""
    weights = find_weights(name, "detector", offline=offline)
    if weights.kind == "official":
        return _load_official(weights, config, tokenizer, offline)
    if config is not None:
        raise ConfigError(f"config= is for official files; {name} is a transformers folder and has its own config.json")
    return _load_transformers(weights)


@dataclass(frozen=True)
class Inputs:
    """How an image becomes the model's input: sides in pixels (`fixed` (width, height) where the proportions are not kept)."""

    shorter_px: int
    longer_px: int
    fixed: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def bounded(self, shorter_px: int | None, longer_px: int | None) -> Inputs:
        """With other bounds; where only the shorter is given, the longer keeps its ratio to it."""
        if shorter_px is None and longer_px is None:
            return self
        shorter = shorter_px or min(self.shorter_px, longer_px or self.shorter_px)
        longer = longer_px or round(shorter * self.longer_px / self.shorter_px)
        if not 16 <= shorter <= longer:
            raise ConfigError(
                f"the detector's input must have 16 <= shorter_side_px <= longer_side_px, got {shorter} and {longer}"
            )
        return Inputs(shorter, longer, None, self.mean, self.std)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The rule of the official code (`get_size_with_aspect_ratio`, as in DETR); a side that it rounds to 0 is 1."""
        if self.fixed is not None:
            return self.fixed
        short, long = min(width, height), max(width, height)
        shorter = self.shorter_px
        if long / short * shorter > self.longer_px:
            shorter = round(self.longer_px * short / long)
        if shorter == short:
            return width, height
        longer = int(shorter * long / short) if shorter else self.longer_px
        shorter = max(shorter, 1)
        return (shorter, longer) if width < height else (longer, shorter)

    def pixels(self, image: RgbImage, size: tuple[int, int], device: str) -> torch.Tensor:
        """(1, 3, height, width) float32: resized in uint8 on the CPU (antialiased bilinear, as Pillow does), then normalised."""
        import torch
        from torch.nn.functional import interpolate

        tensor = torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)[None]
        if size != (image.shape[1], image.shape[0]):
            tensor = interpolate(tensor, (size[1], size[0]), mode="bilinear", align_corners=False, antialias=True)
        return self.normalised(tensor.to(device))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) uint8 to float32, as the model takes it."""
        import torch

        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels.to(torch.float32) / 255 - mean) / std


def enough_cells(config: Any, width: int, height: int) -> tuple[int, int]:
    """The size itself, or the least larger one whose feature maps have a cell for every query (the model takes the best ones)."""
    backbone = config.backbone_config
    stride = getattr(backbone, "patch_size", 4) * 2 ** (min(backbone.out_indices) - 1)

    def cells(width: int, height: int) -> int:
        strides = [stride << level for level in range(config.num_feature_levels)]
        return sum(ceil(width / step) * ceil(height / step) for step in strides)

    least = 0
    while cells(max(width, least), max(height, least)) < config.num_queries:
        least += stride
    return max(width, least), max(height, least)


def _load_official(weights: FoundWeights, config: Mapping[str, Any] | None, tokenizer: str, offline: bool) -> Loaded:
    from autodistill_grounded_sam.detect.official import load_official

    beside = beside_official(tokenizer, offline)  # a missing tokenizer is told before a large file is read
    return Loaded(load_official(weights.path, config), *beside)


def beside_official(tokenizer: str, offline: bool) -> tuple[Any, Inputs]:
    """What an official file does not hold: the tokenizer, and the authors' own image settings."""
    words = _tokenizer(find_weights(tokenizer, "tokenizer", offline=offline).path)
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return words, Inputs(*OFFICIAL_SIZES_PX, None, *imagenet)


def _load_transformers(weights: FoundWeights) -> Loaded:
    from transformers import AutoImageProcessor

    path = weights.path
    model = load_model(path, MODEL_TYPES, "AutoModelForZeroShotObjectDetection")
    processor = AutoImageProcessor.from_pretrained(path, local_files_only=True)
    size, norm = processor.size, (tuple(processor.image_mean), tuple(processor.image_std))
    if size.shortest_edge and size.longest_edge:
        inputs = Inputs(size.shortest_edge, size.longest_edge, None, *norm)
    elif size.height and size.width:
        inputs = Inputs(min(size.height, size.width), max(size.height, size.width), (size.width, size.height), *norm)
    else:
        raise WeightsError(
            f"the image processor of {path} has the size {size}; expected shortest and longest edge, or height and width"
        )
    return Loaded(model, _tokenizer(path), inputs)


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if not tokenizer.is_fast:
        raise WeightsError(f"the tokenizer in {path} gives no character offsets; expected a fast one (tokenizer.json)")
    return tokenizer
