"""SAM and its relatives: boxes to masks, equal to the authors' predictors on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.errors import ConfigError, RecordError
from autodistill_grounded_sam.loading import Precision, inference
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.segment.models import ABOUT, family_of, load
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

if TYPE_CHECKING:
    from torch import Tensor

PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)  # RGB in 0..255, of ImageNet; the same in every SAM
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)
BAND_PX = 256  # columns of a mask that are interpolated at once: bounds the floats of a 200-megapixel image to some MB


class Sam:
    """Masks for boxes with SAM or a relative of it (`models`), after the protocol Segmenter; keeps no state between calls.

    `name` is `mini`, a hub id, a transformers folder or an official file; `device` a torch device (`cpu`, `cuda:0`, `mps`).
    `boxes_per_call` boxes go through the mask decoder at once, `images_per_call` images through the image encoder (None:
    one on a CPU, where more is no faster, else all). SAM answers a box with one mask, as in SegInW's protocol; for the other
    guesses see `config.MaskGuess`. `precision` is that of the image encoder (see `loading.inference`); masks are decoded in
    float32. Without `clip_boxes` SAM is told every box as it came, as in the authors' code. `loaded` is a model of transformers
    that is in memory already; `name` is only its name then.
    Raises WeightsError where the weights are missing, damaged or of another model.
    """

    about = ABOUT

    def __init__(
        self,
        name: str = "mini",
        *,
        device: str = "cpu",
        offline: bool = False,
        boxes_per_call: int = 64,
        images_per_call: int | None = None,
        mask_guess: MaskGuess = "single",
        precision: Precision = "float32",
        clip_boxes: bool = True,
        loaded: Any = None,
    ) -> None:
        for setting, value in (("boxes_per_call", boxes_per_call), ("images_per_call", images_per_call)):
            if value is not None and value < 1:
                raise ConfigError(f"{setting} must be at least 1, got {value}")
        model = load(name, offline=offline) if loaded is None else loaded
        family = family_of(model)
        if loaded is None and name == "mini" and mask_guess == "best-of-three":
            raise ConfigError("mini has learnt to give a single answer, and its three guesses are noise; give mask_guess single")
        if mask_guess == "hq-only" and model.config.model_type != "sam_hq":
            raise ConfigError(f"mask_guess 'hq-only' is of SAM-HQ, and {name} is {family.title}; give single or best-of-three")
        self._model = model.to(device).eval()
        self._decoder = family.decoder(self._model)
        self._device: str = device
        self._precision: Precision = precision
        self._boxes_per_call, self._clip_boxes = boxes_per_call, clip_boxes
        self._mask_guess: MaskGuess = mask_guess
        self._square_px: int = self._model.prompt_encoder.input_image_size
        self._family = family
        self._images_per_call = images_per_call or (1 if device.startswith("cpu") else None)

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        """Each image's candidates with `rle` and `mask_score` (SAM's own estimate of the IoU, clipped to 0..1).

        `images` are RGB. Boxes are clipped to the image for SAM and returned as they came; one that has no area inside the image
        gets an empty mask and score 0. An image without such boxes never touches the model.
        """
        import torch

        if len(images) != len(candidates):
            raise RecordError(f"expected one Candidates an image, got {len(images)} images and {len(candidates)} Candidates")
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise RecordError(f"an image must be RGB, uint8 (height, width, 3), got {image.dtype} of shape {image.shape}")
        done = [_without_masks(found, image) for found, image in zip(candidates, images, strict=True)]
        busy = [i for i, image in enumerate(images) if len(self._boxes(done[i].xyxy, image)[0])]
        with torch.inference_mode(), ThreadPoolExecutor(1, thread_name_prefix="masks") as beside:
            # A GPU goes on with the next image while the processor makes run-length codes of this one's masks.
            finish = _at_once if self._device.startswith("cpu") else beside.submit
            step, finished = self._images_per_call or max(1, len(busy)), []
            for start in range(0, len(busy), step):
                part = busy[start : start + step]
                for i, embedding in zip(part, self._embed([images[i] for i in part]), strict=True):
                    decoded = self._decode(embedding, images[i], done[i])
                    finished.append(finish(self._masks, done[i], images[i].shape[:2], decoded))
            for i, future in zip(busy, finished, strict=True):
                done[i] = future.result()
        return done

    def _decode(self, embedding: Any, image: RgbImage, found: Candidates) -> Decoded:
        import torch

        height, width = image.shape[:2]
        fitted_height, fitted_width = self._fitted(height, width)
        rows, xyxy = self._boxes(found.xyxy, image)
        scaled = torch.from_numpy((xyxy * ([fitted_width / width, fitted_height / height] * 2)).astype(np.float32))
        seen = self._decoder.see(embedding)
        calls = [
            self._decoder.decode(seen, boxes.to(self._device), self._mask_guess)
            for boxes in torch.split(scaled, self._boxes_per_call)
        ]
        return Decoded(rows, [logits.cpu() for logits, _ in calls], torch.cat([iou for _, iou in calls]).cpu().numpy())

    def _boxes(self, xyxy: Float32, image: RgbImage) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Indices of the boxes that SAM is asked for, and how it is told them (float64)."""
        return _boxes_with_area(xyxy, image) if self._clip_boxes else (np.arange(len(xyxy)), xyxy.astype(np.float64))

    def _masks(self, found: Candidates, shape: tuple[int, int], decoded: Decoded) -> Candidates:
        """`found` with masks of `shape` (height, width)."""
        rle, score = list(found.rle or ()), np.zeros(len(found), np.float32)
        score[decoded.rows] = decoded.iou.clip(0, 1)
        low = decoded.logits[0].shape[-1]
        upsampling = Upsampling(low, None if self._family.stretched else self._square_px, self._fitted(*shape), shape)
        for row, mask_logits in zip(decoded.rows, chain.from_iterable(decoded.logits), strict=True):
            rle[row] = encode_mask(upsampling.mask(mask_logits))
        return replace(found, rle=tuple(rle), mask_score=score)

    def _pixels(self, image: RgbImage) -> Float32:
        if not self._family.stretched:
            return square_pixels(image, self._square_px)
        return stretched_pixels(image, self._square_px, self._family.mean, self._family.std)

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image is given within the model's square."""
        return (self._square_px,) * 2 if self._family.stretched else fitted_size(height, width, self._square_px)

    def _embed(self, images: Sequence[RgbImage]) -> Sequence[Any]:
        """What the mask decoder wants to know of each image."""
        import torch

        pixels = torch.from_numpy(np.stack([self._pixels(image) for image in images]))
        with inference(self._device, self._precision):
            return self._decoder.embed(pixels.to(self._device))


