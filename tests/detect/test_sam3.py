from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Model, Sam3Processor

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.detect.grounding_dino import merge_captions
from autodistill_grounded_sam.detect.sam3 import Sam3
from autodistill_grounded_sam.errors import OntologyError, WeightsError
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.testing import check_detector
from tests.detect.tiny_models import IMAGES, PROMPTS, SAM3_PX, SIZES, assert_same, picture, save_sam3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam3(tmp_path_factory.mktemp("sam3"))


def by_the_book(folder: Path, image: Any, prompt: str, threshold: float, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """transformers' own processor, model and post-processing, for one prompt, with masks of `size`."""
    processor = Sam3Processor(Sam3ImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    inputs = processor(images=[image], text=[prompt], return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        output = Sam3Model.from_pretrained(folder).eval()(
            pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
    (found,) = processor.post_process_object_detection(output, threshold=threshold, target_sizes=[image.shape[:2]])
    (drawn,) = processor.image_processor.post_process_instance_segmentation(
        output, threshold=threshold, target_sizes=[size] if size else None
    )
    return {key: value.numpy() for key, value in found.items()} | {"masks": drawn["masks"].numpy().astype(bool)}


@pytest.mark.parametrize("image", IMAGES, ids=[f"{width}x{height}" for width, height in SIZES])
def test_boxes_and_scores_are_those_of_transformers(folder: Path, image: Any) -> None:
    """Each prompt alone, then what its boxes and those of the others have in common."""
    height, width = image.shape[:2]
    size, boxes, scores = np.array([width, height, width, height], np.float32), [], []
    for column, prompt in enumerate(PROMPTS):
        theirs = by_the_book(folder, image, prompt, 0.05)
        (ours,) = Sam3(str(folder)).detect([image], [prompt])
        order = np.argsort(-theirs["scores"], kind="stable")
        clipped = theirs["boxes"][order].clip(0, size)
        whole = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        assert whole.any()
        assert_same(ours, clipped[whole], theirs["scores"][order][whole, None])
        boxes.append(theirs["boxes"] / size)
        scores.append(theirs["scores"][:, None] * np.eye(len(PROMPTS), dtype=np.float32)[column])
    prompt_of = np.repeat(np.arange(len(PROMPTS)), [len(some) for some in boxes])
    relative, merged, _ = merge_captions(np.concatenate(boxes).clip(0, 1), np.concatenate(scores), prompt_of, 0.05)
    (together,) = Sam3(str(folder)).detect([image], PROMPTS)
    assert_same(together, relative * size, merged)
    assert merged.max() - merged[merged > 0].min() > 0.01, "all score alike: this test would prove nothing"


def test_masks_are_those_of_transformers_prompt_by_prompt(folder: Path) -> None:
    """At the size in which the model draws them all pixels are equal; enlarged, as the authors do it, almost all."""
    detector = Sam3(str(folder), own_masks=1000)
    for image in [*IMAGES[:4], picture(4 * SAM3_PX // 14, 4 * SAM3_PX // 14)]:
        for prompt in PROMPTS:
            height, width = image.shape[:2]
            theirs = by_the_book(folder, image, prompt, 0.05, (height, width))
            (ours,) = detector.detect([image], [prompt])
            order = np.argsort(-theirs["scores"], kind="stable")
            clipped = theirs["boxes"][order].clip(0, np.array([width, height] * 2))
            order = order[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]
            masks = np.array([decode_mask(rle) for rle in ours.rle or ()], bool)
            assert masks.shape == (len(order), height, width) and 0 < masks.mean() < 1
            differ = (masks != theirs["masks"][order]).mean()
            assert differ == 0 if height == width == 4 * SAM3_PX // 14 else differ < 0.01


def test_a_box_of_several_prompts_has_the_mask_of_the_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = Sam3(str(folder), own_masks=1000).detect(IMAGES[:1], PROMPTS)
    monkeypatch.setattr("autodistill_grounded_sam.detect.sam3.PROMPTS_AT_ONCE", 2)
    (in_parts,) = Sam3(str(folder), own_masks=1000).detect(IMAGES[:1], PROMPTS)
    assert len(np.unique(alone.scores.argmax(axis=1))) > 1, "one prompt wins everywhere: this test would prove nothing"
    assert in_parts.rle == alone.rle
    of_one = {p: Sam3(str(folder), own_masks=1000).detect(IMAGES[:1], [p])[0] for p in PROMPTS}
    for box, best, rle in zip(alone.xyxy, alone.scores.argmax(axis=1), alone.rle or (), strict=True):
        single = of_one[PROMPTS[best]]
        assert rle == (single.rle or ())[int(np.abs(single.xyxy - box).sum(axis=1).argmin())]


def test_the_presence_of_a_prompt_counts(folder: Path) -> None:
    detector = Sam3(str(folder), floor=0.0)
    (before,) = detector.detect(IMAGES[:1], PROMPTS[:1])
    detector._model.detr_decoder.presence_head.register_forward_hook(lambda _module, _given, out: out - 3.0)
    (after,) = detector.detect(IMAGES[:1], PROMPTS[:1])
    assert after.scores.max() < before.scores.max() / 2


def test_the_form_of_the_published_weights_is_the_same_detector(folder: Path, tmp_path: Path) -> None:
    video = plugins.load("detectors", str(save_sam3(tmp_path, video=True)), offline=True)
    assert type(video) is Sam3
    for first, second in zip(Sam3(str(folder)).detect(IMAGES[:3], PROMPTS), video.detect(IMAGES[:3], PROMPTS), strict=True):
        assert len(first) > 0
        np.testing.assert_array_equal(first.scores, second.scores)
        np.testing.assert_array_equal(first.xyxy, second.xyxy)


def test_contract_batches_and_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = plugins.load("detectors", str(folder), offline=True, floor=0.0)
    assert detector.resized_size(640, 480) == (SAM3_PX, SAM3_PX)
    check_detector(detector)
    alone = [detector.detect([image], PROMPTS)[0] for image in IMAGES]
    monkeypatch.setattr("autodistill_grounded_sam.detect.sam3.PROMPTS_AT_ONCE", 3)
    together = Sam3(str(folder), floor=0.0, batch_size=4).detect(IMAGES[::-1], PROMPTS)[::-1]
    for first, second, image in zip(alone, together, IMAGES, strict=True):
        assert_same(first, second.xyxy, second.scores, atol_px=1e-3 * max(image.shape))


def test_an_image_is_seen_once_and_words_are_read_once(folder: Path) -> None:
    detector, calls = Sam3(str(folder)), {"seen": 0, "read": 0}
    detector._model.vision_encoder.register_forward_hook(lambda *_: calls.update(seen=calls["seen"] + 1))
    detector._model.text_encoder.register_forward_hook(lambda *_: calls.update(read=calls["read"] + 1))
    detector.detect(IMAGES[:2], PROMPTS)
    detector.detect(IMAGES[2:3], PROMPTS)
    assert calls == {"seen": 3, "read": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_as_the_cpu_does(folder: Path) -> None:
    here, there = (Sam3(str(folder), device=device).detect(IMAGES[:2], PROMPTS) for device in ("cpu", "cuda"))
    for first, second in zip(here, there, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_what_cannot_be_asked_or_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OntologyError, match=r"prompt 'a a a .* is 42 tokens long, but this model reads at most 32"):
        Sam3(str(folder)).detect(IMAGES[:1], ["a " * 40])
    with pytest.raises(WeightsError, match="this detector runs sam3 and sam3_video"):
        Sam3("mini")
