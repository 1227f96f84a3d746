"""Official `.pt` files of SAM 2 and 2.1 as transformers' Sam2Model: the image half, what tracks through videos is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.segment.official_state import (
    DECODER_HEADS,
    RENAMED_IN_BOTH,
    State,
    assembled,
    count_of,
    listed,
    transformers_names,
)

OF_SAM2 = "sam_mask_decoder.iou_token.weight"
IMAGE_PX, PATCH_PX = 1024, 16  # of every release; no tensor has this shape


class Layout(NamedTuple):
    """What the shapes of Hiera's tensors do not tell."""

    heads: int  # of the first stage; each further stage has twice as many
    windows: tuple[int, ...]  # of each stage
    global_blocks: tuple[int, ...]


# By the width and the blocks of each stage: tiny, small, base-plus, large, from the authors' sam2/configs.
LAYOUTS: dict[tuple[int, tuple[int, ...]], Layout] = {
    (96, (1, 2, 7, 2)): Layout(1, (8, 4, 14, 7), (5, 7, 9)),
    (96, (1, 2, 11, 2)): Layout(1, (8, 4, 14, 7), (7, 10, 13)),
    (112, (2, 3, 16, 3)): Layout(2, (8, 4, 14, 7), (12, 16, 20)),
    (144, (2, 6, 36, 4)): Layout(2, (8, 4, 16, 8), (23, 33, 43)),
}

RENAMED = {
    "image_encoder.trunk.": "vision_encoder.backbone.",
    "image_encoder.neck.": "vision_encoder.neck.",
    ".conv.": ".",
    "sam_prompt_encoder.": "prompt_encoder.",
    "sam_mask_decoder.": "mask_decoder.",
    ".out_proj.": ".o_proj.",
    "no_mem_embed": "no_memory_embedding",  # which an image alone gets added: it has no frames before it
    **RENAMED_IN_BOTH,
}
_OF_VIDEO = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\."
    r"|(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
_POINTS = "prompt_encoder.point_embed"


def load_sam2(state: State, path: Path) -> Any:
    """The Sam2Model (float32, CPU) of an official state dict; raises WeightsError where it is of another model."""
    from transformers import Sam2Model

    state = {key: tensor for key, tensor in state.items() if not _OF_VIDEO.match(key)}
    return assembled(Sam2Model, config_of(state, path), names_of_transformers(state), path)


def names_of_transformers(state: State) -> dict[str, Any]:
    """The tensors of the image half, float32, under the names of Sam2Model."""
    import torch

    renamed = transformers_names(state, RENAMED)
    points = [renamed.pop(key) for key in sorted(renamed) if re.fullmatch(rf"{_POINTS}\.\d\.weight", key)]
    if points:
        renamed[f"{_POINTS}.weight"] = torch.cat(points)
    return renamed


def config_of(state: State, path: Path) -> Any:
    """The Sam2Config of one of the released sizes, known by the shapes of an official state dict."""
    from transformers import Sam2Config

    try:
        shape = {key: tuple(tensor.shape) for key, tensor in state.items()}
        blocks = count_of(state, r"image_encoder\.trunk\.blocks\.(\d+)\.")
        widths = [shape[f"image_encoder.trunk.blocks.{i}.attn.proj.weight"][0] for i in range(blocks)]
        stages = {width: len(list(same)) for width, same in groupby(widths)}
        layout = LAYOUTS[widths[0], tuple(stages.values())]
        hidden = shape["sam_mask_decoder.iou_token.weight"][1]
        inner = shape["sam_mask_decoder.transformer.final_attn_token_to_image.q_proj.weight"][0]
        return Sam2Config(
            vision_config=_vision(shape, stages, layout),
            prompt_encoder_config={
                "hidden_size": hidden,
                "image_size": IMAGE_PX,
                "patch_size": PATCH_PX,
                "mask_input_channels": shape["sam_prompt_encoder.mask_downscaling.3.weight"][0],
            },
            mask_decoder_config={
                "hidden_size": hidden,
                "num_hidden_layers": count_of(state, r"sam_mask_decoder\.transformer\.layers\.(\d+)\."),
                "num_attention_heads": DECODER_HEADS,
                "mlp_dim": shape["sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight"][0],
                "attention_downsample_rate": hidden // inner,
                "num_multimask_outputs": shape["sam_mask_decoder.mask_tokens.weight"][0] - 1,
                "iou_head_depth": count_of(state, r"sam_mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
                "iou_head_hidden_dim": shape["sam_mask_decoder.iou_prediction_head.layers.0.weight"][0],
            },
        )
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{path} is not an official checkpoint of SAM 2 (tiny, small, base-plus or large): looked for {error}, "
            f"found {len(state)} entries ({listed(state)})"
        ) from error


def _vision(shape: Mapping[str, tuple[int, ...]], stages: Mapping[int, int], layout: Layout) -> dict[str, Any]:
    widths = list(stages)
    grid = IMAGE_PX // PATCH_PX
    return {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": widths[0],
            "num_attention_heads": layout.heads,
            "image_size": [IMAGE_PX, IMAGE_PX],
            "window_positional_embedding_background_size": list(shape["image_encoder.trunk.pos_embed"][2:]),
            "blocks_per_stage": list(stages.values()),
            "embed_dim_per_stage": widths,
            "num_attention_heads_per_stage": [layout.heads * 2**stage for stage in range(len(stages))],
            "window_size_per_stage": list(layout.windows),
            "global_attention_blocks": list(layout.global_blocks),
            "mlp_ratio": shape["image_encoder.trunk.blocks.0.mlp.layers.0.weight"][0] / widths[0],
        },
        "backbone_channel_list": widths[::-1],
        "backbone_feature_sizes": [[grid * finer, grid * finer] for finer in (4, 2, 1)],
        "fpn_hidden_size": shape["image_encoder.neck.convs.0.conv.weight"][0],
    }