class Decoded(NamedTuple):
    """Of one image, on the processor: the `rows` of its candidates that have an area, their `logits` (n, low, low), call by call,
    and predicted `iou` (n,)."""

    rows: npt.NDArray[np.intp]
    logits: list[Tensor]
    iou: Float32


class Upsampling:
    """From SAM's logits to the mask of one image: to the padded square, crop, to the image, both bilinear, then > 0. Without a
    `square`, as in SAM 2, straight to the image.

    Both steps and the crop are linear and separable, so they are one matrix an axis. That equals the authors'
    `postprocess_masks` and allows to compute no more than the part of a mask that can be positive, in bands of bounded size.
    """

    def __init__(self, low: int, square_px: int | None, fitted: tuple[int, int], original: tuple[int, int]) -> None:
        self._rows, self._columns = (
            _interpolation(low, square_px, kept, full) for kept, full in zip(fitted, original, strict=True)
        )

    def mask(self, logits: Tensor) -> npt.NDArray[np.uint8]:
        """The 0/1 mask (height, width) of `logits` (low, low), in column-major order as the run-length code wants it."""
        mask: npt.NDArray[np.uint8] = np.zeros((len(self._rows), len(self._columns)), np.uint8, order="F")
        positive = (logits > 0).float()
        # An interpolated value lies between its neighbours: where none is positive, nothing need be computed.
        y1, y2 = _span(self._rows @ positive.amax(dim=1))
        x1, x2 = _span(self._columns @ positive.amax(dim=0))
        tall = logits.T @ self._rows[y1:y2].T
        for x in range(x1, x2, BAND_PX):
            band = self._columns[x : min(x + BAND_PX, x2)]
            first, last = _span(band.amax(dim=0))
            mask.T[x : x + len(band), y1:y2] = (band[:, first:last] @ tall[first:last] > 0).numpy()
        return mask


def _at_once(work: Callable[..., Candidates], *arguments: Any) -> Future[Candidates]:
    """`submit` of an executor that has no thread."""
    future: Future[Candidates] = Future()
    future.set_result(work(*arguments))
    return future


def fitted_size(height: int, width: int, longest_px: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is brought to `longest_px`, at least 1 each (ResizeLongestSide)."""
    scale = longest_px / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def square_pixels(image: RgbImage, square_px: int) -> Float32:
    """The image encoder's input (3, square_px, square_px): resized (bilinear, antialiased), normalised, zeros right and below."""
    from PIL import Image

    height, width = fitted_size(image.shape[0], image.shape[1], square_px)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    pixels = np.zeros((3, square_px, square_px), np.float32)
    pixels[:, :height, :width] = ((resized - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
    return pixels


def stretched_pixels(image: RgbImage, square_px: int, mean: Sequence[float], std: Sequence[float]) -> Float32:
    """The same of models that are shown the image stretched to their square. Their authors do not round it to grey levels."""
    from PIL import Image

    pixels = np.empty((3, square_px, square_px), np.float32)
    for channel in range(3):
        whole = Image.fromarray(image[:, :, channel].astype(np.float32))
        resized = np.asarray(whole.resize((square_px, square_px), Image.Resampling.BILINEAR))
        pixels[channel] = (resized - mean[channel]) / std[channel]
    return pixels


def _boxes_with_area(xyxy: Float32, image: RgbImage) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Indices of the boxes that cover a part of the image, and these boxes (float64) clipped to it."""
    height, width = image.shape[:2]
    inside = xyxy.astype(np.float64).clip(0, [width, height, width, height])
    index = np.flatnonzero((inside[:, 2:] > inside[:, :2]).all(axis=1))
    return index, inside[index]


def _without_masks(found: Candidates, image: RgbImage) -> Candidates:
    rle = (encode_mask(np.zeros(image.shape[:2], np.uint8, order="F")),) * len(found) if len(found) else ()
    return replace(found, rle=rle, mask_score=np.zeros(len(found), np.float32))


def _interpolation(low: int, square: int | None, kept: int, full: int) -> Tensor:
    """The matrix (full, low) of linear interpolation from `low` to `square` samples, of which `kept` are brought to `full`;
    without a `square` from `low` to `full` at once."""
    import torch
    from torch.nn.functional import interpolate

    samples = torch.eye(low)[None]
    if square is not None:
        samples = interpolate(samples, square, mode="linear", align_corners=False)[..., :kept]
    return interpolate(samples, full, mode="linear", align_corners=False)[0].T.contiguous()


def _span(values: Tensor) -> tuple[int, int]:
    """First and one past the last index of what is not zero; (0, 0) where all is."""
    index = values.nonzero()
    return (int(index[0]), int(index[-1]) + 1) if len(index) else (0, 0)
