"""Our SAM 2 against transformers' forward pass on the same weights, and as a segmenter."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from transformers import Sam2Config, Sam2Model

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.masks import areas, decode_mask, mask_iou
from autodistill_grounded_sam.segment import decoder as decoder_module
from autodistill_grounded_sam.segment.decoder import MaskDecoder
from autodistill_grounded_sam.segment.decoder_sam2 import Sam2MaskDecoder
from autodistill_grounded_sam.segment.models import FAMILIES
from autodistill_grounded_sam.segment.sam import Sam, Upsampling, stretched_pixels
from autodistill_grounded_sam.testing import check_segmenter
from tests.peers import peer
from tests.segment.conftest import TINY_SAM2, randomised

PIXELS = torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(1))


def model() -> Any:
    return randomised(Sam2Model(Sam2Config(**TINY_SAM2)), seed=5)


def some_boxes(count: int) -> torch.Tensor:
    corners = torch.rand((count, 2, 2), generator=torch.Generator().manual_seed(count)).sort(dim=1).values
    return corners.flatten(1) * 128


def answer_of(
    sam: Any, boxes: torch.Tensor, guess: MaskGuess, pixels: torch.Tensor = PIXELS[1:]
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' best mask of each box in the second image, and its predicted IoU."""
    with torch.inference_mode():
        answer = sam(pixel_values=pixels, input_boxes=boxes[None], multimask_output=guess == "best-of-three")
    best = answer.iou_scores[0].argmax(dim=1)
    every = range(len(boxes))
    return answer.pred_masks[0, every, best], answer.iou_scores[0, every, best]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])  # as on a CPU, as on a GPU
@pytest.mark.parametrize("guess", ["single", "best-of-three"])
def test_equals_transformers(guess: MaskGuess, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if together:
        monkeypatch.setattr(MaskDecoder, "_parts", lambda self, boxes: [slice(None)])
    monkeypatch.setattr(decoder_module, "BLOCK_CELLS", 25)  # blocks of cells that do not come out even
    sam, boxes = model(), some_boxes(4)
    ours = Sam2MaskDecoder(sam)
    for threshold in (0.0, 0.5, 1.1):  # all steady; some; none
        sam.mask_decoder.dynamic_multimask_stability_thresh = threshold
        expected, expected_iou = answer_of(sam, boxes, guess)
        with torch.inference_mode():
            logits, iou = ours.decode(ours.see(ours.embed(PIXELS)[1]), boxes, guess)
        assert expected.std() > 0.1, "random weights gave a constant mask: this test would prove nothing"
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(iou, expected_iou, atol=1e-5, rtol=1e-4)


def test_an_unsteady_single_answer_gives_way_to_the_best_of_three() -> None:
    sam, boxes = model(), some_boxes(6)
    ours, decoder = Sam2MaskDecoder(sam), sam.mask_decoder
    with torch.inference_mode():
        seen = ours.see(ours.embed(PIXELS)[1])
        decoder.dynamic_multimask_via_stability = False
        plain, _ = ours.decode(seen, boxes, "single")
        best, _ = ours.decode(seen, boxes, "best-of-three")
        decoder.dynamic_multimask_via_stability = True
        shares = decoder._get_stability_scores(plain[None])[0]
        decoder.dynamic_multimask_stability_thresh = float(shares.median())
        mixed, _ = ours.decode(seen, boxes, "single")
        expected, _ = answer_of(sam, boxes, "single")
    steady = shares >= decoder.dynamic_multimask_stability_thresh
    assert 0 < steady.sum() < 6
    torch.testing.assert_close(mixed, torch.where(steady[:, None, None], plain, best))
    torch.testing.assert_close(mixed, expected, atol=2e-4, rtol=1e-4)


def edgetam() -> Any:
    """A random EdgeTAM, whose encoder is timm's RepViT."""
    peer("timm")
    from transformers import EdgeTamConfig, EdgeTamModel

    backbone = {
        "model_type": "timm_wrapper", "architecture": "repvit_m1.dist_in1k", "num_classes": 2, "label_names": ["a", "b"],
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }  # fmt: skip
    vision = {"backbone_config": backbone, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32}
    torch.manual_seed(2)
    model = EdgeTamModel(EdgeTamConfig(**{**TINY_SAM2, "vision_config": vision})).eval()
    randomised(model.mask_decoder, 5), randomised(model.prompt_encoder, 5), randomised(model.vision_encoder.neck, 5)
    return model


@pytest.mark.parametrize("guess", ["single", "best-of-three"])
def test_edgetam_equals_transformers(guess: MaskGuess) -> None:
    sam, boxes = edgetam(), some_boxes(4)
    ours = Sam2MaskDecoder(sam)
    expected, expected_iou = answer_of(sam, boxes, guess)
    with torch.inference_mode():
        logits, iou = ours.decode(ours.see(ours.embed(PIXELS)[1]), boxes, guess)
    assert expected.std() > 0.1, "random weights gave a constant mask: this test would prove nothing"
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(iou, expected_iou, atol=1e-5, rtol=1e-4)


def test_an_edgetam_folder_is_a_segmenter_that_keeps_the_contract(tmp_path: Path, picture: Any, boxed: Any) -> None:
    from transformers import Sam2ImageProcessor

    edgetam().save_pretrained(tmp_path)
    Sam2ImageProcessor(size={"height": 128, "width": 128}).save_pretrained(tmp_path)
    sam = Sam(str(tmp_path))
    check_segmenter(sam)
    (found,) = sam.segment([picture(97, 151)], [boxed((10, 20, 60, 80), (30, 5, 90, 40), (5, 5, 5, 40))])
    assert [code["size"] for code in found.rle] == [[97, 151]] * 3 and mask_iou(*found.rle[:2]) < 0.95


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_edgetam_without_timm_says_what_is_missing(sam2_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sam2_folder, tmp_path / "edgetam"))
    settings = {"model_type": "edgetam", "vision_config": {"backbone_config": {"model_type": "timm_wrapper"}}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"(?s)edgetam holds EdgeTAM, which needs more: .*pip install timm"):
        Sam(str(folder))


