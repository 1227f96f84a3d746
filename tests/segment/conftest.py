"""Random tiny SAMs: one as a transformers folder, one as an official file, built by whoever wrote the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill_grounded_sam.types import Candidates

SQUARE_PX = 128


def randomised(module: Any, seed: int) -> Any:
    """Weights of a size that makes every part of the model matter to its output."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            spread = 0.3 if parameter.ndim == 1 else 1.0 if "posit" in name or "embed" in name else 1.5 * fan_in**-0.5
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(noise + 1 if parameter.ndim == 1 and name.endswith("weight") else noise)
        for name, buffer in module.named_buffers():
            if name.endswith(("positional_embedding", "gaussian_matrix")):  # in a model twice, and the same
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(seed)))
    return module.eval()


IMAGE = {"image_size": SQUARE_PX, "patch_size": 16}
TINY: dict[str, dict[str, Any]] = {
    "vision_config": {
        **IMAGE, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 48, "output_channels": 32,
        "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 16,
    },
    "prompt_encoder_config": {**IMAGE, "hidden_size": 32},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 24},
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder of a random SAM that sees 128 px, with masks of 32 x 32."""
    from transformers import SamConfig, SamImageProcessor, SamModel

    path = tmp_path_factory.mktemp("sam_folder")
    randomised(SamModel(SamConfig(**TINY)), seed=3).save_pretrained(path)
    SamImageProcessor(size={"longest_edge": SQUARE_PX}).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def hq_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a random SAM-HQ."""
    from transformers import SamHQConfig, SamHQModel, SamImageProcessor

    path = tmp_path_factory.mktemp("sam_hq_folder")
    decoder = {**TINY["mask_decoder_config"], "vit_dim": 32}
    randomised(SamHQModel(SamHQConfig(**{**TINY, "mask_decoder_config": decoder})), seed=3).save_pretrained(path)
    SamImageProcessor(size={"longest_edge": SQUARE_PX}).save_pretrained(path)
    return path


TINY_SAM2: dict[str, dict[str, Any]] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SQUARE_PX, SQUARE_PX],
            "blocks_per_stage": [1, 2, 3, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [8, 4, 6, 3], "global_attention_blocks": [4],
            "window_positional_embedding_background_size": [5, 5],
        },
        "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32,
    },
    "prompt_encoder_config": {**IMAGE, "hidden_size": 32},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 24},
}  # fmt: skip


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a random SAM 2."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    path = tmp_path_factory.mktemp("sam2_folder")
    randomised(Sam2Model(Sam2Config(**TINY_SAM2)), seed=3).save_pretrained(path)
    Sam2ImageProcessor(size={"height": SQUARE_PX, "width": SQUARE_PX}).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def official_model() -> Any:
    """A random SAM of the authors' own code, in sizes that none of their releases has."""
    from functools import partial

    import torch

    pytest.importorskip("segment_anything", reason="the authors' code (extra `original`) is not installed")
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    from torch.nn import LayerNorm

    encoder = ImageEncoderViT(
        img_size=SQUARE_PX, patch_size=8, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2, out_chans=32, qkv_bias=True,
        norm_layer=partial(LayerNorm, eps=1e-6), use_rel_pos=True, window_size=5, global_attn_indexes=(0, 2),
    )  # fmt: skip
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(16, 16), input_image_size=(128, 128), mask_in_chans=8)
    transformer = TwoWayTransformer(depth=3, embedding_dim=32, mlp_dim=40, num_heads=8)
    decoder = MaskDecoder(
        num_multimask_outputs=3, transformer=transformer, transformer_dim=32, iou_head_depth=4, iou_head_hidden_dim=20
    )
    model = randomised(Sam(encoder, prompts, decoder), seed=10)  # of the seeds tried, the one whose masks fill about half
    matrix = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix  # a buffer, which `randomised` does not reach
    matrix.copy_(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(10)))
    return model


@pytest.fixture(scope="session")
def official_file(official_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("official") / "sam_vit_tiny.pth"
    torch.save(official_model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int, int], np.ndarray]:
    """A coloured RGB picture (height, width, seed) of soft blobs: smooth enough that resizing keeps it."""

    def paint(height: int, width: int, seed: int = 0) -> np.ndarray:
        from PIL import Image

        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return paint


@pytest.fixture(scope="session")
def boxed() -> Callable[..., Candidates]:
    """Candidates of the given boxes, with two prompts of made-up scores."""

    def build(*boxes: tuple[float, float, float, float]) -> Candidates:
        scores = np.linspace(0.1, 0.9, 2 * len(boxes), dtype=np.float32).reshape(len(boxes), 2)
        return Candidates(np.array(boxes, np.float32).reshape(-1, 4), scores)

    return build
