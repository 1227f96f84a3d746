"""Official files of segment-anything and SAM-HQ as transformers' models: our key table, the config read off the shapes.

Those of SAM 2 are sent on to `official_sam2`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.segment import official_sam2
from autodistill_grounded_sam.segment.official_state import (
    DECODER_HEADS,
    RENAMED_IN_BOTH,
    State,
    assembled,
    count_of,
    listed,
    read_state,
    transformers_names,
)

# The authors build the two-way transformer of the mask decoder from plain nn.LayerNorm (eps 1e-5); transformers' default, also
# in the config.json of its facebook/sam-vit-* conversions, is 1e-6. On the tiny reference model that alone moves the low
# resolution logits by 4e-4; with 1e-5 they agree to 1e-5. (`upscale_layer_norm` and the image encoder are 1e-6 in both.)
DECODER_LAYER_NORM_EPS = 1e-5

# Parts of an official name and what transformers calls them; applied in this order.
RENAMED = {
    "image_encoder.": "vision_encoder.",
    ".blocks.": ".layers.",
    ".neck.0.": ".neck.conv1.",
    ".neck.1.": ".neck.layer_norm1.",
    ".neck.2.": ".neck.conv2.",
    ".neck.3.": ".neck.layer_norm2.",
    **RENAMED_IN_BOTH,
    ".hf_token.": ".hq_token.",  # SAM-HQ's own parts, from here on
    ".hf_mlp.": ".hq_mask_mlp.",
    ".compress_vit_feat.0.": ".compress_vit_conv1.",
    ".compress_vit_feat.1.": ".compress_vit_norm.",
    ".compress_vit_feat.3.": ".compress_vit_conv2.",
    ".embedding_encoder.0.": ".encoder_conv1.",
    ".embedding_encoder.1.": ".encoder_norm.",
    ".embedding_encoder.3.": ".encoder_conv2.",
    ".embedding_maskfeature.0.": ".mask_conv1.",
    ".embedding_maskfeature.1.": ".mask_norm.",
    ".embedding_maskfeature.3.": ".mask_conv2.",
}
OF_HQ = "mask_decoder.hf_token.weight"


def load_official(path: Path) -> Any:
    """The SamModel, SamHQModel or Sam2Model (float32, CPU) of an official checkpoint; every tensor is accounted for.

    Raises WeightsError where the file cannot be read without running code from it, or is of another model.
    """
    from transformers import SamHQModel, SamModel

    state = read_state(path)
    if official_sam2.OF_SAM2 in state:
        return official_sam2.load_sam2(state, path)
    config = config_of(state, path)
    return assembled(SamHQModel if OF_HQ in state else SamModel, config, transformers_names(state, RENAMED), path)


def config_of(state: State, path: Path) -> Any:
    """The SamConfig or SamHQConfig that the shapes of an official state dict tell (ViT-B, L, H or any other size)."""
    from transformers import SamConfig, SamHQConfig

    try:
        shape = {key: tuple(tensor.shape) for key, tensor in state.items()}
        width, _, patch, _ = shape["image_encoder.patch_embed.proj.weight"]
        grid = shape["image_encoder.pos_embed"][1]
        image = {"image_size": grid * patch, "patch_size": patch}
        depth = count_of(state, r"image_encoder\.blocks\.(\d+)\.")
        # A layer's table of relative positions has 2 * side - 1 rows: side is the grid (global attention) or the window.
        sides = [(shape[f"image_encoder.blocks.{i}.attn.rel_pos_h"][0] + 1) // 2 for i in range(depth)]
        hidden = shape["mask_decoder.iou_token.weight"][1]
        inner = shape["mask_decoder.transformer.final_attn_token_to_image.q_proj.weight"][0]
        of_hq: dict[str, Any] = {"vit_dim": width} if OF_HQ in state else {}
        return (SamHQConfig if of_hq else SamConfig)(
            vision_config={
                **image,
                "hidden_size": width,
                "num_hidden_layers": depth,
                "num_attention_heads": width // shape["image_encoder.blocks.0.attn.rel_pos_h"][1],
                "mlp_dim": shape["image_encoder.blocks.0.mlp.lin1.weight"][0],
                "output_channels": shape["image_encoder.neck.0.weight"][0],
                "qkv_bias": "image_encoder.blocks.0.attn.qkv.bias" in shape,
                "window_size": min(sides),
                "global_attn_indexes": [i for i, side in enumerate(sides) if side == grid],
                "num_pos_feats": shape["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"][1],
            },
            prompt_encoder_config={
                **image,
                "hidden_size": hidden,
                "mask_input_channels": shape["prompt_encoder.mask_downscaling.3.weight"][0],
            },
            mask_decoder_config={
                "hidden_size": hidden,
                "num_hidden_layers": count_of(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
                "num_attention_heads": DECODER_HEADS,
                "mlp_dim": shape["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
                "attention_downsample_rate": hidden // inner,
                "num_multimask_outputs": shape["mask_decoder.mask_tokens.weight"][0] - 1,
                "iou_head_depth": count_of(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
                "iou_head_hidden_dim": shape["mask_decoder.iou_prediction_head.layers.0.weight"][0],
                "layer_norm_eps": DECODER_LAYER_NORM_EPS,
                **of_hq,
            },
        )
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path} is not an official checkpoint of SAM, SAM-HQ (ViT-B, L or H) or SAM 2: looked for {error}, "
            f"found {len(state)} entries ({listed(state)})"
        ) from error
