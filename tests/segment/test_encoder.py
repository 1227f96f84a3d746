"""Our image encoder against transformers' own, on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SamConfig, SamModel

from autodistill_grounded_sam.segment import encoder as encoder_module
from autodistill_grounded_sam.segment.encoder import attend_in_columns, encode
from tests.segment.conftest import randomised


def model(**vision: Any) -> Any:
    sizes = {"image_size": 128, "patch_size": 8}
    config = SamConfig(
        vision_config={
            **sizes, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_dim": 48, "output_channels": 16,
            "window_size": 5, "global_attn_indexes": [1], "num_pos_feats": 8, **vision,
        },
        prompt_encoder_config={**sizes, "hidden_size": 16},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8},
    )  # fmt: skip
    return randomised(SamModel(config), seed=3)


@pytest.mark.parametrize("cells", [1, 20, 100, 2**21])
@pytest.mark.parametrize(
    "vision",
    [{}, {"window_size": 4}, {"use_rel_pos": False}, {"qkv_bias": False}, {"use_abs_pos": False}],
    ids=lambda vision: "-".join(vision) or "plain",
)
def test_equals_transformers(vision: dict[str, Any], cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fits in a block of attention: a row, some rows, a whole window, or everything."""
    monkeypatch.setattr(encoder_module, "BLOCK_BYTES", 4 * 256 * cells)
    monkeypatch.setattr(encoder_module, "BLOCK_CELLS", 33)
    sam, pixels = model(**vision), torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = sam.get_image_embeddings(pixels)
        assert expected.std() > 0.1
        torch.testing.assert_close(encode(sam.vision_encoder, pixels), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("vision", [{}, {"use_rel_pos": False}], ids=["positions", "none"])
def test_what_a_gpu_does_equals_what_a_cpu_does(vision: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sam, pixels = model(**vision), torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = encode(sam.vision_encoder, pixels)
        monkeypatch.setattr(encoder_module, "attend_in_blocks", attend_in_columns)
        torch.testing.assert_close(encode(sam.vision_encoder, pixels), expected, atol=1e-4, rtol=1e-4)
