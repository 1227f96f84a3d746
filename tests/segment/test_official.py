"""Official files: the authors' own code and ours give the same masks, and no tensor goes unaccounted for."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.masks import decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.segment import models
from autodistill_grounded_sam.segment.official import config_of, load_official
from autodistill_grounded_sam.segment.sam import Sam, fitted_size
from autodistill_grounded_sam.types import Candidates, Rle


def masks_of_predictor(model: Any, image: np.ndarray, xyxy: np.ndarray) -> tuple[list[Rle], np.ndarray]:
    """What segment_anything.SamPredictor answers to boxes."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(image)
    boxes = torch.as_tensor(predictor.transform.apply_boxes(xyxy, image.shape[:2]), dtype=torch.float32)
    masks, iou, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    return [encode_mask(mask.numpy()) for mask in masks[:, 0]], iou[:, 0].numpy()


def altered(state: dict[str, Any], path: Path) -> Path:
    torch.save(state, path)
    return path


# -- against the authors' code, at a tiny size ----------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(90, 140), (140, 90), (128, 128), (64, 64), (400, 517), (300, 21)])
def test_equals_sam_predictor(official_model, official_file, picture, boxed, height, width):
    image = picture(height, width)
    boxes = boxed((0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height), (0, 0, 0.5 * width, 0.4 * height))
    expected, expected_iou = masks_of_predictor(official_model, image, boxes.xyxy)
    (found,) = Sam(str(official_file)).segment([image], [boxes])
    assert all(0.02 < decode_mask(code).mean() < 0.98 for code in expected), "trivial masks would prove nothing"
    assert min(map(mask_iou, found.rle, expected)) > 0.998
    np.testing.assert_allclose(found.mask_score, expected_iou.clip(0, 1), atol=1e-4)


def test_config_is_read_off_the_shapes(official_model, official_file):
    model = load_official(official_file)
    vision, decoder = model.config.vision_config, model.config.mask_decoder_config
    assert (vision.image_size, vision.patch_size, vision.hidden_size, vision.num_hidden_layers) == (128, 8, 48, 3)
    assert (vision.num_attention_heads, vision.mlp_dim, vision.window_size, vision.output_channels) == (4, 96, 5, 32)
    assert list(vision.global_attn_indexes) == [0, 2] and vision.num_pos_feats == 16
    assert (decoder.num_hidden_layers, decoder.mlp_dim, decoder.iou_head_depth, decoder.iou_head_hidden_dim) == (3, 40, 4, 20)
    assert model.config.prompt_encoder_config.mask_input_channels == 8
    assert {p.device.type for p in model.parameters()} == {"cpu"} and {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("build", "size"), [("vit_b", (768, 12, 12)), ("vit_l", (1024, 24, 16)), ("vit_h", (1280, 32, 16))])
