"""Our SAM-HQ: against the authors' code, and against transformers' own forward pass once its one wrong name is mended."""

from __future__ import annotations

import inspect
import json
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SamHQConfig, SamHQModel
from transformers.models.sam_hq import modeling_sam_hq

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.masks import areas, decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.segment import decoder as decoder_module
from autodistill_grounded_sam.segment import models
from autodistill_grounded_sam.segment.decoder import MaskDecoder
from autodistill_grounded_sam.segment.decoder_hq import HqMaskDecoder
from autodistill_grounded_sam.segment.sam import Sam, fitted_size
from autodistill_grounded_sam.testing import check_segmenter
from autodistill_grounded_sam.types import Candidates
from tests.peers import peer
from tests.segment.conftest import TINY, randomised

WRONG, RIGHT = (f"point_embedding, {name} = self.transformer(" for name in ("iou_token_out", "image_embeddings"))
GUESSES: tuple[MaskGuess, ...] = ("single", "best-of-three", "hq-only")


def model(**decoder: Any) -> Any:
    settings = {**TINY, "mask_decoder_config": {**TINY["mask_decoder_config"], "vit_dim": 32, **decoder}}
    return randomised(SamHQModel(SamHQConfig(**settings)), seed=5)


def mended(sam: Any) -> Any:
    """The same model, with the forward pass of its mask decoder as it was before the image output was lost."""
    source = inspect.getsource(modeling_sam_hq.SamHQMaskDecoder.forward)
    names: dict[str, Any] = {}
    code = "if True:\n" + source.replace(WRONG, RIGHT)
    exec(code, vars(modeling_sam_hq), names)  # the installed library's own source, one name changed
    sam.mask_decoder.forward = MethodType(names["forward"], sam.mask_decoder)
    return sam


def answer_of(sam: Any, pixels: torch.Tensor, boxes: torch.Tensor, guess: MaskGuess) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' best mask of each box, and its predicted IoU."""
    more = {"multimask_output": guess == "best-of-three", "hq_token_only": guess == "hq-only"}
    with torch.inference_mode():
        seen = sam.vision_encoder(pixels)
        answer = sam(
            image_embeddings=seen.last_hidden_state, intermediate_embeddings=seen.intermediate_embeddings,
            input_boxes=boxes[None], **more,
        )  # fmt: skip
    return answer.pred_masks[0, :, 0], answer.iou_scores[0, :, 0]  # the three are sorted, best first


def some_boxes(count: int) -> torch.Tensor:
    corners = torch.rand((count, 2, 2), generator=torch.Generator().manual_seed(count)).sort(dim=1).values
    return corners.flatten(1) * 128


