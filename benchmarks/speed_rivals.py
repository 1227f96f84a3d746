"""The rivals of speed.py that run in its own process: this package, and transformers as its documentation shows it.

A rival's `line` labels one image file and tells the samples that it measured: the whole, and its parts. Random weights find
random boxes, so the thresholds let none pass and the segmenters get boxes that were given; all that costs time is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from autodistill_grounded_sam.config import SeeConfig
from autodistill_grounded_sam.detect.grounding_dino import GroundingDino
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.images import scan
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.segment.encoder import encode
from autodistill_grounded_sam.segment.sam import Sam, square_pixels
from autodistill_grounded_sam.types import Candidates, Float32, RgbImage

Boxes = Sequence[Sequence[float]]  # xyxy in pixels
NOTHING_PASSES = 1.0  # of a threshold on scores


class Sample(NamedTuple):
    """Seconds of one `part` (line, detect, segment, encode) of one image, by the wall clock and of all processor cores."""

    rival: str
    part: str
    classes: int
    objects: int
    wall: float
    processor: float


class Answer(NamedTuple):
    """What a rival says of one image: its detector's boxes for one class (n, 4), and masks (k, height, width) of given boxes."""

    boxes: npt.NDArray[Any]
    masks: npt.NDArray[Any]


class Rival(Protocol):
    name: str

    def line(self, image: Path, prompts: Sequence[str], boxes: Boxes) -> list[Sample]: ...

    def encode(self, image: Path) -> list[Sample]: ...

    def answer(self, image: Path, prompt: str, boxes: Boxes) -> Answer: ...


@dataclass
class Watch:
    """Measures parts of one rival's work on one image."""

    rival: str
    classes: int = 0
    objects: int = 0
    samples: list[Sample] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        self.samples.append(Sample(self.rival, name, self.classes, self.objects, wall, processor))


class _Measured:
    """Our detector and segmenter as the worker asks for them (a plugin is built without arguments), each call measured."""

    detector: ClassVar[GroundingDino]
    segmenter: ClassVar[Sam]
    boxes: ClassVar[Boxes]
    watch: ClassVar[Watch]


class MeasuredDetector(_Measured):
    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        with self.watch.part("detect"):
            found = self.detector.detect(images, prompts)
        return [_candidates(self.boxes, len(prompts)) for _ in found]


class MeasuredSegmenter(_Measured):
    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        with self.watch.part("segment"):
            return self.segmenter.segment(images, candidates)


class Ours:
    """This package: the worker that every engine runs, from an image file to boxes and run-length coded masks."""

    name = "ours"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _Measured.detector = self.detector = GroundingDino(str(folder / "detector"), floor=NOTHING_PASSES)
        _Measured.segmenter = self.segmenter = Sam(str(folder / "segmenter"))
        for model in (self.detector._model, self.segmenter._model):
            model.requires_grad_(False)  # torch's counter of operations stumbles over parameters that could be trained
        self._workers: dict[tuple[str, ...], SeeWorker] = {}

    def line(self, image: Path, prompts: Sequence[str], boxes: Boxes) -> list[Sample]:
        worker = self._worker(tuple(prompts))
        (record,) = [found for found in scan(image.parent).images if found.path == image]
        _Measured.boxes = boxes
        _Measured.watch = watch = Watch(self.name, len(prompts), len(boxes))
        with watch.part("line"):
            (sighting,) = worker([record])
        if sighting.candidates is None or len(sighting.candidates) != len(boxes):
            raise RuntimeError(f"our line lost boxes of {image}: {sighting.reason} {sighting.detail}")
        return watch.samples

    def encode(self, image: Path) -> list[Sample]:
        import torch

        watch, model = Watch(self.name), self.segmenter._model
        pixels = torch.from_numpy(square_pixels(read_rgb(image), model.config.vision_config.image_size)[None])
        with torch.inference_mode(), watch.part("encode"):
            encode(model.vision_encoder, pixels)
        return watch.samples

    def answer(self, image: Path, prompt: str, boxes: Boxes) -> Answer:
        pixels = read_rgb(image)
        found = GroundingDino(str(self._folder / "detector"), floor=0.0).detect([pixels], [prompt])[0]
        masks = [decode_mask(rle) for rle in self.segment(pixels, boxes).rle or ()]
        return Answer(found.xyxy, np.array(masks).astype(np.bool_))

    def segment(self, pixels: RgbImage, boxes: Boxes) -> Candidates:
        return self.segmenter.segment([pixels], [_candidates(boxes, 1)])[0]

    def _worker(self, prompts: tuple[str, ...]) -> SeeWorker:
        if prompts not in self._workers:
            module = MeasuredDetector.__module__
            see = SeeConfig(detector=f"{module}:MeasuredDetector", segmenter=f"{module}:MeasuredSegmenter")
            spec: Any = {"see": see.model_dump(), "device": "cpu", "offline": True, "prompts": prompts, "prompt_groups": ()}
            self._workers[prompts] = SeeWorker(spec)
        return self._workers[prompts]