def test_the_authors_sizes_are_recognised(build, size):
    registry = pytest.importorskip("segment_anything").sam_model_registry
    with torch.device("meta"):  # shapes alone: ViT-H would be 2.5 GB
        state = registry[build]().state_dict()
    config = config_of(state, Path("sam.pth"))
    vision = config.vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == size
    assert (vision.image_size, vision.patch_size, vision.window_size, vision.mlp_dim) == (1024, 16, 14, 4 * size[0])
    assert list(vision.global_attn_indexes) == [size[1] // 4 * k - 1 for k in (1, 2, 3, 4)]
    assert (config.mask_decoder_config.mlp_dim, config.mask_decoder_config.layer_norm_eps) == (2048, 1e-5)
    assert (size[0], size[1]) in models.RELEASED


def test_wrapped_prefixed_and_half_files_load_alike(official_model, official_file, tmp_path):
    state = official_model.state_dict()
    plain = load_official(official_file).state_dict()
    wrapped = altered({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    half = altered({key: value.half() for key, value in state.items()}, tmp_path / "half.pth")
    for path, tolerance in ((wrapped, 0), (half, 1e-2)):
        for key, value in load_official(path).state_dict().items():
            torch.testing.assert_close(value, plain[key], atol=tolerance, rtol=0)


def test_safetensors_of_an_official_state_load_too(official_model, official_file, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "sam.safetensors"
    save_file({key: value.contiguous() for key, value in official_model.state_dict().items()}, path)
    assert torch.equal(load_official(path).vision_encoder.pos_embed, load_official(official_file).vision_encoder.pos_embed)


# -- layer norms ----------------------------------------------------------------------------------------------------------


def test_official_weights_get_the_authors_epsilon_and_others_keep_their_own(folder, official_file, monkeypatch):
    def epsilon(sam: Sam) -> float:
        return sam._model.mask_decoder.transformer.layers[0].layer_norm1.eps

    assert epsilon(Sam(str(official_file))) == 1e-5
    assert epsilon(Sam(str(folder))) == 1e-6
    monkeypatch.setattr(models, "RELEASED", {(32, 2)})  # as if this were the size of facebook/sam-vit-*
    assert epsilon(Sam(str(folder))) == 1e-5


# -- files that are not what they should be ---------------------------------------------------------------------------------


def test_a_missing_tensor_is_named(official_model, tmp_path):
    state = dict(official_model.state_dict())
    del state["image_encoder.neck.2.weight"]
    with pytest.raises(WeightsError, match=r"does not fit SAM, .*\n  1 missing: vision_encoder.neck.conv2.weight"):
        load_official(altered(state, tmp_path / "sam.pth"))


def test_unknown_tensors_are_named(official_model, tmp_path):
    more = {f"mask_decoder.adapter{i}.weight": torch.zeros(1, 32) for i in range(8)}  # as in files of SAM's many relatives
    with pytest.raises(WeightsError, match=r"another relative.*\n  8 unknown: mask_decoder.adapter0.weight, .*, and 2 more"):
        load_official(altered({**official_model.state_dict(), **more}, tmp_path / "sam_more.pth"))


def test_a_tensor_of_another_shape_is_named(official_model, tmp_path):
    state = {**official_model.state_dict(), "mask_decoder.output_upscaling.3.bias": torch.zeros(7)}
    expected = r"1 of another shape: mask_decoder.upscale_conv2.bias: expected \(4,\), got \(7,\)"
    with pytest.raises(WeightsError, match=expected):
        load_official(altered(state, tmp_path / "sam.pth"))


def test_files_of_other_models_are_refused(tmp_path):
    other = altered({"backbone.0.weight": torch.zeros(3), "epoch": 7}, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"not an official checkpoint of SAM, SAM-HQ .*found 2 entries \(backbone.0.weight, epoch\)"
    ):
        load_official(other)
    tensors = altered({"backbone.0.weight": torch.zeros(3)}, tmp_path / "tensors.pth")
    with pytest.raises(WeightsError, match=r"looked for 'image_encoder.patch_embed.proj.weight', found 1 entries"):
        load_official(tensors)
    with pytest.raises(WeightsError, match="holds a list; expected a state dict"):
        load_official(altered([1, 2], tmp_path / "list.pth"))


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_damaged_and_hostile_files_are_refused(official_file, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(official_file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"damaged.pth cannot be read as weights"):
        Sam(str(damaged))
    hostile = tmp_path / "hostile.pth"
    hostile.write_bytes(pickle.dumps({"model": _Evil(tmp_path / "ran")}))
    with pytest.raises(WeightsError, match=r"cannot be read as weights \(no code in it is ever run\)"):
        Sam(str(hostile))
    assert not (tmp_path / "ran").exists()


def test_folders_that_are_not_a_whole_sam_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(folder, tmp_path / "other"))
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "model_type": "clipseg"}))
    with pytest.raises(WeightsError, match="holds a model of type 'clipseg'; a segmenter is one of 'sam', 'sam_hq'"):
        Sam(str(other))
    partial_ = Path(shutil.copytree(folder, tmp_path / "partial"))
    weights = load_file(partial_ / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, partial_ / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 of SAM's weights: mask_decoder\.iou_token\.weight"):
        Sam(str(partial_))
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="damaged cannot be loaded as a transformers folder of a segmenter"):
        Sam(str(damaged))


# -- the reference: expected values made by the authors' code -----------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference" / "sam_official"


@pytest.mark.shared
def test_logits_and_masks_equal_the_reference(reference):
    from PIL import Image

    expected = np.load(reference / "expected.npz")
    sam = Sam(str(reference / "sam_tiny_official_fp16.pth"))
    cases = json.loads((reference / "case.json").read_text())["cases"]
    cases = [case for case in cases if list(case["prompt"]) == ["box"] and not case["multimask"] and not case["mask_input"]]
    assert len(cases) == 2
    for case in cases:
        image = np.asarray(Image.open(reference / case["image"]).convert("RGB"))
        box = np.array([case["prompt"]["box"]], np.float32)
        height, width = fitted_size(*image.shape[:2], 1024)
        scale = np.array([width / image.shape[1], height / image.shape[0]] * 2)
        with torch.inference_mode():
            seen = sam._decoder.see(sam._embed([image])[0])
            logits, iou = sam._decoder.decode(seen, torch.from_numpy((box * scale).astype(np.float32)), "single")
        np.testing.assert_allclose(logits.numpy(), expected[f"lowres_{case['key']}"], atol=1e-3)
        np.testing.assert_allclose(iou, expected[f"iou_{case['key']}"], atol=1e-4)
        packed = expected[f"mask_{case['key']}"][0]
        truth = encode_mask(np.unpackbits(packed, axis=-1)[:, : image.shape[1]])
        candidates = [Candidates(box, np.ones((1, 1), np.float32))]
        (rgb,), (bgr,) = (sam.segment([picture], candidates) for picture in (image, image[:, :, ::-1]))
        assert mask_iou(rgb.rle[0], truth) >= 0.9999
        assert mask_iou(bgr.rle[0], truth) < 0.99, "the colours are RGB; BGR must show"


@pytest.mark.shared
@pytest.mark.slow
def test_equals_sam_predictor_on_real_photographs(reference, shared):
    pytest.importorskip("segment_anything", reason="the authors' code (extra `original`) is not installed")
    from PIL import Image

    sam, model = Sam(str(reference / "sam_tiny_official_fp16.pth")), predictor_model(reference)
    truth = json.loads((shared / "data" / "coco_ccby" / "annotations.json").read_text())
    ious: list[float] = []
    for record in truth["images"][::5]:  # all 31 with boxes: mean 0.9999997, lowest 0.999994 over 180 boxes
        xywh = [a["bbox"] for a in truth["annotations"] if a["image_id"] == record["id"]]
        if not xywh:
            continue
        xyxy = np.array(xywh, np.float32) + np.array([[0, 0, x, y] for x, y, *_ in xywh], np.float32)
        image = np.asarray(Image.open(shared / "data" / "coco_ccby" / "images" / record["file_name"]).convert("RGB"))
        expected, expected_iou = masks_of_predictor(model, image, xyxy)
        (found,) = sam.segment([image], [Candidates(xyxy, np.ones((len(xyxy), 1), np.float32))])
        ious += map(mask_iou, found.rle, expected)
        np.testing.assert_allclose(found.mask_score, expected_iou.clip(0, 1), atol=1e-4)
    assert len(ious) > 20 and np.mean(ious) >= 0.9999 and min(ious) >= 0.995


def predictor_model(reference: Path) -> Any:
    """The authors' model of the reference checkpoint."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    case = json.loads((reference / "case.json").read_text())
    encoder = ImageEncoderViT(**case["vit"], qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True)
    decoder = dict(case["decoder"])
    heads = {key: decoder.pop(key) for key in ("num_heads", "mlp_dim")}
    transformer = TwoWayTransformer(depth=decoder.pop("transformer_depth"), embedding_dim=256, **heads)
    model = Sam(
        encoder,
        PromptEncoder(256, (64, 64), (1024, 1024), 16),
        MaskDecoder(transformer_dim=256, transformer=transformer, **decoder),
    )
    state = torch.load(reference / "sam_tiny_official_fp16.pth", weights_only=True)
    model.load_state_dict({key: value.float() for key, value in state.items()})
    return model.eval()
