from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.utils import logging

from autodistill_grounded_sam.detect.grounding_dino import (
    MOST_TO_MERGE,
    GroundingDino,
    Inputs,
    enough_cells,
    merge_captions,
)
from autodistill_grounded_sam.errors import ConfigError, OntologyError, RecordError, WeightsError
from autodistill_grounded_sam.loading import quiet_loading
from autodistill_grounded_sam.protocols import Detector
from autodistill_grounded_sam.types import Candidates

PROMPTS = ["red cat", "dog", "t-shirt", "fire machine"]
OFFICIAL = Inputs(800, 1333, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth noise: what a photograph is to a resize."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (min(height, 12), min(width, 16), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


ODD_SIZES = [(200, 150), (150, 200), (201, 150), (200, 150), (1, 1), (1, 5000), (12000, 40), (96, 96), (3, 2)]
IMAGES = [picture(width, height, seed) for seed, (width, height) in enumerate(ODD_SIZES)]


def assert_close(first: Candidates, second: Candidates, image: npt.NDArray[np.uint8]) -> None:
    """Boxes relative to the image and scores within 1e-4."""
    scale = np.array([image.shape[1], image.shape[0]] * 2)
    np.testing.assert_allclose(first.xyxy / scale, second.xyxy / scale, atol=1e-4)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)


@pytest.fixture(scope="module")
def detector(tiny_grounding_dino: Path) -> GroundingDino:
    return GroundingDino(str(tiny_grounding_dino))


def test_detect__one_record_an_image_in_order_and_inside_it(detector: GroundingDino) -> None:
    assert isinstance(detector, Detector)
    found = detector.detect(IMAGES, PROMPTS)
    assert len(found) == len(IMAGES)
    for image, candidates in zip(IMAGES, found, strict=True):
        assert candidates.scores.shape == (len(candidates), len(PROMPTS))
        assert len(candidates) > 0
        best = candidates.scores.max(axis=1)
        assert (np.diff(best) <= 0).all()
        assert best.min() >= 0.05
        assert candidates.xyxy.min() >= 0
        assert (candidates.xyxy[:, 2:] <= [image.shape[1], image.shape[0]]).all()
        assert (candidates.xyxy[:, 2:] > candidates.xyxy[:, :2]).all()


def test_detect__does_not_depend_on_the_batch(tiny_grounding_dino: Path, detector: GroundingDino) -> None:
    alone = [detector.detect([image], PROMPTS)[0] for image in IMAGES]
    for found, single in zip(detector.detect(IMAGES, PROMPTS), alone, strict=True):  # on a CPU: the very same bits
        np.testing.assert_array_equal(found.xyxy, single.xyxy)
        np.testing.assert_array_equal(found.scores, single.scores)
    batched = GroundingDino(str(tiny_grounding_dino), batch_size=4)
    shuffled = [5, 3, 0, 8, 2, 7, 1, 6, 4]
    for index, found in zip(shuffled, batched.detect([IMAGES[i] for i in shuffled], PROMPTS), strict=True):
        assert_close(found, alone[index], IMAGES[index])


def test_detect__same_call_same_bits_and_no_touch_of_global_random_numbers(tiny_grounding_dino: Path) -> None:
    state = torch.random.get_rng_state()
    first = GroundingDino(str(tiny_grounding_dino)).detect(IMAGES[:2], PROMPTS)
    assert torch.equal(torch.random.get_rng_state(), state)
    again = GroundingDino(str(tiny_grounding_dino)).detect(IMAGES[:2], PROMPTS)
    assert all(np.array_equal(a.scores, b.scores) and np.array_equal(a.xyxy, b.xyxy) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("mm", [False, True])
def test_detect__equals_the_processor_and_model_of_transformers(make_grounding_dino: Callable[..., Path], mm: bool) -> None:
    folder = make_grounding_dino(mm=mm)
    processor, image = AutoProcessor.from_pretrained(folder), IMAGES[0]
    inputs = processor(images=Image.fromarray(image), text="red cat . dog .", return_tensors="pt")
    with torch.inference_mode():
        out = AutoModelForZeroShotObjectDetection.from_pretrained(folder)(**inputs)
    probabilities = out.logits[0].sigmoid().numpy()
    expected = np.stack([probabilities[:, 1:3].mean(1), probabilities[:, 4]], axis=1)  # [CLS] red cat . dog . [SEP]
    (found,) = GroundingDino(str(folder), span_score="mean").detect([image], ["red cat", "dog"])
    assert len(found) > 5
    order = [i for i in np.argsort(-expected.max(1), kind="stable") if expected[i].max() >= 0.05]
    np.testing.assert_allclose(found.scores, expected[order], atol=1e-4)
    cx, cy, w, h = out.pred_boxes[0].numpy()[order].T
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1).clip(0, 1) * [200, 150, 200, 150]
    np.testing.assert_allclose(found.xyxy, boxes, atol=0.02)