def sam3_tracker() -> Any:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    image = {"image_size": 112, "patch_size": 14}
    backbone = {
        **image, "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 56,
    }  # fmt: skip
    vision = {"backbone_config": backbone, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32}
    prompts = {**image, "hidden_size": 32}
    config = Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=TINY_SAM2["mask_decoder_config"]
    )
    return randomised(Sam3TrackerModel(config), seed=5)


@pytest.mark.parametrize("guess", ["single", "best-of-three"])
def test_sam3s_tracker_equals_transformers(guess: MaskGuess) -> None:
    sam, boxes, pixels = sam3_tracker(), some_boxes(4) * 0.875, PIXELS[1:, :, :112, :112]
    ours = Sam2MaskDecoder(sam)
    expected, expected_iou = answer_of(sam, boxes, guess, pixels)
    with torch.inference_mode():
        logits, iou = ours.decode(ours.see(ours.embed(pixels)[0]), boxes, guess)
    assert expected.std() > 0.1, "random weights gave a constant mask: this test would prove nothing"
    torch.testing.assert_close(logits, expected, atol=5e-4, rtol=1e-3)
    torch.testing.assert_close(iou, expected_iou, atol=1e-4, rtol=1e-3)


def test_sam3s_tracker_is_found_in_the_folder_of_the_whole(tmp_path: Path, picture: Any, boxed: Any) -> None:
    """SAM 3's folder on the hub holds the detector as well, and one vision encoder for both."""
    from safetensors.torch import save_file
    from transformers import Sam3ImageProcessor

    model = sam3_tracker()
    weights = {
        "detector_model.detr_encoder.layers.0.weight": torch.zeros(3),
        "tracker_model.memory_encoder.weight": torch.zeros(3),
    }
    for key, value in model.state_dict().items():
        name = key.replace("vision_encoder.backbone.", "detector_model.vision_encoder.backbone.")
        name = name.replace("vision_encoder.neck.", "tracker_neck.") if ".neck." in name else name
        name = name if name.startswith(("detector_model.", "tracker_neck.")) else f"tracker_model.{name}"
        weights[name] = value.clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    settings = {"model_type": "sam3_video", "tracker_config": model.config.to_dict(), "detector_config": {"model_type": "sam3"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    Sam3ImageProcessor().save_pretrained(tmp_path)
    sam = Sam(str(tmp_path))
    check_segmenter(sam)
    image, boxes = picture(97, 151), boxed((10, 20, 60, 80), (30, 5, 90, 40), (5, 5, 5, 40))
    (found,) = sam.segment([image], [boxes])
    (expected,) = Sam("in memory", loaded=model).segment([image], [boxes])
    assert found.rle == expected.rle and [code["size"] for code in found.rle] == [[97, 151]] * 3
    assert sam._pixels(np.full((4, 4, 3), (255, 0, 51), np.uint8))[:, 0, 0] == pytest.approx([1, -1, -0.6], abs=1e-5)


# -- as a segmenter ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_segmenter_that_keeps_the_contract(sam2_folder, picture, boxed):
    sam = Sam(str(sam2_folder))
    check_segmenter(sam)
    (found,) = sam.segment([picture(97, 151)], [boxed((10, 20, 60, 80), (30, 5, 90, 40), (5, 5, 5, 40))])
    assert [code["size"] for code in found.rle] == [[97, 151]] * 3
    assert (areas(found.rle) > 0).tolist() == [True, True, False] and mask_iou(*found.rle[:2]) < 0.95


def test_a_result_does_not_depend_on_its_batch(sam2_folder, picture, boxed):
    sam = Sam(str(sam2_folder), images_per_call=3)
    images = [picture(70, 100, 1), picture(100, 64, 2), picture(33, 90, 3)]
    candidates = [boxed((5, 5, 60, 60)), boxed((8, 8, 40, 90), (1, 30, 60, 70)), boxed((10, 2, 80, 30))]
    for image, boxes, found in zip(images, candidates, sam.segment(images, candidates), strict=True):
        (alone,) = sam.segment([image], [boxes])
        np.testing.assert_allclose(alone.mask_score, found.mask_score, atol=1e-4)
        assert min(map(mask_iou, alone.rle, found.rle)) > 0.999


@pytest.mark.parametrize(("height", "width"), [(1, 1), (900, 1), (1, 900), (40, 3000), (3, 2)])
def test_pictures_of_any_shape(sam2_folder, picture, boxed, height, width):
    (found,) = Sam(str(sam2_folder)).segment([picture(height, width)], [boxed((0, 0, width, height))])
    assert found.rle[0]["size"] == [height, width]


def test_equals_the_processor_of_transformers_in_pixels_and_boxes(sam2_folder, picture, boxed):
    """The whole way: the image stretched to the square, the box with it, the mask stretched back."""
    from transformers import Sam2ImageProcessor, Sam2Processor

    image, box = picture(90, 160), (20.0, 10.0, 120.0, 70.0)
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": 128, "width": 128}), target_size=128)
    inputs = processor(images=image, input_boxes=[[list(box)]], return_tensors="pt")
    sam = Sam(str(sam2_folder))
    pixels = torch.from_numpy(sam._pixels(image))[None]
    assert (inputs["pixel_values"] - pixels).abs().max() < 0.02  # it rounds to grey levels after resizing, of which one is 0.018
    with torch.inference_mode():
        answer = sam._model(**{**inputs, "pixel_values": pixels}, multimask_output=False)
    (expected,) = processor.post_process_masks(answer.pred_masks, inputs["original_sizes"])
    (found,) = sam.segment([image], [boxed(box)])
    mask = decode_mask(found.rle[0])
    assert 0.02 < mask.mean() < 0.98
    assert (mask != expected[0, 0].numpy()).mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(300, 200), (40, 90), (128, 128), (1, 5)])
