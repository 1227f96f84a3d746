"""SAM on random tiny weights: what it costs, what it returns, and that nothing depends on its company."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from autodistill_grounded_sam.errors import ConfigError, RecordError
from autodistill_grounded_sam.masks import areas, decode_mask, mask_iou
from autodistill_grounded_sam.protocols import Segmenter
from autodistill_grounded_sam.segment import sam as sam_module
from autodistill_grounded_sam.segment.sam import Sam, Upsampling, fitted_size, square_pixels
from autodistill_grounded_sam.testing import check_segmenter


@pytest.fixture(scope="module")
def sam(folder: Path) -> Sam:
    return Sam(str(folder))


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    """The first dimension of what each call of a torch module returned."""
    calls: list[int] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        calls.append(len(output[0] if isinstance(output, tuple) else output))

    handle = module.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def mask_calls(sam: Sam) -> Any:
    """A call of the mask decoder each: it predicts the quality of its masks once."""
    return counted(sam._model.mask_decoder.iou_prediction_head)


def test_fills_masks_and_scores_and_leaves_the_rest(sam, picture, boxed):
    given_candidates = boxed((10, 20, 60, 80), (30, 5, 90, 40))
    (found,) = sam.segment([picture(96, 150)], [given_candidates])
    assert isinstance(sam, Segmenter)
    assert found.xyxy is given_candidates.xyxy and found.scores is given_candidates.scores
    assert [code["size"] for code in found.rle] == [[96, 150]] * 2
    assert found.mask_score.dtype == np.float32 and ((found.mask_score >= 0) & (found.mask_score <= 1)).all()
    share = areas(found.rle) / (96 * 150)
    assert ((share > 0.02) & (share < 0.98)).all(), "random weights gave trivial masks: these tests would prove nothing"
    assert mask_iou(*found.rle) < 0.95, "two boxes of one image must not get one mask"


def test_keeps_the_contract_of_its_seam(sam):
    check_segmenter(sam)


def test_one_image_in_one_result_out_in_order(sam, picture, boxed):
    images = [picture(60, 90, 1), picture(90, 60, 2), picture(50, 50, 3)]
    found = sam.segment(images, [boxed((5, 5, 50, 50)), boxed(), boxed((1, 2, 30, 40), (10, 10, 40, 40))])
    assert [len(f) for f in found] == [1, 0, 2]
    assert [f.rle[0]["size"] if len(f) else None for f in found] == [[60, 90], None, [50, 50]]
    assert sam.segment([], []) == []


def test_images_without_boxes_never_touch_sam(sam, picture, boxed):
    images = [picture(40, 60), picture(40, 60)]
    with counted(sam._model.vision_encoder.patch_embed) as encoded, mask_calls(sam) as decoded:
        found = sam.segment(images, [boxed(), boxed((70, 10, 90, 20), (5, 5, 5, 30))])
    assert encoded == [] and decoded == []
    assert found[0].rle == () and found[0].mask_score.shape == (0,)
    assert areas(found[1].rle).tolist() == [0, 0]


def test_images_are_encoded_once_and_together(sam, folder, picture, boxed):
    images = [picture(40, 60, 1), picture(60, 40, 2), picture(50, 50, 3), picture(64, 64, 4)]
    candidates = [boxed((5, 5, 30, 30), (1, 1, 9, 9)), boxed(), boxed((3, 3, 40, 40)), boxed((3, 3, 40, 40))]
    with counted(sam._model.vision_encoder.patch_embed) as encoded, mask_calls(sam) as decoded:
        sam.segment(images, candidates)
    assert encoded == [1, 1, 1], "one image at a time on a CPU, and only the three that have boxes"
    assert len(decoded) == 3, "one call of the mask decoder an image"
    pairs = Sam(str(folder), images_per_call=2)
    with counted(pairs._model.vision_encoder.patch_embed) as encoded:
        pairs.segment(images, candidates)
    assert encoded == [2, 1]


def test_many_boxes_go_through_the_decoder_in_chunks(sam, folder, picture, boxed):
    boxes = boxed(*[(5 * i, 3 * i, 40 + 6 * i, 30 + 5 * i) for i in range(7)])
    chunked = Sam(str(folder), boxes_per_call=3)
    with mask_calls(sam) as once, mask_calls(chunked) as thrice:
        (whole,), (parts,) = sam.segment([picture(70, 100)], [boxes]), chunked.segment([picture(70, 100)], [boxes])
    assert (len(once), len(thrice)) == (1, 3)
    np.testing.assert_allclose(parts.mask_score, whole.mask_score, atol=1e-4)
    assert min(map(mask_iou, parts.rle, whole.rle)) > 0.999


def test_a_result_does_not_depend_on_its_batch(sam, picture, boxed):
    images = [picture(70, 100, 1), picture(100, 64, 2), picture(33, 90, 3)]
    candidates = [boxed((5, 5, 60, 60)), boxed((8, 8, 40, 90), (1, 30, 60, 70)), boxed((10, 2, 80, 30))]
    together = sam.segment(images, candidates)
    for image, boxes, found in zip(images, candidates, together, strict=True):
        (alone,) = sam.segment([image], [boxes])
        np.testing.assert_allclose(alone.mask_score, found.mask_score, atol=1e-4)
        assert min(map(mask_iou, alone.rle, found.rle)) > 0.999
    assert torch.dist(sam._embed(images)[1], sam._embed([images[1]])[0], p=torch.inf) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5000, 1), (1, 5000), (40, 12000), (3, 2)])
def test_pictures_of_any_shape(sam, picture, boxed, height, width):
    (found,) = sam.segment([picture(height, width)], [boxed((0, 0, width, height))])
    assert found.rle[0]["size"] == [height, width]


def test_boxes_beyond_the_edge_are_clipped_and_those_without_area_get_an_empty_mask(sam, picture, boxed):
    image = picture(60, 80)
    boxes = boxed(
        (-30, -5, 50, 99), (200, 10, 300, 20), (10, 10, 10, 40), (5, 60, 30, 70), (20, 20, 20.4, 50), (-1e9, 0, 1e9, 60)
    )
    (found,) = sam.segment([image], [boxes])
    (inside,) = sam.segment([image], [boxed((0, 0, 50, 60), (0, 0, 80, 60))])
    np.testing.assert_array_equal(found.xyxy, boxes.xyxy)
    assert (areas(found.rle) > 0).tolist() == [True, False, False, False, True, True]
    assert found.mask_score[1:4].tolist() == [0, 0, 0]
    assert mask_iou(found.rle[0], inside.rle[0]) > 0.999 and mask_iou(found.rle[5], inside.rle[1]) > 0.999


def test_boxes_can_be_told_to_sam_as_they_came(folder, picture, boxed):
    image, boxes = picture(96, 128), boxed((-30, -5, 50, 99), (10, 10, 60, 90), (200, 10, 300, 20))
    raw, clipping = Sam(str(folder), clip_boxes=False), Sam(str(folder))
    scaled = torch.from_numpy(boxes.xyxy)[None] * (raw._fitted(96, 128)[1] / 128)
    with torch.inference_mode():
        embedding = raw._embed([image])
        told = raw._model(image_embeddings=embedding, input_boxes=scaled, multimask_output=False).pred_masks[0, :, 0]
        ours, clipped = (torch.cat(one._decode(embedding[0], image, boxes).logits) for one in (raw, clipping))
    torch.testing.assert_close(ours, told, atol=1e-3, rtol=1e-4)
    assert len(clipped) == 2, "the third box is outside the picture"
    assert torch.dist(clipped[0], told[0], p=torch.inf) > 0.01, "the first one leaves it"
    torch.testing.assert_close(clipped[1], told[1], atol=1e-3, rtol=1e-4)


def test_best_of_three_keeps_the_guess_that_sam_rates_best(folder, picture, boxed):
    sam, image = Sam(str(folder), mask_guess="best-of-three"), picture(128, 128)
    boxes = np.array([[10, 10, 100, 90], [40, 30, 120, 120], [5, 60, 70, 70]], np.float32)
    with torch.inference_mode():
        embedding = sam._embed([image])
        three = sam._model(image_embeddings=embedding, input_boxes=torch.from_numpy(boxes)[None], multimask_output=True)
        logits, iou = sam._decoder.decode(sam._decoder.see(embedding[0]), torch.from_numpy(boxes), "best-of-three")
    best = three.iou_scores[0].argmax(1)
    assert len(set(best.tolist())) > 1, "the same guess is best everywhere: this test would prove nothing"
    for row, guess in enumerate(best):
        torch.testing.assert_close(logits[row], three.pred_masks[0, row, guess], atol=1e-3, rtol=1e-4)
        assert float(iou[row]) == pytest.approx(float(three.iou_scores[0, row, guess]), abs=1e-4)
    with torch.inference_mode():
        single, _ = sam._decoder.decode(sam._decoder.see(embedding[0]), torch.from_numpy(boxes), "single")
    assert not torch.allclose(single, logits)


def test_in_bfloat16_masks_are_nearly_the_same(sam, folder, picture, boxed):
    boxes, image = boxed((10, 10, 70, 60), (30, 5, 90, 55)), picture(70, 100)
    (exact,), (near,) = sam.segment([image], [boxes]), Sam(str(folder), precision="bfloat16").segment([image], [boxes])
    assert not np.array_equal(exact.mask_score, near.mask_score), "nothing was computed otherwise"
    np.testing.assert_allclose(near.mask_score, exact.mask_score, atol=0.1)
    assert min(map(mask_iou, near.rle, exact.rle)) > 0.9


def test_runs_in_float32_with_fast_attention(sam):
    assert sam._model.mask_decoder.config._attn_implementation == "sdpa"
    assert {p.dtype for p in sam._model.parameters()} == {torch.float32} and not sam._model.training


def test_colours_are_rgb(sam, picture, boxed):
    image = picture(80, 80)
    (rgb,), (bgr,) = (sam.segment([picture_], [boxed((10, 10, 70, 60))]) for picture_ in (image, image[:, :, ::-1]))
    assert mask_iou(rgb.rle[0], bgr.rle[0]) < 0.99
    red = square_pixels(np.full((4, 4, 3), (255, 0, 0), np.uint8), 8)
    np.testing.assert_allclose(red[:, 0, 0], [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-5)


def test_padding_is_zero_after_normalising(picture):
    pixels = square_pixels(picture(30, 60) // 2, 32)
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.float32
    assert not pixels[:, 16:].any() and pixels[:, :16].all()


@given(st.integers(1, 20000), st.integers(1, 20000), st.sampled_from([128, 256, 1024]))
def test_fitted_size_is_that_of_the_authors(height, width, longest):
    transforms = pytest.importorskip("segment_anything.utils.transforms")
    theirs = transforms.ResizeLongestSide.get_preprocess_shape(height, width, longest)
    assert fitted_size(height, width, longest) == (max(1, theirs[0]), max(1, theirs[1]))
    assert max(fitted_size(height, width, longest)) == longest


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**31), st.floats(-2.5, 1))
def test_upsampling_equals_two_bilinear_steps(height, width, seed, bias):
    low, square = 16, 64
    logits = torch.randn((low, low), generator=torch.Generator().manual_seed(seed)) + bias
    fitted = fitted_size(height, width, square)
    steps = interpolate(logits[None, None], (square, square), mode="bilinear", align_corners=False)[..., : fitted[0], : fitted[1]]
    expected = interpolate(steps, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    mask = Upsampling(low, square, fitted, (height, width)).mask(logits)
    certain = abs(expected) > 1e-4  # nearer to 0 than that, rounding decides
    np.testing.assert_array_equal(mask[certain], expected[certain] > 0)
    assert mask.dtype == np.uint8 and mask.shape == (height, width) and mask.flags.f_contiguous


def test_wrong_input_is_refused(sam, folder, picture, boxed):
    with pytest.raises(RecordError, match="expected one Candidates an image, got 1 images and 2 Candidates"):
        sam.segment([picture(9, 9)], [boxed(), boxed()])
    for image, got in ((np.zeros((5, 5, 4), np.uint8), r"uint8 of shape \(5, 5, 4\)"), (np.zeros((5, 5, 3)), "float64")):
        with pytest.raises(RecordError, match=rf"must be RGB, uint8 \(height, width, 3\), got {got}"):
            sam.segment([image], [boxed((0, 0, 2, 2))])
    with pytest.raises(ConfigError, match="boxes_per_call must be at least 1, got 0"):
        Sam(str(folder), boxes_per_call=0)
    with pytest.raises(ConfigError, match="mini has learnt to give a single answer"):
        Sam("mini", mask_guess="best-of-three")
    with pytest.raises(ConfigError, match="images_per_call must be at least 1, got -1"):
        Sam(str(folder), images_per_call=-1)


def test_importing_is_cheap():
    code = "import sys, autodistill_grounded_sam.segment.sam; sys.exit(bool({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BIG = """