def test_detect__floor_and_score_modes(tiny_grounding_dino: Path) -> None:
    every = GroundingDino(str(tiny_grounding_dino), floor=0).detect(IMAGES[:1], PROMPTS)[0]
    assert len(every) == 20  # all queries
    high = GroundingDino(str(tiny_grounding_dino), floor=0.6).detect(IMAGES[:1], PROMPTS)[0]
    assert len(high) == (every.scores.max(axis=1) >= 0.6).sum() > 0
    best = GroundingDino(str(tiny_grounding_dino), floor=0, span_score="max").detect(IMAGES[:1], PROMPTS)[0]
    assert best.scores.sum() > every.scores.sum()


def test_detect__captions_compete(make_grounding_dino: Callable[..., Path]) -> None:
    """With a short caption limit the columns of every caption are those of asking it alone, or the better of merged boxes."""
    detector = GroundingDino(str(make_grounding_dino(max_text_len=12)), floor=0, prompt_groups=[PROMPTS[:2], PROMPTS[2:]])
    captions = detector.captions(PROMPTS)
    assert len(captions) > 1
    (together,) = detector.detect(IMAGES[:1], PROMPTS)
    boxes, scores, caption_of = [], [], []
    for number, caption in enumerate(captions):
        (alone,) = detector.detect(IMAGES[:1], [PROMPTS[index] for index in caption.prompts])
        columns = np.zeros((len(alone), len(PROMPTS)), np.float32)
        columns[:, caption.prompts] = alone.scores
        boxes, scores = [*boxes, alone.xyxy], [*scores, columns]
        caption_of += [number] * len(alone)
    expected = merge_captions(np.concatenate(boxes), np.concatenate(scores), np.array(caption_of), 0)
    np.testing.assert_allclose(together.xyxy, expected[0], atol=1e-2)
    np.testing.assert_allclose(together.scores, expected[1], atol=1e-4)


def test_detect__nothing_asked_or_nothing_given(detector: GroundingDino) -> None:
    assert detector.detect([], PROMPTS) == []
    assert [len(found) for found in detector.detect(IMAGES[:2], [])] == [0, 0]
    (found,) = detector.detect(IMAGES[:1], ["\u0301"])
    assert found.scores.shape == (0, 1)
    (found,) = detector.detect(IMAGES[:1], ["\u0301", "cat"])
    assert found.scores.shape[1] == 2
    assert not found.scores[:, 0].any()


def test_detect__wrong_images_and_prompts(detector: GroundingDino) -> None:
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(RecordError, match=r"expected an RGB image, uint8 \(height, width, 3\), got .* of shape \(4, 4"):
            detector.detect([wrong], PROMPTS)
    with pytest.raises(OntologyError, match=r"prompt 'a a a .* is 70 tokens long, but this model reads at most 63"):
        detector.detect(IMAGES[:1], ["a " * 69 + "a"])  # 64 positions in the text encoder, one of them for the dot