class Transformers:
    """transformers by its documentation: one caption of all classes, one image at a time, all boxes in one call of SamModel.

    One mask a box is asked for, as all the others do, and an image without boxes does not meet SAM.
    """

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, SamModel, SamProcessor

        from autodistill_grounded_sam.loading import quiet_loading

        with quiet_loading():
            self.processor = AutoProcessor.from_pretrained(folder / "detector")
            self.detector = AutoModelForZeroShotObjectDetection.from_pretrained(folder / "detector")
            self.segmenting = SamProcessor.from_pretrained(folder / "segmenter")
            self.segmenter = SamModel.from_pretrained(folder / "segmenter")

    def line(self, image: Path, prompts: Sequence[str], boxes: Boxes) -> list[Sample]:
        watch = Watch(self.name, len(prompts), len(boxes))
        with watch.part("line"):
            picture = Image.open(image).convert("RGB")
            with watch.part("detect"):
                self.detect(picture, prompts, NOTHING_PASSES)
            if boxes:
                with watch.part("segment"):
                    self.segment(picture, boxes)
        return watch.samples

    def encode(self, image: Path) -> list[Sample]:
        import torch

        watch, picture = Watch(self.name), Image.open(image).convert("RGB")
        pixels = self.segmenting(picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad(), watch.part("encode"):
            self.segmenter.get_image_embeddings(pixels)
        return watch.samples

    def answer(self, image: Path, prompt: str, boxes: Boxes) -> Answer:
        picture = Image.open(image).convert("RGB")
        return Answer(self.detect(picture, [prompt], -1.0), self.segment(picture, boxes))

    def detect(self, picture: Image.Image, prompts: Sequence[str], threshold: float) -> npt.NDArray[Any]:
        import torch

        inputs = self.processor(images=picture, text=". ".join(prompts) + ".", return_tensors="pt")
        with torch.no_grad():
            outputs = self.detector(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=threshold, text_threshold=0.25, target_sizes=[picture.size[::-1]]
        )
        boxes: npt.NDArray[Any] = found["boxes"].numpy()
        return boxes

    def segment(self, picture: Image.Image, boxes: Boxes) -> npt.NDArray[Any]:
        import torch

        inputs = self.segmenting(picture, input_boxes=[[list(box) for box in boxes]], return_tensors="pt")
        with torch.no_grad():
            outputs = self.segmenter(**inputs, multimask_output=False)
        (masks,) = self.segmenting.image_processor.post_process_masks(
            outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        whole: npt.NDArray[Any] = masks[:, 0].numpy()
        return whole


class Pipeline(Transformers):
    """transformers' pipeline for zero-shot object detection, which runs the detector once a class, then SamModel."""

    name = "pipeline"

    def __init__(self, book: Transformers) -> None:
        from transformers import pipeline

        self.segmenting, self.segmenter = book.segmenting, book.segmenter
        self._pipeline: Callable[..., Any] = pipeline(
            "zero-shot-object-detection",
            model=book.detector,
            tokenizer=book.processor.tokenizer,
            image_processor=book.processor.image_processor,
            device="cpu",
        )

    def detect(self, picture: Image.Image, prompts: Sequence[str], threshold: float) -> npt.NDArray[Any]:
        self._pipeline(picture, candidate_labels=[f"{prompt}." for prompt in prompts], threshold=threshold)
        return np.zeros((0, 4))


def read_rgb(image: Path) -> RgbImage:
    return np.asarray(Image.open(image).convert("RGB"))


def same_answers(ours: Answer, theirs: Answer) -> dict[str, float]:
    """How far two rivals on the same weights agree: share of our boxes that are theirs within 2 pixels, mean IoU of masks."""
    height, width = ours.masks.shape[1:]
    clipped = theirs.boxes.clip(0, [width, height, width, height])  # ours are
    far = np.abs(ours.boxes[:, None] - clipped[None]).max(axis=2).min(axis=1)
    both, either = (ours.masks & theirs.masks).sum((1, 2)), (ours.masks | theirs.masks).sum((1, 2))
    return {"boxes": float((far < 2).mean()), "masks": float((both / np.maximum(either, 1)).mean())}


def _candidates(boxes: Boxes, prompts: int) -> Candidates:
    xyxy: Float32 = np.array(boxes, np.float32).reshape(-1, 4)
    return Candidates(xyxy, np.full((len(xyxy), prompts), 0.9, np.float32))
