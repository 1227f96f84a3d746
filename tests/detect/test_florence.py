from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.detect.florence import Florence2, places_in
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.testing import check_detector
from tests.detect.tiny_models import FLORENCE_PX, IMAGES, PROMPTS, SIZES, picture, save_florence

TASK = "<OPEN_VOCABULARY_DETECTION>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.detect.florence.MOST_TOKENS", 40)


@pytest.mark.parametrize("image", IMAGES[:4], ids=[f"{width}x{height}" for width, height in SIZES[:4]])
def test_what_it_writes_is_what_transformers_writes(folder: Path, image: Any) -> None:
    """One question at a time through processor and model, against ours: the image seen once, all prompts together."""
    processor = Florence2Processor.from_pretrained(folder)
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    detector, places = Florence2(str(folder)), 0
    with torch.inference_mode():
        seen = detector._model.get_image_features(pixel_values=detector._pixels([image])).pooler_output
        ours = [answer for ids, mask in detector._read(PROMPTS) for answer in detector._ask(seen, ids, mask)]
        for prompt, answer in zip(PROMPTS, ours, strict=True):
            inputs = processor(images=[image], text=[TASK + prompt], return_tensors="pt", input_data_format="channels_last")
            written = model.generate(**inputs, max_new_tokens=40, do_sample=False)
            assert answer.rstrip("<pad>") == processor.batch_decode(written)[0].rstrip("<pad>")
            places += answer.count("<loc_")
    assert places > 20, "no places were written: this would prove nothing"
    assert len(set(ours)) > 1


@pytest.mark.parametrize("answer", [
    "</s><s>dog<loc_0><loc_10><loc_999><loc_500><loc_7><loc_8><loc_9><loc_10></s>",
    "dog<loc_1><loc_2><loc_3><loc_4>cat<loc_5><loc_6><loc_7><loc_8><loc_9>",
    "dog",
    "dog<loc_1><loc_2><loc_3>",
])  # fmt: skip
@pytest.mark.parametrize(("width", "height"), [(640, 480), (3000, 200), (30, 20)])
def test_places_are_those_of_transformers_but_for_its_rounding(folder: Path, answer: str, width: int, height: int) -> None:
    processor = Florence2Processor.from_pretrained(folder)
    theirs = processor.post_process_generation(text=answer, task=TASK, image_size=(width, height))[TASK]["bboxes"]
    ours = places_in(answer, width, height)
    assert ours.shape == (len(theirs), 4)
    np.testing.assert_array_equal(ours.astype(int), np.array(theirs, int).reshape(-1, 4))


def test_transformers_loses_small_boxes_that_ours_keeps(folder: Path) -> None:
    """It cuts places to whole pixels: in a picture of 30 pixels, whole objects become lines."""
    processor, answer = Florence2Processor.from_pretrained(folder), "dog<loc_700><loc_510><loc_730><loc_540>"
    ((x1, y1, x2, y2),) = processor.post_process_generation(text=answer, task=TASK, image_size=(30, 30))[TASK]["bboxes"]
    assert (x1, y1) == (21, 15) and (x2 - x1) * (y2 - y1) == 0
    np.testing.assert_allclose(places_in(answer, 30, 30), [[21.015, 15.315, 21.915, 16.215]], atol=1e-3)


def test_a_polygon_becomes_the_box_around_it() -> None:
    answer = "dog<poly><loc_10><loc_50><loc_90><loc_20><sep><loc_60><loc_99></poly><poly><loc_1><loc_2></poly>"
    np.testing.assert_allclose(places_in(answer, 1000, 1000), [[10.5, 20.5, 90.5, 99.5], [1.5, 2.5, 1.5, 2.5]])


def test_contract_columns_and_batches(folder: Path) -> None:
    detector = plugins.load("detectors", str(folder), offline=True, floor=0.1)
    assert type(detector) is Florence2
    assert detector.resized_size(640, 480) == (FLORENCE_PX, FLORENCE_PX)
    check_detector(detector)
    images = [picture(200, 150, seed) for seed in range(3)]
    together = Florence2(str(folder), batch_size=3).detect(images, PROMPTS)
    assert sum(map(len, together)) > 3
    for image, found in zip(images, together, strict=True):
        assert set(found.scores.reshape(-1)) <= {0.0, 1.0} and (found.scores.sum(axis=1) == 1).all()
        (alone,) = detector.detect([image], PROMPTS)
        np.testing.assert_array_equal(alone.xyxy, found.xyxy)
        np.testing.assert_array_equal(alone.scores, found.scores)


def test_many_prompts_are_asked_in_parts_and_the_image_is_seen_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.detect.florence.PROMPTS_AT_ONCE", 3)
    detector, calls = Florence2(str(folder)), []
    detector._model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    (found,) = detector.detect(IMAGES[:1], [f"cat {number}" for number in range(7)])
    assert found.scores.shape[1] == 7 and len(calls) == 1


def test_an_answer_without_end_stops_at_the_last_position(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.detect.florence.MOST_TOKENS", 1024)
    detector, lengths = Florence2(str(folder)), []
    decoder = detector._model.model.language_model.decoder
    decoder.register_forward_hook(lambda *_: lengths.append(1))
    detector.detect(IMAGES[:1], PROMPTS[:1])
    assert len(lengths) == 149  # of 150 positions; tiny models rarely end by themselves


def test_a_question_that_is_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(OntologyError, match=r"tokens long as a question; beside the 5 of an image this model reads at most 145"):
        Florence2(str(folder)).detect(IMAGES[:1], ["dog" * 50])
