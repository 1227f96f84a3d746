"""For tests, of this package and of plugins: painted folders, models that are instant, and checks of the seams' contracts.

The fake models answer from the pixels alone, so the same image gives the same answer in any batch and in any process. Two
environment variables serve tests of interrupted runs: AGS_FAKE_LOG names a file that gets a line an image that is looked at
(the sha256 of its pixels), AGS_FAKE_SECONDS makes each image take so long.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.painting import PainterSettings, Scene, paint_scene
from autodistill_grounded_sam.protocols import Detector, Segmenter, Tag, Tagger
from autodistill_grounded_sam.types import Candidates, Float32, Mask, RgbImage

TOLERANCE = 1e-4  # how far a score may move with the batch an image is in; the rounding of float32 models is below it


class FakeDetector:
    """A detector that needs no weights: some boxes and scores drawn from a generator seeded by the image's pixels."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [self._detect_one(image, prompts) for image in images]

    def _detect_one(self, image_rgb: RgbImage, prompts: Sequence[str]) -> Candidates:
        digest = _pixel_digest(image_rgb)
        _log(digest)
        height, width = image_rgb.shape[:2]
        rng = np.random.default_rng(int(digest[:16], 16))
        count = int(rng.integers(0, 8))  # some images hold nothing
        centre, half = rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.25, (count, 2))
        corners = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)
        xyxy = (corners * [width, height, width, height]).astype(np.float32)
        return Candidates(xyxy, rng.beta(0.6, 1.2, (count, len(prompts))).astype(np.float32))