def test_detect__nan_in_the_weights_gives_no_candidates(tiny_grounding_dino: Path) -> None:
    broken = GroundingDino(str(tiny_grounding_dino))
    torch.nn.init.constant_(broken._model.model.text_projection.weight, float("nan"))
    assert len(broken.detect(IMAGES[:1], PROMPTS)[0]) == 0


def test_fixed_size_of_a_folder(make_grounding_dino: Callable[..., Path]) -> None:
    folder = str(make_grounding_dino(size={"height": 96, "width": 128}))
    assert GroundingDino(folder).resized_size(640, 480) == (128, 96)
    assert GroundingDino(folder, shorter_side_px=120).resized_size(640, 480) == (160, 120)
    assert GroundingDino(folder, shorter_side_px=120, longer_side_px=140).resized_size(640, 480) == (140, 105)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"span_score": "median"}, "span_score must be mean, max or gate, got 'median'"),
        ({"floor": 1.5}, r"floor must be in \[0, 1\], got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shorter_side_px": 300, "longer_side_px": 200}, "16 <= shorter_side_px <= longer_side_px, got 300 and 200"),
        ({"shorter_side_px": 4}, "16 <= shorter_side_px <= longer_side_px, got 4"),
        ({"config": {}}, "config= is for official files; .* is a transformers folder"),
    ],
)
def test_wrong_settings(tiny_grounding_dino: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GroundingDino(str(tiny_grounding_dino), **settings)  # type: ignore[arg-type]


def test_another_kind_of_model_is_refused(make_grounding_dino: Callable[..., Path]) -> None:
    folder = make_grounding_dino()
    (folder / "config.json").write_text(json.dumps({"model_type": "owlvit"}))
    with pytest.raises(WeightsError, match="holds a 'owlvit' model; this detector runs grounding-dino and mm-grounding-dino"):
        GroundingDino(str(folder))
    (folder / "config.json").write_text("not json")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        GroundingDino(str(folder))


def test_damaged_weights_are_never_filled_up_at_random(make_grounding_dino: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_grounding_dino()
    state = load_file(folder / "model.safetensors")
    del state["model.enc_output.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"do not fit their config\.json \(missing keys: model\.enc_output\.weight \(1\)\)"):
        GroundingDino(str(folder))
    (folder / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(WeightsError, match="cannot be read"):
        GroundingDino(str(folder))


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (1066, 800)),
        (480, 640, (800, 1066)),
        (800, 800, (800, 800)),
        (1, 1, (800, 800)),
        (1333, 800, (1333, 800)),
        (1920, 800, (1332, 555)),  # the official rule takes the longer side from the rounded shorter one
        (12000, 40, (1200, 4)),
        (1, 5000, (1, 1333)),
        (5000, 1, (1333, 1)),
    ],
)
def test_inputs_size(width: int, height: int, expected: tuple[int, int]) -> None:
    assert OFFICIAL.size(width, height) == expected


@settings(max_examples=300, deadline=None)
@given(width=st.integers(1, 20000), height=st.integers(1, 20000))
def test_inputs_size__close_to_transformers_and_never_zero(width: int, height: int) -> None:
    size = OFFICIAL.size(width, height)
    assert min(size) >= 1
    assert max(size) <= 2 * 1333
    theirs_height, theirs_width = get_size_with_aspect_ratio((height, width), 800, 1333)
    if min(theirs_height, theirs_width) >= 30:  # they take the longer side from the unrounded shorter one
        slack = 1 + max(width, height) / min(width, height) / 2
        assert abs(size[0] - theirs_width) <= slack
        assert abs(size[1] - theirs_height) <= slack


@pytest.mark.parametrize("queries", [20, 900])
@pytest.mark.parametrize(("width", "height"), [(1, 1333), (1200, 4), (32, 32), (800, 1066), (2, 3)])
def testenough_cells__for_every_query(detector: GroundingDino, width: int, height: int, queries: int) -> None:
    import copy

    config = copy.deepcopy(detector._model.config)
    config.num_queries = queries
    grown = enough_cells(config, width, height)
    cells = sum(-(-grown[0] // step) * -(-grown[1] // step) for step in (8, 16, 32))
    assert cells >= queries
    assert grown[0] >= width
    assert grown[1] >= height
    if (width, height) == (800, 1066):
        assert grown == (width, height)


def test_inputs_pixels__as_pillow_within_one_grey_level() -> None:
    image = picture(611, 407, 5)
    mean, std = np.array(OFFICIAL.mean).reshape(3, 1, 1), np.array(OFFICIAL.std).reshape(3, 1, 1)
    for size in ((300, 200), (1066, 710), (611, 407)):
        grey = OFFICIAL.pixels(image, size, "cpu")[0].numpy() * std + mean
        pillow = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(grey * 255 - pillow).max() < 1.001


def test_merge_captions__one_object_of_two_captions_becomes_one() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0.6, 0.6, 1, 1], [0, 0, 0.5, 0.51], [0, 0.5, 0.3, 1]], np.float32)
    scores = np.array([[0.4, 0], [0.3, 0], [0, 0.7], [0, 0.2]], np.float32)
    merged, best, _ = merge_captions(boxes, scores, np.array([0, 0, 1, 1]), 0.05)
    np.testing.assert_array_equal(merged, boxes[[2, 1, 3]])
    np.testing.assert_array_equal(best, np.array([[0.4, 0.7], [0.3, 0], [0, 0.2]], np.float32))


