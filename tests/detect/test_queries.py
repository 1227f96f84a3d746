"""What the official evaluation ranks: every query's box as the model says it, with the mean over each prompt's tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

from autodistill_grounded_sam.detect.grounding_dino import GroundingDino
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.types import RgbImage

PROMPTS = ["Red_cat", "dog", "t-shirt", "fire machine"]


@pytest.fixture
def image() -> RgbImage:
    return np.random.default_rng(3).integers(0, 256, (96, 128, 3), np.uint8)


def test_queries__are_those_of_transformers(tiny_grounding_dino: Path, image: RgbImage) -> None:
    detector = GroundingDino(str(tiny_grounding_dino), floor=0.5)
    (found,) = detector.queries([image], PROMPTS)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(tiny_grounding_dino).eval()
    caption = AutoTokenizer.from_pretrained(tiny_grounding_dino)("Red_cat . dog . t-shirt . fire machine .", return_tensors="pt")
    with torch.no_grad():
        answer = model(pixel_values=detector._inputs.pixels(image, (128, 96), "cpu"), **caption)
    centre, size = answer.pred_boxes[0].split(2, dim=-1)
    expected = torch.cat([centre - size / 2, centre + size / 2], dim=-1) * torch.tensor([128, 96, 128, 96])
    assert len(found) == 20 and (expected[:, 0] < 0).any(), "no box leaves the image: this test would not see one that is clipped"
    np.testing.assert_allclose(found.xyxy, expected, atol=1e-2)
    tokens = answer.logits[0].sigmoid()
    spans = [
        (1, caption.char_to_token(6)),
        *((caption.char_to_token(a), caption.char_to_token(b)) for a, b in ((10, 12), (16, 22))),
    ]
    for column, (first, last) in enumerate(spans):
        np.testing.assert_allclose(found.scores[:, column], tokens[:, first : last + 1].mean(-1), atol=1e-4)


def test_queries__no_caption_and_several(tiny_grounding_dino: Path, image: RgbImage) -> None:
    detector = GroundingDino(str(tiny_grounding_dino))
    assert [len(found) for found in detector.queries([image, image], [])] == [0, 0]
    many = [f"cat {number}" for number in range(100)]
    with pytest.raises(OntologyError, match=r"100 prompts take \d captions of .* but must fit in one: ask fewer or shorter"):
        detector.queries([image], many)