class FakeSegmenter:
    """A segmenter that needs no weights: the ellipse that touches the four sides of each box."""

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        return [self._segment_one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _segment_one(self, image_rgb: RgbImage, found: Candidates) -> Candidates:
        masks = [_ellipse(box, image_rgb.shape[0], image_rgb.shape[1]) for box in found.xyxy]
        filled = np.array([mask.mean() for mask in masks], np.float32)
        return Candidates(
            found.xyxy, found.scores, tuple(encode_mask(mask) for mask in masks), (1 - filled / 2).astype(np.float32)
        )


def paint_folder(folder: Path, count: int, *, seed: int = 0, settings: PainterSettings | None = None) -> list[Scene]:
    """Write `count` painted scenes as `scene_0000.png`, ... and return them with their truth; the same seed, the same bytes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    scenes = [paint_scene(settings or PainterSettings(), seed + number) for number in range(count)]
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.image_rgb).save(folder / f"scene_{number:04d}.png")
    return scenes


def check_detector(detector: Detector, prompts: Sequence[str] = ("red circle", "blue square", "green star")) -> None:
    """Raise AssertionError, saying what is wrong, unless a detector keeps the contract of its seam.

    One Candidates an image, in order, with a column a prompt; finite boxes; images untouched; an answer that does not depend
    on the rest of the batch, nor on what was asked before; an empty batch gives an empty list.
    """
    images = _sample_images()
    before = [image.copy() for image in images]
    answers = detector.detect(images, prompts)
    _check_answers("detect", answers, len(images))
    for answer in answers:
        _check(
            answer.scores.shape[1] == len(prompts),
            f"detect must give a score for each of the {len(prompts)} prompts, got {answer.scores.shape[1]} columns",
        )
    _check_untouched("detect", images, before)
    for i, image in enumerate(images):
        alone = detector.detect([image], prompts)
        _check_answers("detect", alone, 1)
        _check(
            _close(alone[0].xyxy, answers[i].xyxy, TOLERANCE * max(image.shape)) and _close(alone[0].scores, answers[i].scores),
            f"detect must not depend on the batch: image {i} got another answer alone than with {len(images) - 1} others",
        )
    _check(detector.detect([], prompts) == [], "detect must give an empty list for an empty batch")


def check_segmenter(segmenter: Segmenter) -> None:
    """Raise AssertionError, saying what is wrong, unless a segmenter keeps the contract of its seam.

    One Candidates an image, in order, boxes and scores as they came, with a mask of the image's size and a mask_score for
    each; images untouched; an answer that does not depend on the batch; no box, no mask.
    """
    images = _sample_images()
    before = [image.copy() for image in images]
    found = [_sample_candidates(image, count) for image, count in zip(images, (2, 0, 3), strict=True)]
    answers = segmenter.segment(images, found)
    _check_answers("segment", answers, len(images))
    for i, (image, given, answer) in enumerate(zip(images, found, answers, strict=True)):
        _check(
            np.array_equal(given.xyxy, answer.xyxy) and np.array_equal(given.scores, answer.scores),
            f"segment must leave boxes and scores as they came; it changed those of image {i}",
        )
        _check(
            answer.rle is not None and answer.mask_score is not None,
            f"segment must fill rle and mask_score, also where there are no boxes; image {i} has none",
        )
        for code in answer.rle or ():
            size = [image.shape[0], image.shape[1]]
            _check(list(code["size"]) == size, f"a mask must be of the image's size {size} (height, width), got {code['size']}")
        alone = segmenter.segment([image], [given])
        _check_answers("segment", alone, 1)
        _check(alone[0].rle == answer.rle, f"segment must not depend on the batch: image {i} got other masks alone")
    _check_untouched("segment", images, before)
    _check(segmenter.segment([], []) == [], "segment must give an empty list for an empty batch")


def check_tagger(tagger: Tagger) -> None:
    """Raise AssertionError, saying what is wrong, unless a tagger keeps the contract of its seam.

    One list of tags an image, in order, names that can be asked for, probabilities in 0..1; images untouched; an answer that does
    not depend on the batch; an empty batch gives an empty list.
    """
    images = _sample_images()
    before = [image.copy() for image in images]
    answers = tagger.tag(images)
    _check_lists(answers, len(images))
    for tag in (tag for answer in answers for tag in answer):
        _check(any(c.isalnum() for c in tag.name), f"a tag needs a name with a letter or digit, got {tag.name!r}")
        _check(0 <= tag.score <= 1, f"a tag's score is a probability in 0..1, got {tag.score!r} for {tag.name!r}")
    _check_untouched("tag", images, before)
    for i, image in enumerate(images):
        alone = tagger.tag([image])
        _check_lists(alone, 1)
        same = [tag.name for tag in alone[0]] == [tag.name for tag in answers[i]]
        near = same and all(abs(one.score - two.score) <= TOLERANCE for one, two in zip(alone[0], answers[i], strict=True))
        _check(near, f"tag must not depend on the batch: image {i} got other tags alone than with {len(images) - 1} others")
    _check(tagger.tag([]) == [], "tag must give an empty list for an empty batch")


def _check_lists(answers: object, count: int) -> None:
    whole = isinstance(answers, list) and all(isinstance(answer, list) for answer in answers)
    _check(whole, f"tag must return a list of lists, got {type(answers).__name__}")
    if isinstance(answers, list):
        _check(len(answers) == count, f"tag must return one list an image, in order: expected {count}, got {len(answers)}")
        for tag in (tag for answer in answers for tag in answer):
            _check(isinstance(tag, Tag), f"a tag must be a protocols.Tag, got {type(tag).__name__}")


def _sample_images() -> list[RgbImage]:
    sizes = ((96, 64), (64, 80), (96, 64))
    return [
        paint_scene(PainterSettings(width=width, height=height, objects=(2, 4)), seed).image_rgb
        for seed, (width, height) in enumerate(sizes)
    ]


def _sample_candidates(image_rgb: RgbImage, count: int) -> Candidates:
    height, width = image_rgb.shape[:2]
    rng = np.random.default_rng(count)
    corner, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
    xyxy = np.concatenate([corner, corner + size], axis=1) * [width, height, width, height]
    return Candidates(xyxy.astype(np.float32), rng.uniform(0, 1, (count, 3)).astype(np.float32))


def _check_answers(method: str, answers: object, count: int) -> None:
    if not isinstance(answers, list):
        raise AssertionError(f"{method} must return a list, got {type(answers).__name__}")
    _check(len(answers) == count, f"{method} must return one Candidates an image, in order: expected {count}, got {len(answers)}")
    for answer in answers:
        _check(isinstance(answer, Candidates), f"{method} must return Candidates, got {type(answer).__name__}")


def _check_untouched(method: str, images: Sequence[RgbImage], before: Sequence[RgbImage]) -> None:
    same = all(np.array_equal(image, copy) for image, copy in zip(images, before, strict=True))
    _check(same, f"{method} must not write into the images it is given")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _close(first: Float32, second: Float32, tolerance: float = TOLERANCE) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=tolerance))


def _ellipse(box_xyxy: npt.NDArray[np.float32], height: int, width: int) -> Mask:
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 0.5)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 0.5)
    return np.asarray(x[None, :] ** 2 + y[:, None] ** 2 <= 1)


def _pixel_digest(image_rgb: RgbImage) -> str:
    return hashlib.sha256(repr(image_rgb.shape).encode() + np.ascontiguousarray(image_rgb).tobytes()).hexdigest()


def _log(digest: str) -> None:
    """Write the line at once and in one piece, so that a kill cannot take it back."""
    path = os.environ.get("AGS_FAKE_LOG")
    if path:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{digest}\n".encode())
        os.close(handle)
    time.sleep(float(os.environ.get("AGS_FAKE_SECONDS", "0")))