def test_merge_captions__a_rival_below_the_floor_still_competes() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5]] * 2, np.float32)
    merged, best, _ = merge_captions(boxes, np.array([[0.4, 0], [0, 0.04]], np.float32), np.array([0, 1]), 0.05)
    assert len(merged) == 1
    np.testing.assert_array_equal(best, np.array([[0.4, 0.04]], np.float32))


def test_merge_captions__boxes_of_one_caption_stay() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.501], [np.nan, 0, 1, 1]], np.float32)
    scores = np.array([[0.4, 0.1], [0.5, 0], [0.9, 0.9]], np.float32)
    merged, best, _ = merge_captions(boxes, scores, np.zeros(3, int), 0.05)
    np.testing.assert_array_equal(merged, boxes[[1, 0]])
    np.testing.assert_array_equal(best, scores[[1, 0]])


def merged_all_at_once(
    boxes_xyxy: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], caption_of: npt.NDArray[np.int_], floor: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The reference: the first version, which compared all pairs in one matrix."""
    best = scores.max(axis=1)
    kept = np.flatnonzero((best >= floor) & np.isfinite(boxes_xyxy).all(axis=1))
    kept = kept[np.argsort(-best[kept], kind="stable")]
    boxes, shared = boxes_xyxy[kept], scores[kept]
    first, second = boxes[:, None], boxes_xyxy[None]
    common = (np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])).clip(0).prod(axis=2)
    areas = [(rows[..., 2:] - rows[..., :2]).clip(0).prod(axis=2) for rows in (first, second)]
    iou = common / np.maximum(areas[0] + areas[1] - common, np.finfo(np.float32).tiny)
    same = (iou >= 0.9) & (caption_of[kept][:, None] != caption_of[None])
    rows, others = np.nonzero(same)
    np.maximum.at(shared, rows, scores[others])
    rivals, alive = same[:, kept], np.ones(len(kept), bool)
    for row in range(len(kept)):
        if alive[row]:
            alive[row + 1 :] &= ~rivals[row, row + 1 :]
    boxes, shared = boxes[alive], shared[alive]
    order = np.argsort(-shared.max(axis=1), kind="stable")
    return boxes[order], shared[order]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), captions=st.integers(1, 4), floor=st.sampled_from([0, 0.3, 0.8]))
def test_merge_captions__equals_comparing_all_pairs_at_once(seed: int, count: int, captions: int, floor: float) -> None:
    random = np.random.default_rng(seed)
    centres = random.random((4, 4)).astype(np.float32)  # few objects, each seen many times
    boxes = centres[random.integers(4, size=count)] + random.normal(0, 0.01, (count, 4)).astype(np.float32)
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    boxes[random.random(count) < 0.05] = np.nan
    scores = random.choice(np.linspace(0, 1, 8, dtype=np.float32), (count, 3))  # with many that are equal
    caption_of = random.integers(captions, size=count)
    with np.errstate(invalid="ignore"):
        expected = merged_all_at_once(boxes, scores, caption_of, floor)
    *found, rows = merge_captions(boxes, scores, caption_of, floor)
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(boxes[rows], found[0])


def test_merge_captions__of_several_captions_the_best_boxes_of_each_take_part() -> None:
    count = MOST_TO_MERGE + 50
    corner = np.linspace(0, 0.5, 2 * count, dtype=np.float32)[:, None]
    boxes = np.concatenate([corner, corner, corner + 0.001, corner + 0.001], axis=1)  # none overlaps another by 0.9
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 2 * count, dtype=np.float32))[:, None]
    caption_of = np.arange(2 * count) % 2
    _, best, _ = merge_captions(boxes, scores, caption_of, 0.05)
    expected = np.concatenate([np.sort(scores[caption_of == number, 0])[-MOST_TO_MERGE:] for number in (0, 1)])
    np.testing.assert_array_equal(best[:, 0], np.sort(expected)[::-1])
    assert len(merge_captions(boxes, scores, np.zeros(2 * count, int), 0.05)[0]) == 2 * count, (
        "nothing to merge, nothing left out"
    )


def test_merge_captions__thirteen_captions_with_2000_boxes_stay_small() -> None:
    random = np.random.default_rng(0)
    corners = random.random((13 * 350, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.random((13 * 350, 2)).astype(np.float32)], axis=1)
    scores = random.random((13 * 350, 40)).astype(np.float32)
    tracemalloc.start()
    merge_captions(boxes, scores, np.repeat(np.arange(13), 350), 0.985)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, f"{peak / 1e6:.0f} MB"


def test_detect__exact_duplicates_are_one_candidate(tiny_grounding_dino: Path) -> None:
    detector = GroundingDino(str(tiny_grounding_dino), floor=0)
    for head in (*detector._model.bbox_embed, *detector._model.model.decoder.bbox_embed):
        torch.nn.init.constant_(head.layers[-1].bias, 40.0)  # every box: centre (1, 1), as large as the image
    (found,) = detector.detect(IMAGES[:1], PROMPTS)
    assert len(found) == 1
    np.testing.assert_allclose(found.xyxy, [[100, 75, 200, 150]])


def test_loading_shows_no_progress_bar(tiny_grounding_dino: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert logging.is_progress_bar_enabled()
    AutoModelForZeroShotObjectDetection.from_pretrained(tiny_grounding_dino)
    assert "Loading weights" in capfd.readouterr().err, "by itself transformers shows one"
    GroundingDino(str(tiny_grounding_dino))
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize("transformers_shows", [True, False])
@pytest.mark.parametrize("hub_shows", [True, False])
def test_quiet_loading__leaves_the_switches_as_they_were(
    transformers_shows: bool, hub_shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", transformers_shows)
    before = are_progress_bars_disabled()
    try:
        enable_progress_bars() if hub_shows else disable_progress_bars()
        with pytest.raises(OSError, match="no such model"), quiet_loading():
            assert not logging.is_progress_bar_enabled()
            raise OSError("no such model")
        assert logging.is_progress_bar_enabled() == transformers_shows
        assert are_progress_bars_disabled() != hub_shows
    finally:
        disable_progress_bars() if before else enable_progress_bars()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_detect__cuda_agrees_with_the_cpu(tiny_grounding_dino: Path, detector: GroundingDino) -> None:
    on_gpu = GroundingDino(str(tiny_grounding_dino), device="cuda").detect(IMAGES, PROMPTS)
    for image, found, expected in zip(IMAGES, on_gpu, detector.detect(IMAGES, PROMPTS), strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=5e-3)
        np.testing.assert_allclose(found.xyxy / max(image.shape), expected.xyxy / max(image.shape), atol=5e-3)
