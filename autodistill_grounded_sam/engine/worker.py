"""The worker of the costly half: a batch of image files in, a sighting of each out."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import SeeConfig, checked
from autodistill_grounded_sam.engine.ensemble import detector_of, segmenter_of
from autodistill_grounded_sam.engine.memory import Ask, OutOfMemoryError, Pieces
from autodistill_grounded_sam.engine.tiles import TiledDetector, TiledSegmenter
from autodistill_grounded_sam.errors import ImageReadError, PluginError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.protocols import Batch, Detector, Segmenter, WorkerSpec
from autodistill_grounded_sam.similar import dhash
from autodistill_grounded_sam.types import Candidates, ImageRecord, RgbImage, Sighting, Status

logger = logging.getLogger(__name__)

MOST_READERS = 8  # threads that decode the images of a batch: a GPU takes 30 a second, a core decodes 10 large JPEGs

Answer = Candidates | ImageReadError  # what was seen in an image, or why it was set aside


class Decoded(NamedTuple):
    """An image in memory, or the reason why it is not."""

    image: ImageRecord
    pixels_rgb: RgbImage | None
    dhash: int | None = None
    reason: str = ""
    detail: str = ""


class SeeWorker:
    """Builds its detector and segmenter from plain data, then looks at batches.

    `spec` holds `see` (a SeeConfig as a dict), `device`, `offline`, `prompts` and `prompt_groups`. `seconds` counts the time
    spent in each stage, `capped` the images that had more candidates above the floor than `max_candidates`. An image that
    cannot be read, or that does not fit in the GPU's memory even alone, becomes a failed Sighting; any other error of a model is
    a fault of the program and goes up.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._see = checked(SeeConfig, dict(spec["see"]))
        self._prompts: tuple[str, ...] = tuple(spec["prompts"])
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.capped = 0
        self._pieces: defaultdict[str, Pieces] = defaultdict(Pieces)  # of each stage
        self._readers = ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1), thread_name_prefix="read")
        detectors = plugins.members("detectors", self._see.detector)
        segmenters = plugins.members("segmenters", self._see.segmenter) if self._see.masks != "none" else []
        names = [*(("detectors", name) for name, _ in detectors), *(("segmenters", name) for name, _ in segmenters)]
        needs_device = any(plugins.find(role, name).built_in for role, name in names)  # a plugin alone needs no torch here
        device = usable_device(str(spec["device"])) if needs_device else str(spec["device"])
        general = {"device": device, "offline": bool(spec["offline"]), "precision": self._see.precision}
        settings = {
            **general,
            "shorter_side_px": self._see.shorter_side_px,
            "longer_side_px": self._see.longer_side_px,
            "prompt_groups": spec["prompt_groups"],
            "span_score": self._see.span_score,
            # only some detectors know these
            **({"examples": spec["examples"]} if spec.get("examples") else {}),
            **({"own_masks": self._see.max_candidates + 1} if plugins.OWN_MASKS in [name for name, _ in segmenters] else {}),
        }

        self._loaded: list[Detector] = []

        def load(name: str, floor: float) -> Detector:
            self._loaded.append(cast(Detector, plugins.load("detectors", name, **settings, floor=floor)))
            return self._loaded[-1]

        self._detector = detector_of(detectors, load, self._see.floor, self._see.views)

        def load_segmenter(name: str) -> Segmenter:
            return cast(Segmenter, plugins.load("segmenters", name, **general, mask_guess=self._see.mask_guess))

        self._segmenter = segmenter_of(segmenters, load_segmenter) if segmenters else None
        if self._see.tiles != "none":
            tiled = TiledDetector(self._detector, self._segmenter, self._see.tile_px, self._see.tiles)
            self._detector = tiled
            self._segmenter = self._segmenter and TiledSegmenter(self._segmenter, tiled.tile_px)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """The size (width, height) that the detector gives an image; the image's own where the detector does not say."""
        resize = getattr(self._detector, "resized_size", None)
        return (width, height) if resize is None else resize(width, height)

    def ask(self, prompts: Sequence[str], prompt_groups: Sequence[Sequence[str]]) -> None:
        """From now on look for these prompts; the models stay loaded."""
        self._prompts = tuple(prompts)
        for detector in self._loaded:
            regroup = getattr(detector, "group_prompts", None)  # of those that make captions
            if regroup is not None:
                regroup(prompt_groups)

    def __call__(self, batch: Batch) -> list[Sighting]:
        return self.look(self.decode(batch))

    def decode(self, batch: Batch) -> list[Decoded]:
        """Read the images of a batch; may run in another thread than `look`."""
        started = time.perf_counter()
        decoded = list(self._readers.map(self._decode_one, batch))
        self.seconds["decode"] += time.perf_counter() - started
        return decoded

    def look(self, decoded: Sequence[Decoded]) -> list[Sighting]:
        """Detect and segment; one sighting an image, in order."""
        readable = [item for item in decoded if item.pixels_rgb is not None]
        pixels = [item.pixels_rgb for item in readable if item.pixels_rgb is not None]
        answers = self._segmented(readable, pixels, self._detected(readable, pixels))
        by_id = dict(zip((item.image.id for item in readable), answers, strict=True))
        return [_sighting(item, by_id.get(item.image.id)) for item in decoded]

    def look_at(self, image_rgb: RgbImage) -> Candidates:
        """What is seen in one upright image that is in memory and belongs to no run; raises ImageReadError if it is too large."""
        height, width = image_rgb.shape[:2]
        item = Decoded(ImageRecord("image", "", Path(), width, height), image_rgb)
        (answer,) = self._segmented([item], [image_rgb], self._detected([item], [image_rgb]))
        if isinstance(answer, ImageReadError):
            raise answer
        return answer

    def wanted(self, image: ImageRecord, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Which candidates get a mask, (n,); the others get an empty one. All of them, unless a subclass says otherwise."""
        return np.ones(len(candidates), np.bool_)

    def _decode_one(self, image: ImageRecord) -> Decoded:
        try:
            pixels = read_image(image, max_megapixels=self._see.max_megapixels)
            if pixels.shape[:2] != (image.height, image.width):
                raise ImageReadError(
                    "changed", f"was {image.width}x{image.height} when listed, is now {pixels.shape[1]}x{pixels.shape[0]}"
                )
            return Decoded(image, pixels, dhash(pixels))
        except ImageReadError as error:
            return Decoded(image, None, None, error.reason, error.detail)
        except Exception as error:  # decoders raise anything on broken bytes, and one file must not end the run
            logger.warning("%s could not be decoded", image.id, exc_info=True)
            return Decoded(image, None, None, "unreadable", f"{type(error).__name__}: {error}")

    def _detected(self, items: Sequence[Decoded], pixels: Sequence[RgbImage]) -> list[Answer]:
        def detect(which: Sequence[int]) -> list[Candidates]:
            return self._detector.detect([pixels[i] for i in which], self._prompts)

        found = self._timed("detect", detect, items, range(len(items)))
        return [
            answer
            if isinstance(answer, ImageReadError)
            else self._cap(item.image, sift(answer, item.image.width, item.image.height, self._see.floor))
            for item, answer in zip(items, found, strict=True)
        ]

    def _cap(self, image: ImageRecord, sifted: Candidates) -> Candidates:
        most = self._see.max_candidates
        if len(sifted) <= most:
            return sifted
        self.capped += 1
        logger.log(
            logging.WARNING if self.capped == 1 else logging.DEBUG,
            "%s has %d candidates above the floor of %g; max_candidates is %d, so the %d weakest are left out (raise either to "
            "change that; told once, other such images are only counted)",
            image.id, len(sifted), self._see.floor, most, len(sifted) - most,
        )  # fmt: skip
        return sifted.select(np.arange(most))

    def _segmented(self, items: Sequence[Decoded], pixels: Sequence[RgbImage], answers: list[Answer]) -> list[Answer]:
        segmenter = self._segmenter
        if segmenter is None:  # boxes only, whatever a plugin's candidates hold
            return [replace(one, rle=None, mask_score=None) if isinstance(one, Candidates) else one for one in answers]
        seen = {i: answer for i, answer in enumerate(answers) if isinstance(answer, Candidates)}
        wanted = {i: self.wanted(items[i].image, candidates) for i, candidates in seen.items()}

        def segment(which: Sequence[int]) -> list[Candidates]:
            return segmenter.segment([pixels[i] for i in which], [seen[i].select(wanted[i]) for i in which])

        # an image without boxes never meets the segmenter
        busy = [i for i in seen if wanted[i].any()]
        masked = dict(zip(busy, self._timed("segment", segment, items, busy), strict=True))
        return [
            _with_masks(seen[i], wanted[i], masked.get(i), items[i].image) if i in seen else answer
            for i, answer in enumerate(answers)
        ]

    def _timed(self, stage: str, ask: Ask, items: Sequence[Decoded], which: Sequence[int]) -> list[Answer]:
        started = time.perf_counter()
        answers = self._pieces[stage].ask(ask, which)
        self.seconds[stage] += time.perf_counter() - started
        return [
            _set_aside(items[i].image, answer) if isinstance(answer, OutOfMemoryError) else answer
            for i, answer in zip(which, answers, strict=True)
        ]


def trim(candidates: Candidates, width: int, height: int, floor: float, max_candidates: int) -> Candidates:
    """What is worth keeping: the best `max_candidates` of what `sift` leaves."""
    sifted = sift(candidates, width, height, floor)
    return sifted.select(np.arange(min(len(sifted), max_candidates)))


def sift(candidates: Candidates, width: int, height: int, floor: float) -> Candidates:
    """All that could be kept: boxes clipped to the image, none without area, equal ones merged, best first.

    Equal boxes become one with the highest of their scores for each prompt. Those whose best prompt scores at least `floor`
    stay, sorted by that score and, where it is equal, by the box, so that the order is always the same.
    """
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(candidates.xyxy, 0, limit) + np.float32(0)  # + 0 turns -0 into 0
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (candidates.scores.max(1, initial=0) >= floor)
    rows = np.flatnonzero(solid)
    unique, inverse = np.unique(boxes[rows], axis=0, return_inverse=True)  # sorts by x1, y1, x2, y2
    scores = np.zeros((len(unique), candidates.scores.shape[1]), np.float32)
    np.maximum.at(scores, inverse.reshape(-1), candidates.scores[rows])
    agreement = None if candidates.agreement is None else np.zeros(len(unique), np.float32)
    if agreement is not None and candidates.agreement is not None:
        np.maximum.at(agreement, inverse.reshape(-1), candidates.agreement[rows])
    best_first = rows[np.argsort(-candidates.scores[rows].max(1, initial=0), kind="stable")]
    surest = best_first[np.unique(boxes[best_first], axis=0, return_index=True)[1]]  # of equal boxes; its mask stands for all
    with_masks = candidates.select(surest)
    merged = Candidates(unique.astype(np.float32), scores, with_masks.rle, with_masks.mask_score, agreement)
    return merged.select(np.argsort(-scores.max(1, initial=0), kind="stable"))


def _set_aside(image: ImageRecord, error: OutOfMemoryError) -> ImageReadError:
    logger.warning("%s does not fit in the memory of the device and is set aside: %s", image.id, error)
    return ImageReadError("out_of_memory", f"does not fit in the memory of the device: {error}")


def _with_masks(
    candidates: Candidates, wanted: npt.NDArray[np.bool_], answer: Answer | None, image: ImageRecord
) -> Candidates | ImageReadError:
    """The candidates with the masks that the segmenter gave the wanted ones, and an empty mask for each of the others."""
    if isinstance(answer, ImageReadError):
        return answer
    masks = [encode_mask(np.zeros((image.height, image.width), np.bool_))] * len(candidates) if not wanted.all() else []
    rle, mask_score = dict(enumerate(masks)), np.zeros(len(candidates), np.float32)
    if answer is not None:
        if answer.rle is None or answer.mask_score is None or len(answer) != int(wanted.sum()):
            raise PluginError(f"a segmenter must give each candidate a mask and a mask_score; it did not for {image.id!r}")
        rle.update(zip(np.flatnonzero(wanted).tolist(), answer.rle, strict=True))
        mask_score[wanted] = answer.mask_score
    return Candidates(
        candidates.xyxy, candidates.scores, tuple(rle[i] for i in range(len(candidates))), mask_score, candidates.agreement
    )


def _sighting(item: Decoded, answer: Answer | None) -> Sighting:
    if isinstance(answer, Candidates):
        return Sighting(item.image, Status.SEEN, answer, dhash=item.dhash)
    if isinstance(answer, ImageReadError):
        return Sighting(item.image, Status.FAILED, None, answer.reason, answer.detail, item.dhash)
    return Sighting(item.image, Status.FAILED, None, item.reason, item.detail)