def test_pixels_are_those_of_a_float_image_that_is_stretched(picture, height, width):
    image = picture(height, width)
    whole = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    expected = interpolate(whole, (128, 128), mode="bilinear", antialias=True, align_corners=False)[0].permute(1, 2, 0).numpy()
    family = FAMILIES["sam2"]
    np.testing.assert_allclose(
        stretched_pixels(image, 128, family.mean, family.std).transpose(1, 2, 0),
        (expected / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        atol=1e-4,
    )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 151), (7, 300)])
def test_upsampling_without_a_square_is_one_bilinear_step(height, width):
    logits = torch.randn((16, 16), generator=torch.Generator().manual_seed(height))
    expected = interpolate(logits[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    mask = Upsampling(16, None, (64, 64), (height, width)).mask(logits)
    certain = abs(expected) > 1e-4  # nearer to 0 than that, rounding decides
    np.testing.assert_array_equal(mask[certain], expected[certain] > 0)


def test_the_folder_of_the_tracker_holds_the_image_model_as_well(sam2_folder, tmp_path, picture, boxed):
    from safetensors.torch import load_file, save_file

    video = Path(shutil.copytree(sam2_folder, tmp_path / "video"))
    settings = json.loads((video / "config.json").read_text())
    settings["model_type"], settings["num_maskmem"] = "sam2_video", 7
    for part in ("prompt_encoder", "mask_decoder"):
        settings[f"{part}_config"]["model_type"] = f"sam2_video_{part}"
    (video / "config.json").write_text(json.dumps(settings))
    weights = load_file(video / "model.safetensors") | {"memory_encoder.projection.weight": torch.zeros(3)}
    save_file(weights, video / "model.safetensors", metadata={"format": "pt"})
    image, boxes = picture(70, 100), boxed((10, 10, 70, 60))
    (ours,), (theirs,) = (Sam(str(place)).segment([image], [boxes]) for place in (sam2_folder, video))
    assert ours.rle == theirs.rle
    del weights["no_memory_embedding"]
    save_file(weights, video / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 of SAM 2's weights: no_memory_embedding"):
        Sam(str(video))
