from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForZeroShotObjectDetection,
    OmDetTurboProcessor,
)

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.detect.omdet_turbo import OmDetTurbo
from autodistill_grounded_sam.errors import MissingExtraError, OntologyError
from autodistill_grounded_sam.testing import check_detector
from tests.detect.tiny_models import (
    IMAGES,
    OMDET_PX,
    OMDET_QUERIES,
    PROMPTS,
    SIZES,
    assert_same,
    save_omdet,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_omdet(tmp_path_factory.mktemp("omdet"))


def by_the_book(folder: Path, image: Any, threshold: float, most: int | None) -> tuple[Any, dict[str, Any]]:
    """transformers' own answer: the raw output, and what its post-processing makes of it."""
    processor, model = OmDetTurboProcessor.from_pretrained(folder), AutoModelForZeroShotObjectDetection.from_pretrained(folder)
    inputs = processor(images=[image], text=[list(PROMPTS)], return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        output = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        output, threshold=threshold, target_sizes=[image.shape[:2]], max_num_det=most
    )
    return output, found


@pytest.mark.parametrize("image", IMAGES, ids=[f"{width}x{height}" for width, height in SIZES])
def test_boxes_and_scores_are_those_of_transformers(folder: Path, image: Any) -> None:
    """Asked for all pairs of box and prompt it answers with the same; ours gives each box once, with all its scores."""
    floor = 0.3
    output, found = by_the_book(folder, image, floor, OMDET_QUERIES * len(PROMPTS))
    (ours,) = OmDetTurbo(str(folder), floor=floor).detect([image], PROMPTS)
    every = output.decoder_class_logits[0].sigmoid()
    best = {round(float(score), 5): label for score, label in zip(*every.max(dim=1), strict=True)}
    assert len(best) == OMDET_QUERIES, "two boxes score alike: pairs could not be told apart"
    named = [best.get(round(float(score), 5)) == label for score, label in zip(found["scores"], found["labels"], strict=True)]
    boxes, scores, labels = (found[key][torch.tensor(named)].numpy() for key in ("boxes", "scores", "labels"))
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    order = np.argsort(-scores[whole], kind="stable")
    assert 2 < len(order) < OMDET_QUERIES, "nothing, or nothing suppressed: this would prove nothing"
    assert_same(ours, boxes[whole][order], ours.scores)
    np.testing.assert_allclose(ours.scores.max(axis=1), scores[whole][order], atol=1e-5)
    assert (ours.scores.argmax(axis=1) == labels[whole][order]).all()


def test_transformers_loses_boxes_that_ours_keeps(folder: Path) -> None:
    """By default it keeps as many pairs of box and prompt as there are queries, before it drops duplicates."""
    _, some = by_the_book(folder, IMAGES[0], 0.0, None)
    _, every = by_the_book(folder, IMAGES[0], 0.0, OMDET_QUERIES * len(PROMPTS))
    assert len(some["scores"]) < len(every["scores"])
    (ours,) = OmDetTurbo(str(folder), floor=0.0).detect(IMAGES[:1], PROMPTS)
    of_some = {tuple(box.round(1)) for box in some["boxes"].numpy()}
    assert len({tuple(box.round(1)) for box in ours.xyxy} - of_some) > 0


def test_contract_and_batches(folder: Path) -> None:
    detector = plugins.load("detectors", str(folder), offline=True, floor=0.0)
    assert type(detector) is OmDetTurbo
    assert detector.resized_size(640, 480) == (OMDET_PX, OMDET_PX)
    check_detector(detector)
    alone = [detector.detect([image], PROMPTS)[0] for image in IMAGES]
    together = OmDetTurbo(str(folder), floor=0.0, batch_size=4).detect(IMAGES[::-1], PROMPTS)[::-1]
    for first, second, image in zip(alone, together, IMAGES, strict=True):
        assert_same(first, second.xyxy, second.scores, atol_px=1e-3 * max(image.shape))


def test_words_are_read_once_for_all_images_however_many(folder: Path) -> None:
    """transformers' own cache holds 100 classes (3 here) and so forgets longer lists between two images."""
    detector, calls = OmDetTurbo(str(folder)), []
    detector._model.language_backbone.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        detector.detect(IMAGES, [*PROMPTS, "cat"])
    assert len(calls) == 2  # the classes and the sentence


def test_the_sentence_may_be_long_but_a_prompt_may_not(folder: Path) -> None:
    detector = OmDetTurbo(str(folder), floor=0.0)
    (found,) = detector.detect(IMAGES[:1], [f"cat {number}" for number in range(30)])
    assert found.scores.shape[1] == 30
    with pytest.raises(OntologyError, match=r"prompt 'a a a .* is 81 tokens long, but this model reads at most 77"):
        detector.detect(IMAGES[:1], ["a " * 79])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_as_the_cpu_does(folder: Path) -> None:
    here, there = (OmDetTurbo(str(folder), device=device).detect(IMAGES[:2], PROMPTS) for device in ("cpu", "cuda"))
    for first, second in zip(here, there, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is here")
def test_weights_whose_encoder_is_timms_say_which_extra_they_need(tmp_path: Path) -> None:
    folder = save_omdet(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    settings["backbone_config"] = {"model_type": "timm_backbone", "backbone": "swin_tiny_patch4_window7_224"}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MissingExtraError, match=r"is timm's and needs .* pip install 'autodistill-grounded-sam\[omdet\]'"):
        OmDetTurbo(str(folder))
