from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import nms
from transformers import (
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    Owlv2ImageProcessor,
)

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.detect.owl import Owl, in_a_square
from autodistill_grounded_sam.errors import ConfigError, OntologyError, WeightsError
from autodistill_grounded_sam.testing import check_detector
from autodistill_grounded_sam.weights import find_weights
from tests.detect.tiny_models import IMAGES, OWL_PX, PROMPTS, SIZES, assert_same, picture, save_owl


@pytest.fixture(scope="module", params=["owlvit", "owlv2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_owl(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_owl(tmp_path_factory.mktemp("v2"), "owlv2")


def by_the_book(folder: Path, image: Any, threshold: float) -> tuple[Any, dict[str, torch.Tensor]]:
    """transformers' own answer: the raw output, and what its post-processing makes of it."""
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForZeroShotObjectDetection.from_pretrained(folder)
    inputs = processor(images=[image], text=[list(PROMPTS)], return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        output = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(output, threshold=threshold, target_sizes=[image.shape[:2]])
    return output, found


@pytest.mark.parametrize("image", IMAGES, ids=[f"{width}x{height}" for width, height in SIZES])
def test_boxes_and_scores_are_those_of_transformers(folder: Path, image: Any) -> None:
    """Its post-processing gives each patch one prompt and leaves neighbours and the filling in; ours is it, then cut and NMS."""
    output, found = by_the_book(folder, image, 0.3)
    detector = Owl(str(folder), floor=0.3)
    (ours,) = detector.detect([image], PROMPTS)
    height, width = image.shape[:2]
    boxes = found["boxes"].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    every = output.logits[0].sigmoid()
    every = every[every.amax(dim=1) > 0.3]
    torch.testing.assert_close(every.amax(dim=1), found["scores"])
    whole = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, every = boxes[whole], every[whole]
    kept = nms(boxes, every.amax(dim=1), 0.7)
    if min(height, width) >= 40:  # a strip of three pixels may have no box at all inside it
        assert 0 < len(kept) < len(found["scores"])
        assert (ours.scores.std(axis=1) > 1e-3).any(), "all prompts score alike: this test would prove nothing"
    assert_same(ours, boxes[kept], every[kept])
    assert (ours.scores.argmax(axis=1) == found["labels"][whole][kept].numpy()).all()


@pytest.mark.parametrize(("width", "height"), [*SIZES, (96, 96), (96, 40), (97, 96), (500, 333), (1000, 20)])
def test_the_square_of_owlv2_is_that_of_transformers(width: int, height: int) -> None:
    image = picture(width, height, 3)
    processor = Owlv2ImageProcessor(size={"height": OWL_PX, "width": OWL_PX}, do_normalize=False)
    expected = processor(images=[image], input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]
    np.testing.assert_allclose(in_a_square(image, OWL_PX), expected.numpy(), atol=1e-5)


def test_a_large_photograph_is_never_made_a_float_square(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    image = np.full((600, 9000, 3), 128, np.uint8)
    in_a_square(picture(9000, 600), OWL_PX)
    tracemalloc.start()
    made = in_a_square(image, OWL_PX)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made[:, 0, 0] == pytest.approx(128 / 255, abs=1e-5)
    assert made[:, -1, 0].max() == 0
    assert peak < 9000 * 9000 * 3  # transformers: four bytes for each of these, several times over


def test_boxes_are_of_the_image_and_not_of_its_square(owlv2: Path) -> None:
    """A box at the same place of the square is at the same pixels, whatever the other side of the image is."""
    tall, wide = np.zeros((200, 100, 3), np.uint8), np.zeros((100, 200, 3), np.uint8)
    detector = Owl(str(owlv2), floor=0.0, nms_iou=1.0)
    first, second = detector.detect([tall, wide], PROMPTS)  # black as the filling: both squares are the same
    inner = [{tuple(box.round(2)) for box in found.xyxy if (box < 100).all()} for found in (first, second)]
    assert inner[0] == inner[1] and len(inner[0]) > 2
    assert (first.xyxy <= [100, 200, 100, 200]).all() and (second.xyxy <= [200, 100, 200, 100]).all()


def test_transformers_leaves_boxes_in_the_filling(owlv2: Path) -> None:
    """Some whole boxes of a wide picture lie below it, and it returns every patch of an object, not one box."""
    image = picture(301, 40, 3)
    _, found = by_the_book(owlv2, image, 0.1)
    boxes = found["boxes"]
    assert (boxes[:, 1] > 40).any()
    (ours,) = Owl(str(owlv2), floor=0.1).detect([image], PROMPTS)
    assert 0 < len(ours) < len(boxes) and ours.xyxy[:, 3].max() <= 40


def test_contract_batches_and_devices(folder: Path) -> None:
    detector = plugins.load("detectors", str(folder), offline=True, floor=0.0)
    assert type(detector) is Owl
    assert detector.resized_size(640, 480) == (OWL_PX, OWL_PX)
    check_detector(detector)
    alone = [detector.detect([image], PROMPTS)[0] for image in IMAGES]
    together = Owl(str(folder), floor=0.0, batch_size=4).detect(IMAGES[::-1], PROMPTS)[::-1]
    for first, second, image in zip(alone, together, IMAGES, strict=True):
        assert_same(first, second.xyxy, second.scores, atol_px=1e-4 * max(image.shape))
    assert [len(found) for found in detector.detect(IMAGES[:2], [])] == [0, 0]


def test_words_are_read_once_for_all_images(owlv2: Path) -> None:
    detector, calls = Owl(str(owlv2)), []
    detector._model.owlv2.text_model.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        detector.detect(IMAGES, PROMPTS)
    assert len(calls) == 1


def test_bfloat16_moves_scores_a_little_and_boxes_less(owlv2: Path) -> None:
    exact, near = (
        Owl(str(owlv2), floor=0.0, nms_iou=1.0, precision=how).detect(IMAGES[:1], PROMPTS)[0]  # type: ignore[arg-type]
        for how in ("float32", "bfloat16")
    )
    assert len(exact) == len(near)
    assert 0 < np.abs(exact.scores.max(axis=1) - near.scores.max(axis=1)).max() < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_as_the_cpu_does(folder: Path) -> None:
    here, there = (Owl(str(folder), device=device).detect(IMAGES[:2], PROMPTS) for device in ("cpu", "cuda"))
    for first, second in zip(here, there, strict=True):
        np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_what_cannot_be_asked(owlv2: Path) -> None:
    with pytest.raises(OntologyError, match=r"prompt 'a a a .* is 17 tokens long, but this model reads at most 16"):
        Owl(str(owlv2)).detect(IMAGES[:1], ["dog", "a " * 15])
    with pytest.raises(ConfigError, match=r"nms_iou must be in \(0, 1\], got 0"):
        Owl(str(owlv2), nms_iou=0)
    with pytest.raises(ConfigError, match=r"has one input size; leave shorter_side_px and longer_side_px out"):
        Owl(str(owlv2), shorter_side_px=640)
    with pytest.raises(ConfigError, match=r"span_score='mean' is for Grounding DINO; .* gives a prompt one score, leave it out"):
        Owl(str(owlv2), span_score="mean")


def test_each_model_has_an_identity_of_its_own(folder: Path, owlv2: Path) -> None:
    found = [find_weights(str(one), "detector") for one in (folder, owlv2)]
    assert (found[0].identity == found[1].identity) == (found[0].model_type == "owlv2")
    (folder / "merges.txt").rename(folder / "moved")
    try:
        assert find_weights(str(folder), "detector").identity != found[0].identity
    finally:
        (folder / "moved").rename(folder / "merges.txt")
    with pytest.raises(WeightsError, match="this detector runs owlvit and owlv2"):
        Owl("mini")
