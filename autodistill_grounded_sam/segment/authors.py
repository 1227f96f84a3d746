"""SAM and SAM-HQ run by their authors' own packages, for those who want that very code: `--segmenter original:FILE.pth`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, WeightsError
from autodistill_grounded_sam.loading import Precision, inference
from autodistill_grounded_sam.masks import encode_mask
from autodistill_grounded_sam.plugins import ORIGINAL
from autodistill_grounded_sam.segment.official import OF_HQ, config_of
from autodistill_grounded_sam.segment.official_state import read_state
from autodistill_grounded_sam.segment.sam import boxes_to_ask, without_masks
from autodistill_grounded_sam.types import Candidates, RgbImage
from autodistill_grounded_sam.weights import find_weights


class AuthorsSam:
    """Masks for boxes by `SamPredictor` of `segment-anything`, or of `segment-anything-hq` if the file is one of SAM-HQ; contract
    and settings as of `segment.sam.Sam`. Raises MissingExtraError without the package."""

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        offline: bool = False,
        boxes_per_call: int = 64,
        mask_guess: MaskGuess = "single",
        precision: Precision = "float32",
        clip_boxes: bool = True,
    ) -> None:
        found = find_weights(name.removeprefix(ORIGINAL), "segmenter", offline=offline)
        if found.kind != "official":
            raise WeightsError(f"{name}: the authors' packages read their .pth files, and {found.path} is a transformers folder")
        model, predictor = build(found.path)
        if mask_guess == "hq-only" and not hasattr(model.mask_decoder, "hf_token"):
            raise ConfigError(f"mask_guess 'hq-only' is of SAM-HQ, and {name} is SAM; give single or best-of-three")
        self._predictor = predictor(model.to(device))
        self._clip_boxes = clip_boxes
        self._device, self._precision, self._boxes_per_call, self._mask_guess = device, precision, boxes_per_call, mask_guess

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        """As `Sam.segment`, image by image."""
        with inference(self._device, self._precision):
            return [self._one(image, found) for image, found in zip(images, candidates, strict=True)]

    def _one(self, image: RgbImage, found: Candidates) -> Candidates:
        import torch

        empty = without_masks(found, image)
        rows, xyxy = boxes_to_ask(found.xyxy, image, self._clip_boxes)
        if not len(rows):
            return empty
        predictor = self._predictor
        predictor.set_image(image)
        boxes = torch.as_tensor(predictor.transform.apply_boxes(xyxy, image.shape[:2]), dtype=torch.float32, device=self._device)
        more = {"hq_token_only": True} if self._mask_guess == "hq-only" else {}
        rles, mask_score = list(empty.rle or ()), np.zeros(len(found), np.float32)
        for start in range(0, len(rows), self._boxes_per_call):
            part, which = boxes[start : start + self._boxes_per_call], rows[start : start + self._boxes_per_call]
            masks, iou, _ = predictor.predict_torch(
                None, None, boxes=part, multimask_output=self._mask_guess == "best-of-three", **more
            )
            best = iou.argmax(dim=1) if masks.shape[1] == iou.shape[1] else torch.zeros(len(part), dtype=torch.long)
            for place, row in enumerate(which.tolist()):
                rles[row] = encode_mask(masks[place, int(best[place])].cpu().numpy())
                mask_score[row] = float(iou[place, int(best[place])].clamp(0, 1))
        predictor.reset_image()
        return Candidates(found.xyxy, found.scores, tuple(rles), mask_score, found.agreement)


def build(path: Path) -> tuple[Any, Any]:
    """The authors' model (float32, eval mode) of any size on an official file, and the class of their predictor."""
    import torch

    state = read_state(path)
    of_hq = OF_HQ in state
    told = config_of(state, path)
    package = "segment_anything_hq" if of_hq else "segment_anything"
    try:
        parts, top = import_module(f"{package}.modeling"), import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"the authors' {'SAM-HQ' if of_hq else 'SAM'} ({error.name} is missing)", "original") from error
    vision, prompts, decoder = told.vision_config, told.prompt_encoder_config, told.mask_decoder_config
    encoder = parts.ImageEncoderViT(
        img_size=vision.image_size, patch_size=vision.patch_size, embed_dim=vision.hidden_size, depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads, mlp_ratio=vision.mlp_dim / vision.hidden_size, out_chans=vision.output_channels,
        qkv_bias=vision.qkv_bias, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True,
        window_size=vision.window_size, global_attn_indexes=tuple(vision.global_attn_indexes),
    )  # fmt: skip
    cells = vision.image_size // vision.patch_size
    words = parts.PromptEncoder(
        embed_dim=prompts.hidden_size, image_embedding_size=(cells, cells), input_image_size=(vision.image_size,) * 2,
        mask_in_chans=prompts.mask_input_channels,
    )  # fmt: skip
    two_way = parts.TwoWayTransformer(
        depth=decoder.num_hidden_layers, embedding_dim=decoder.hidden_size, mlp_dim=decoder.mlp_dim,
        num_heads=decoder.num_attention_heads, attention_downsample_rate=decoder.attention_downsample_rate,
    )  # fmt: skip
    of_kind = (parts.MaskDecoderHQ, {"vit_dim": vision.hidden_size}) if of_hq else (parts.MaskDecoder, {})
    masks = of_kind[0](
        num_multimask_outputs=decoder.num_multimask_outputs, transformer=two_way, transformer_dim=decoder.hidden_size,
        iou_head_depth=decoder.iou_head_depth, iou_head_hidden_dim=decoder.iou_head_hidden_dim, **of_kind[1],
    )  # fmt: skip
    model = parts.Sam(encoder, words, masks)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the authors' {package}: {' '.join(str(error).split())[:300]}") from error
    return model.float().eval(), top.SamPredictor
