"""What the detectors on transformers share: a folder loaded whole or not at all, settings refused, images asked in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import ConfigError, OntologyError, RecordError, WeightsError
from autodistill_grounded_sam.example_images import read_example
from autodistill_grounded_sam.loading import Precision, inference, quiet_loading
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage, Rle
from autodistill_grounded_sam.weights import find_weights

if TYPE_CHECKING:
    import torch


class Seen(NamedTuple):
    """Boxes (n, 4), xyxy in pixels, and scores (n, P) in one image; `masks` makes those of the rows that it is given, if
    the model draws any."""

    xyxy: Float32
    scores: Float32
    masks: Callable[[npt.NDArray[np.int_]], tuple[Rle, ...]] | None = None


class SquareDetector(ABC):
    """Base of the detectors whose model takes one fixed input size, so that images of all sizes share a batch.

    A subclass says which weights it runs (`model_types`, `model_class`) and answers `_read` (prompts, once for all images) and
    `_look` (a batch of images). `floor`, `batch_size`, `device` and `precision` are those of `GroundingDino`. No caption is
    made here, so `prompt_groups` change nothing and there are no spans: another `span_score` than the default is refused, as
    are other input sizes.

    `examples` are the documents of example images by the prompts that stand for them. With `own_masks` the
    best so many candidates of an image have the masks that the model itself draws, and the others are left out.

    Raises WeightsError where the weights are missing, damaged or of another kind of model, ConfigError for wrong settings.
    """

    model_types: ClassVar[tuple[str, ...]]
    takes_examples: ClassVar[bool] = False
    makes_masks: ClassVar[bool] = False
    usual_threshold: ClassVar[float] = 0.35  # the score that is commonly asked of this model; an ensemble compares them by it
    model_class: ClassVar[str] = "AutoModelForZeroShotObjectDetection"  # of transformers

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        offline: bool = False,
        shorter_side_px: int | None = None,
        longer_side_px: int | None = None,
        prompt_groups: Sequence[Sequence[str]] = (),
        span_score: str = "gate",
        floor: float = 0.05,
        batch_size: int | None = None,
        precision: Precision = "float32",
        examples: Mapping[str, Mapping[str, Any]] | None = None,
        own_masks: int = 0,
    ) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer

        check_floor_and_batch(floor, batch_size)
        if shorter_side_px is not None or longer_side_px is not None:
            raise ConfigError(f"{name} has one input size; leave shorter_side_px and longer_side_px out")
        if span_score != "gate":
            raise ConfigError(f"span_score={span_score!r} is for Grounding DINO; {name} gives a prompt one score, leave it out")
        path = find_weights(name, "detector", offline=offline).path
        self.name = name
        self._examples = {prompt: read_example(one, Path()) for prompt, one in (examples or {}).items()}
        if self._examples and not self.takes_examples:
            raise ConfigError(f"{name} knows words alone, so it cannot be given example images")
        if own_masks and not self.makes_masks:
            raise ConfigError(f"{name} makes no masks of its own; name a segmenter, or leave masks out")
        self._own_masks = own_masks
        self._model = load_model(path, self.model_types, self.model_class).to(device)
        self._images = AutoImageProcessor.from_pretrained(path, local_files_only=True)
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self._device, self._precision, self._floor = device, precision, floor
        self._batch_size = batch_size or (1 if device.startswith("cpu") else None)  # one by one: the very same bits in any batch
        self._words = lru_cache(maxsize=8)(self._read)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the model's input, the same for every image."""
        return self._images.size["width"], self._images.size["height"]

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        """All boxes of which some prompt scores at least `floor`, best first, one column of scores a prompt, in order."""
        for image in images:
            check_image(image)
        if not images or not prompts:
            return [Candidates.none(len(prompts)) for _ in images]
        results: list[Candidates] = []
        step = self._batch_size or len(images)
        with inference(self._device, self._precision):
            words = self._words(tuple(prompts))
            for start in range(0, len(images), step):
                part = images[start : start + step]
                for image, seen in zip(part, self._look(part, words), strict=True):
                    results.append(best_first(seen, image.shape[1], image.shape[0], self._floor, self._own_masks or None))
        return results

    @abstractmethod
    def _read(self, prompts: tuple[str, ...]) -> Any:
        """What the model makes of the prompts, whatever the image; kept for the next images."""

    @abstractmethod
    def _look(self, images: Sequence[RgbImage], words: Any) -> Iterable[Seen]:
        """What is in each image, image by image, the floor not yet applied."""

    def _exactly(self) -> AbstractContextManager[None]:
        """Around heads that say where and how sure: float32, whatever the precision."""
        import torch

        return torch.autocast(self._device.partition(":")[0], enabled=False)

    def _pixels(self, images: Sequence[RgbImage]) -> torch.Tensor:
        """(b, 3, height, width) float32 by the image processor of the weights."""
        import torch

        # One by one: a processor does not mix sizes. The layout is told, else an image 3 pixels high is taken for channels.
        own = [image if image.flags.writeable else image.copy() for image in images]
        made = [self._images(images=[image], input_data_format="channels_last", return_tensors="pt") for image in own]
        return torch.cat([one["pixel_values"] for one in made]).to(self._device)

    def _tokens(self, prompts: Sequence[str], most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, each (P, most), filled up as the weights' own tokenizer does; raises OntologyError if too long."""
        for prompt, ids in zip(prompts, self._tokenizer(list(prompts))["input_ids"], strict=True):
            if len(ids) > most:
                raise OntologyError(f"prompt {prompt!r} is {len(ids)} tokens long, but this model reads at most {most}")
        made = self._tokenizer(list(prompts), padding="max_length", max_length=most, return_tensors="pt")
        return made["input_ids"].to(self._device), made["attention_mask"].to(self._device)


def check_floor_and_batch(floor: float, batch_size: int | None) -> None:
    if not 0 <= floor <= 1:
        raise ConfigError(f"floor must be in [0, 1], got {floor}")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")


def check_image(image: RgbImage) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise RecordError(f"expected an RGB image, uint8 (height, width, 3), got {image.dtype} of shape {image.shape}")


def load_model(path: Path, model_types: Sequence[str], model_class: str) -> Any:
    """The model of a transformers folder, in eval mode and float32; nothing in it is ever filled up at random."""
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        model_type = transformers.AutoConfig.from_pretrained(path, local_files_only=True).model_type
    except (ValueError, KeyError, OSError, StrictDataclassError) as error:
        raise WeightsError(f"{path / 'config.json'} cannot be read: {error}") from error
    if model_type not in model_types:
        raise WeightsError(f"{path} holds a {model_type!r} model; this detector runs {' and '.join(model_types)}")
    try:
        with quiet_loading():
            model, report = getattr(transformers, model_class).from_pretrained(
                path, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise WeightsError(f"the weights in {path} cannot be read: {error}") from error
    faults = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "mismatched_keys") if report[kind]}
    if faults:
        shown = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:5])} ({len(keys)})" for kind, keys in faults.items())
        raise WeightsError(f"the weights in {path} do not fit their config.json ({shown}); fetch them again")
    return model.eval()


def best_first(seen: Seen, width: int, height: int, floor: float, most: int | None = None) -> Candidates:
    """What is finite, has an area inside the image and some score of at least `floor`, clipped to the image; the best `most`."""
    rows = np.flatnonzero(np.isfinite(seen.xyxy).all(axis=1) & np.isfinite(seen.scores).all(axis=1))
    boxes = seen.xyxy[rows].clip(0, [width, height, width, height]).astype(np.float32)
    scores = seen.scores[rows].astype(np.float32)
    best = scores.max(axis=1, initial=0)
    whole = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (best >= floor))
    order = whole[np.argsort(-best[whole], kind="stable")][:most]
    return Candidates(boxes[order], scores[order], None if seen.masks is None else seen.masks(rows[order]))