PIXELS = torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])  # as on a CPU, as on a GPU
@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("decoder", [{}, {"num_hidden_layers": 3}, {"iou_head_depth": 2}], ids=lambda d: "-".join(d) or "plain")
def test_equals_the_mended_transformers(
    decoder: dict[str, Any], guess: MaskGuess, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:
        monkeypatch.setattr(MaskDecoder, "_parts", lambda self, boxes: [slice(None)])
    monkeypatch.setattr(decoder_module, "BLOCK_CELLS", 25)  # blocks of cells that do not come out even
    sam, boxes = mended(model(**decoder)), some_boxes(3)
    expected, expected_iou = answer_of(sam, PIXELS[1:], boxes, guess)
    ours = HqMaskDecoder(sam)
    with torch.inference_mode():
        logits, iou = ours.decode(ours.see(ours.embed(PIXELS)[1]), boxes, guess)  # the second image of two
    assert expected.std() > 0.1, "random weights gave a constant mask: this test would prove nothing"
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(iou, expected_iou, atol=1e-5, rtol=1e-4)


def test_the_forward_pass_that_transformers_releases_is_still_wrong() -> None:
    """Fails when transformers is mended. Then `mended` above is no longer needed: compare ours with the released forward pass,
    and let go of what docs/segmenters.md and decoder_hq say about it."""
    assert inspect.getsource(modeling_sam_hq.SamHQMaskDecoder.forward).count(WRONG) == 1, (
        "transformers' SamHQMaskDecoder.forward changed: if it keeps the transformer's image output now, drop `mended`"
    )
    sam, boxes = model(), some_boxes(3)
    released, _ = answer_of(sam, PIXELS[:1], boxes, "single")
    right, _ = answer_of(mended(sam), PIXELS[:1], boxes, "single")
    assert (released - right).abs().max() > 0.1


def test_the_three_guesses_differ_and_hq_is_what_is_added() -> None:
    sam, boxes = model(), some_boxes(4)
    ours = HqMaskDecoder(sam)
    with torch.inference_mode():
        embedding = ours.embed(PIXELS[:1])[0]
        single, best, alone = (ours.decode(ours.see(embedding), boxes, guess)[0] for guess in GUESSES)
    assert min(torch.dist(single, best), torch.dist(single, alone), torch.dist(best, alone)) > 1


def test_boxes_do_not_change_each_other() -> None:
    ours, boxes = HqMaskDecoder(model()), some_boxes(3)
    with torch.inference_mode():
        image = ours.see(ours.embed(PIXELS[:1])[0])
        together, _ = ours.decode(image, boxes, "single")
        for row in range(3):
            torch.testing.assert_close(
                ours.decode(image, boxes[row : row + 1], "single")[0][0], together[row], atol=2e-4, rtol=1e-4
            )


# -- as a segmenter -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_segmenter_that_keeps_the_contract(hq_folder, picture, boxed):
    sam = Sam(str(hq_folder))
    check_segmenter(sam)
    (found,) = sam.segment([picture(97, 151)], [boxed((10, 20, 60, 80), (30, 5, 90, 40), (5, 5, 5, 40))])
    assert [code["size"] for code in found.rle] == [[97, 151]] * 3
    assert (areas(found.rle) > 0).tolist() == [True, True, False]
    others = [Sam(str(hq_folder), mask_guess=guess).segment([picture(97, 151)], [boxed((10, 20, 60, 80))]) for guess in GUESSES]
    assert len({answer[0].rle[0]["counts"] for answer in others}) == 3


def test_a_result_does_not_depend_on_its_batch(hq_folder, picture, boxed):
    sam = Sam(str(hq_folder), images_per_call=3)
    images = [picture(70, 100, 1), picture(100, 64, 2), picture(33, 90, 3)]
    candidates = [boxed((5, 5, 60, 60)), boxed((8, 8, 40, 90), (1, 30, 60, 70)), boxed((10, 2, 80, 30))]
    for image, boxes, found in zip(images, candidates, sam.segment(images, candidates), strict=True):
        (alone,) = sam.segment([image], [boxes])
        np.testing.assert_allclose(alone.mask_score, found.mask_score, atol=1e-4)
        assert min(map(mask_iou, alone.rle, found.rle)) > 0.999


def test_hq_only_is_refused_by_a_sam_that_has_no_such_mask(folder):
    with pytest.raises(ConfigError, match=r"mask_guess 'hq-only' is of SAM-HQ, and .* is SAM; give single or best-of-three"):
        Sam(str(folder), mask_guess="hq-only")


def test_released_sizes_get_the_authors_epsilon(hq_folder, monkeypatch):
    monkeypatch.setattr(models, "RELEASED", {(32, 2)})
    assert models.load(str(hq_folder)).mask_decoder.transformer.layers[0].layer_norm1.eps == 1e-5


# -- the authors' code ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference" / "sam_hq_official"


def image_of(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.shared
def test_logits_and_masks_equal_the_reference(reference):
    expected = np.load(reference / "expected.npz")
    cases = [
        case for case in json.loads((reference / "case.json").read_text())["cases"]
        if list(case["prompt"]) == ["box"] and not case["mask_input"]
    ]  # fmt: skip
    assert sorted(case["multimask"] for case in cases) == [False, False, True, True]
    for case in cases:
        sam = Sam(str(reference / "sam_hq_tiny_official_fp16.pth"), mask_guess="best-of-three" if case["multimask"] else "single")
        image, box = image_of(reference / case["image"]), np.array([case["prompt"]["box"]], np.float32)
        height, width = fitted_size(*image.shape[:2], 1024)
        scaled = torch.from_numpy((box * np.array([width / image.shape[1], height / image.shape[0]] * 2)).astype(np.float32))
        with torch.inference_mode():
            logits, iou = sam._decoder.decode(sam._decoder.see(sam._embed([image])[0]), scaled, sam._mask_guess)
        np.testing.assert_allclose(logits.numpy(), expected[f"lowres_{case['key']}"], atol=1e-3)  # measured: 1.3e-5 at most
        np.testing.assert_allclose(iou, expected[f"iou_{case['key']}"].ravel(), atol=1e-4)
        truth = encode_mask(np.unpackbits(expected[f"mask_{case['key']}"][0], axis=-1)[:, : image.shape[1]])
        (found,) = sam.segment([image], [Candidates(box, np.ones((1, 1), np.float32))])
        assert mask_iou(found.rle[0], truth) >= 0.9999


def predictor_of(reference: Path) -> Any:
    """The authors' own predictor of the reference checkpoint."""
    peer("segment_anything_hq")
    from segment_anything_hq import SamPredictor
    from segment_anything_hq.modeling import ImageEncoderViT, MaskDecoderHQ, PromptEncoder, TwoWayTransformer
    from segment_anything_hq.modeling import Sam as TheirSam

    case = json.loads((reference / "case.json").read_text())
    encoder = ImageEncoderViT(**case["vit"], qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True)
    decoder = dict(case["decoder"])
    heads = {key: decoder.pop(key) for key in ("num_heads", "mlp_dim")}
    transformer = TwoWayTransformer(depth=decoder.pop("transformer_depth"), embedding_dim=256, **heads)
    hq = MaskDecoderHQ(transformer_dim=256, transformer=transformer, **decoder)
    theirs = TheirSam(encoder, PromptEncoder(256, (64, 64), (1024, 1024), 16), hq)
    state = torch.load(reference / "sam_hq_tiny_official_fp16.pth", weights_only=True)
    theirs.load_state_dict({key: value.float() for key, value in state.items()})
    return SamPredictor(theirs.eval())


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("guess", GUESSES)
def test_equals_the_authors_predictor_on_real_photographs(reference, shared, guess):
    predictor, sam = predictor_of(reference), Sam(str(reference / "sam_hq_tiny_official_fp16.pth"), mask_guess=guess)
    ious: list[float] = []
    truth = json.loads((shared / "data" / "coco_ccby" / "annotations.json").read_text())
    for record in truth["images"][:12:3]:
        xywh = [a["bbox"] for a in truth["annotations"] if a["image_id"] == record["id"]]
        xyxy = np.array(xywh, np.float32).reshape(-1, 4) @ np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
        image = image_of(shared / "data" / "coco_ccby" / "images" / record["file_name"])
        if not xywh:
            continue
        predictor.set_image(image)
        asked = torch.as_tensor(predictor.transform.apply_boxes(xyxy, image.shape[:2]), dtype=torch.float32)
        masks, iou, _ = predictor.predict_torch(
            None, None, boxes=asked, multimask_output=guess == "best-of-three", hq_token_only=guess == "hq-only"
        )
        (found,) = sam.segment([image], [Candidates(xyxy.astype(np.float32), np.ones((len(xyxy), 1), np.float32))])
        ious += [mask_iou(ours, encode_mask(mask.numpy())) for ours, mask in zip(found.rle, masks[:, 0], strict=True)]
        np.testing.assert_allclose(found.mask_score, iou[:, 0].numpy().clip(0, 1), atol=1e-4)
        assert 0.01 < np.mean([decode_mask(code).mean() for code in found.rle]) < 0.99, "trivial masks would prove nothing"
    assert len(ious) > 8 and np.mean(ious) >= 0.9999 and min(ious) >= 0.995


@pytest.mark.parametrize(("build", "width"), [("vit_b", 768), ("vit_l", 1024), ("vit_h", 1280)])
def test_every_released_size_loads_from_the_authors_file(build, width):
    registry = peer("segment_anything_hq").sam_model_registry
    from autodistill_grounded_sam.segment.official import RENAMED, config_of
    from autodistill_grounded_sam.segment.official_state import transformers_names

    with torch.device("meta"):  # shapes alone
        state = registry[build]().state_dict()
        ours = SamHQModel(config_of(state, Path("sam_hq.pth"))).state_dict()
        renamed = transformers_names(state, RENAMED)
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in ours.items()}
    assert ours["mask_decoder.compress_vit_conv1.weight"].shape[0] == width
