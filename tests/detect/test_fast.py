"""Our forward pass against transformers' own, on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForZeroShotObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

from autodistill_grounded_sam.detect import fast as fast_module
from autodistill_grounded_sam.detect.deformable import Maps, gather, sample
from autodistill_grounded_sam.detect.fast import FastGroundingDino
from autodistill_grounded_sam.detect.fusion import FoldedFusion
from autodistill_grounded_sam.detect.grounding_dino import GroundingDino
from autodistill_grounded_sam.painting import FRESH_SETTINGS, paint_scene

SHORT = [101, 200, 202, 1012, 203, 1012, 102]
LONG = [101, *[token for word in range(200, 213) for token in (word, 300 + word - 200, 1012)] * 3, 102]


def load(folder: Path) -> Any:
    return AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()


def by_the_book(model: Any, pixels: torch.Tensor, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    words = torch.tensor([ids]).expand(len(pixels), -1)
    with torch.inference_mode():
        answer = model(pixel_values=pixels, input_ids=words, attention_mask=torch.ones_like(words))
    return answer.logits[..., : len(ids)], answer.pred_boxes


def ours(model: Any, pixels: torch.Tensor, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    forward = FastGroundingDino(model)
    with torch.inference_mode():
        return forward.ask(forward.see(pixels), forward.read(torch.tensor([ids])))


@pytest.mark.parametrize("mm", [False, True])
@pytest.mark.parametrize("ids", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("size", [(96, 128), (160, 96), (33, 250), (96, 16)])  # the last has maps of a single column
def test_logits_and_boxes_are_those_of_transformers(
    make_grounding_dino: Callable[..., Path], mm: bool, ids: list[int], size: tuple[int, int]
) -> None:
    model = load(make_grounding_dino(mm=mm))
    pixels = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(3))
    logits, boxes = by_the_book(model, pixels, ids)
    assert logits.std() > 0.1 and boxes.std() > 0.01, "random weights gave a constant answer: this test would prove nothing"
    fast_logits, fast_boxes = ours(model, pixels, ids)
    torch.testing.assert_close(fast_logits, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(fast_boxes, boxes, atol=1e-5, rtol=0)


def test_blocks_do_not_change_the_answer(tiny_grounding_dino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = load(tiny_grounding_dino), torch.randn((1, 3, 96, 130), generator=torch.Generator().manual_seed(4))
    whole = ours(model, pixels, SHORT)
    monkeypatch.setattr(fast_module, "BLOCK_CELLS", 7)
    for first, second in zip(ours(model, pixels, SHORT), whole, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_an_image_is_seen_once_and_a_caption_read_once(tiny_grounding_dino: Path) -> None:
    detector = GroundingDino(str(tiny_grounding_dino), floor=0.0)
    detector._captions = lambda prompts: tuple(detector._pack((prompt,))[0] for prompt in prompts)  # a caption a prompt
    model, calls = detector._model.model, {"images": 0, "texts": 0}
    model.backbone.conv_encoder.model.register_forward_hook(lambda *_: calls.update(images=calls["images"] + 1))
    model.text_backbone.register_forward_hook(lambda *_: calls.update(texts=calls["texts"] + 1))
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    detector.detect([image, image], ["red cat", "dog"])
    assert calls == {"images": 2, "texts": 2}


def test_the_detector_answers_alike_without_the_fast_pass(tiny_grounding_dino: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    (fast,), (slow,) = (
        GroundingDino(str(tiny_grounding_dino), fast=fast).detect([image], ["red cat", "dog"]) for fast in (True, False)
    )
    np.testing.assert_allclose(fast.xyxy, slow.xyxy, atol=1e-3)
    np.testing.assert_allclose(fast.scores, slow.scores, atol=1e-5)


@pytest.mark.parametrize(("precision", "moves"), [("tf32", 1e-5), ("bfloat16", 0.05)])
def test_a_lower_precision_moves_scores_a_little(precision: Any, moves: float) -> None:
    scene = paint_scene(FRESH_SETTINGS, 41)
    prompts = list(dict.fromkeys(painted.name for painted in scene.objects))
    (exact,), (near,) = (
        GroundingDino(precision=how, floor=0.4).detect([scene.image_rgb], prompts) for how in ("float32", precision)
    )
    assert len(exact) >= 4 and near.scores.dtype == near.xyxy.dtype == np.float32
    for box, score in zip(exact.xyxy, exact.scores.max(axis=1), strict=True):
        beside = np.abs(near.xyxy - box).max(axis=1).argmin() if len(near) else -1
        assert score < 0.4 + moves or np.abs(near.xyxy[beside] - box).max() < 40 * moves
        assert score < 0.4 + moves or abs(near.scores[beside].max() - score) < moves
    assert torch.get_float32_matmul_precision() == "highest"


def test_models_it_does_not_know_are_left_to_transformers(tiny_grounding_dino: Path) -> None:
    model = load(tiny_grounding_dino)
    assert FastGroundingDino.fits(model)
    model.config.position_embedding_type = "learned"
    assert not FastGroundingDino.fits(model)


def test_fusion_equals_the_unfolded_layer(tiny_grounding_dino: Path) -> None:
    layer = load(tiny_grounding_dino).model.encoder.layers[0].fusion_layer
    random = torch.Generator().manual_seed(5)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * 0.5
    vision, text = torch.randn((2, 50, 64), generator=random), torch.randn((2, 9, 64), generator=random)
    with torch.inference_mode():
        (for_vision, _), (for_text, _) = layer(vision, text)
        folded_vision, folded_text = FoldedFusion(layer)(vision, text)
    assert (for_vision - vision).abs().max() > 1 and (for_text - text).abs().max() > 1
    torch.testing.assert_close(folded_vision, for_vision, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(folded_text, for_text, atol=1e-4, rtol=1e-5)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    spread=st.sampled_from([0.3, 1.0, 8.0]),
)
@settings(max_examples=60, deadline=None)
def test_both_ways_equal_that_of_transformers(shapes: list[tuple[int, int]], seed: int, spread: float) -> None:
    random = torch.Generator().manual_seed(seed)
    cells, queries, heads, channels, points = sum(h * w for h, w in shapes), 11, 3, 4, 2
    values = torch.randn((cells, heads, channels), generator=random)
    places = 0.5 + spread * torch.randn((queries, heads, len(shapes), points, 2), generator=random)
    weights = torch.randn((queries, heads, len(shapes), points), generator=random)
    expected = MultiScaleDeformableAttention()(values[None], None, shapes, None, places[None], weights[None], 64)[0]
    maps = Maps.of(tuple(shapes), heads, points, torch.device("cpu"))
    at = places.movedim(-1, 1).flatten(2) * maps.sides - 0.5
    for way in (gather, sample):
        torch.testing.assert_close(way(values, at, weights.flatten(1), maps), expected, atol=1e-5, rtol=1e-4)