import resource, sys
import numpy as np
from autodistill_grounded_sam.segment.sam import Sam
from autodistill_grounded_sam.types import Candidates
def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
sam = Sam(sys.argv[1])
corner = np.random.default_rng(0).random((100, 2)) * (3000, 2000)
boxes = np.concatenate([corner, corner + 2000], axis=1).astype(np.float32)
candidates = Candidates(boxes, np.ones((100, 1), np.float32))
sam.segment([np.zeros((45, 60, 3), np.uint8)], [candidates])
image = np.random.default_rng(0).integers(0, 256, (4500, 6000, 3), dtype=np.uint8)
before = peak_mb()
(found,) = sam.segment([image], [candidates])
assert found.rle[0]["size"] == [4500, 6000]
print(peak_mb() - before)
"""


@pytest.mark.slow
def test_a_27_megapixel_image_with_100_boxes_needs_little_memory(folder):
    """100 masks of it would be 2.7 GB as bools and 10.8 GB as floats; Pillow's own copy of the image is 108 MB."""
    answer = subprocess.run([sys.executable, "-c", BIG, str(folder)], check=True, capture_output=True, text=True)
    assert float(answer.stdout) < 350


@pytest.mark.gpu
def test_a_gpu_gives_the_same_masks(sam, folder, picture, boxed):
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else pytest.skip("no GPU here")
    boxes = boxed((10, 20, 60, 80), (30, 5, 90, 40))
    (here,), (there,) = (s.segment([picture(96, 150)], [boxes]) for s in (sam, Sam(str(folder), device=device)))
    assert min(map(mask_iou, here.rle, there.rle)) > 0.99
    np.testing.assert_allclose(here.mask_score, there.mask_score, atol=1e-2)


