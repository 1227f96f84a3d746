"""Tiny students of each kind, for trials on one core: real architectures of transformers, about a million weights, all random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MINI_SIDE_PX = 128  # of the input, where nobody says: 256 cells of 8 px for RF-DETR


def mini_config(name: str, side_px: int, labels: Mapping[str, Any]) -> tuple[Any, bool]:
    """The config of one of `detr_models.MINI` for an input of so many pixels, and whether it makes masks."""
    if name.startswith("rf-detr"):
        return _rf_detr(side_px, labels), "-seg-" in name
    return (_d_fine if name.startswith("d-fine") else _rt_detr)(labels), False


def _rf_detr(side_px: int, labels: Mapping[str, Any]) -> Any:
    from transformers import RfDetrConfig
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

    backbone = RfDetrDinov2Config(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, mlp_ratio=2, image_size=side_px, patch_size=8,
        num_windows=2, out_indices=[2, 4],
    )  # fmt: skip
    return RfDetrConfig(
        backbone_config=backbone, d_model=64, decoder_layers=2, decoder_ffn_dim=128, decoder_n_points=2,
        decoder_self_attention_heads=4, decoder_cross_attention_heads=4, num_queries=30, group_detr=4, dropout=0.0,
        c2f_num_blocks=1, intermediate_size=128, **labels,
    )  # fmt: skip


def _d_fine(labels: Mapping[str, Any]) -> Any:
    from transformers import DFineConfig, HGNetV2Config

    backbone = HGNetV2Config(
        stem_channels=[3, 8, 16], stage_in_channels=[16, 32, 32, 64], stage_mid_channels=[16, 16, 32, 32],
        stage_out_channels=[32, 32, 64, 128], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[2, 2, 2, 2],
        hidden_sizes=[32, 32, 64, 128], depths=[1, 1, 1, 1], out_indices=[2, 3, 4],
    )  # fmt: skip
    return DFineConfig(backbone_config=backbone, depth_mult=0.34, **_HEAD, **labels)


def _rt_detr(labels: Mapping[str, Any]) -> Any:
    from transformers import RTDetrConfig, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic", out_indices=[2, 3, 4]
    )
    return RTDetrConfig(backbone_config=backbone, **_HEAD, **labels)


# What D-FINE and RT-DETR share. Their batch norms learn: frozen, they pass on what random weights make of a picture as it is.
_HEAD: Mapping[str, Any] = {
    "encoder_in_channels": [32, 64, 128], "encoder_hidden_dim": 64, "encoder_ffn_dim": 128, "encoder_attention_heads": 4,
    "hidden_expansion": 0.5, "d_model": 64, "decoder_in_channels": [64, 64, 64], "decoder_ffn_dim": 128, "decoder_layers": 2,
    "decoder_attention_heads": 4, "num_queries": 30, "num_denoising": 20, "freeze_backbone_batch_norms": False,
}  # fmt: skip