def test_codes_of_masks_made_beside_a_gpu_are_the_same(sam, picture, boxed, monkeypatch):
    images, boxes = (
        [picture(70, 100), picture(96, 50), picture(30, 30)],
        [boxed((10, 10, 70, 60)), boxed(), boxed((1, 2, 29, 28))],
    )
    here = sam.segment(images, boxes)
    monkeypatch.setattr(sam_module, "_at_once", lambda work, *arguments: pool.submit(work, *arguments))
    with ThreadPoolExecutor(1) as pool:
        beside = sam.segment(images, boxes)
    assert [found.rle for found in here] == [found.rle for found in beside]
    assert [found.mask_score.tolist() for found in here] == [found.mask_score.tolist() for found in beside]


def test_the_mask_is_where_the_logits_are(sam, picture, boxed):
    """The frame: x to the right, y down; padding is cut off, not squeezed in."""
    logits = torch.full((32, 32), -1.0)
    logits[2:6, 20:28] = 1.0  # rows 2..5, columns 20..27 of the square of 128 px: y 8..24, x 80..112
    mask = Upsampling(32, 128, (64, 128), (640, 1280)).mask(logits)
    ys, xs = np.nonzero(mask)
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [800, 80, 1120, 240], atol=8)
    assert decode_mask(sam.segment([picture(64, 128)], [boxed((80, 8, 112, 24))])[0].rle[0]).shape == (64, 128)
