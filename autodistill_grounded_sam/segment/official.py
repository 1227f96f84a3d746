"""Official files of segment-anything and SAM-HQ as transformers' models: our key table, the config read off the shapes.

Those of SAM 2 are sent on to `official_sam2`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import WeightsError

# The authors build the two-way transformer of the mask decoder from plain nn.LayerNorm (eps 1e-5); transformers' default, also
# in the config.json of its facebook/sam-vit-* conversions, is 1e-6. On the tiny reference model that alone moves the low
# resolution logits by 4e-4; with 1e-5 they agree to 1e-5. (`upscale_layer_norm` and the image encoder are 1e-6 in both.)
DECODER_LAYER_NORM_EPS = 1e-5
DECODER_HEADS = 8  # cannot be read off the shapes; the same in every release (build_sam.py)
NAMES_SHOWN = 6  # of each kind of misfit in an error

# Parts of an official name and what transformers calls them; applied in this order.
RENAMED_IN_BOTH = {  # in SAM and SAM 2
    "patch_embed.proj.": "patch_embed.projection.",
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "shared_image_embedding.positional_embedding",
    ".point_embeddings.": ".point_embed.",
    ".mask_downscaling.0.": ".mask_embed.conv1.",
    ".mask_downscaling.1.": ".mask_embed.layer_norm1.",
    ".mask_downscaling.3.": ".mask_embed.conv2.",
    ".mask_downscaling.4.": ".mask_embed.layer_norm2.",
    ".mask_downscaling.6.": ".mask_embed.conv3.",
    ".norm_final_attn.": ".layer_norm_final_attn.",
    ".output_upscaling.0.": ".upscale_conv1.",
    ".output_upscaling.1.": ".upscale_layer_norm.",
    ".output_upscaling.3.": ".upscale_conv2.",
}
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
_NUMBERED_NORM = re.compile(r"\.norm(\d)\.")
_HEAD_LAYER = re.compile(
    r"((?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hf_mlp|mlp|pred_obj_score_head)\.)layers\.(\d+)\."
)
_SHARED = "shared_image_embedding.positional_embedding"
_SHARED_TWIN = "prompt_encoder.shared_embedding.positional_embedding"  # the same tensor under a second name in transformers

State = Mapping[str, Any]


def load_official(path: Path) -> Any:
    """The SamModel, SamHQModel or Sam2Model (float32, CPU) of an official checkpoint; every tensor is accounted for.

    Raises WeightsError where the file cannot be read without running code from it, or is of another model.
    """
    from transformers import SamHQModel, SamModel

    from autodistill_grounded_sam.segment import official_sam2

    state = read_state(path)
    if official_sam2.OF_SAM2 in state:
        return official_sam2.load_sam2(state, path)
    config = config_of(state, path)
    return assembled(SamHQModel if OF_HQ in state else SamModel, config, transformers_names(state), path)


def assembled(kind: type, config: Any, renamed: State, path: Path) -> Any:
    """A model of transformers (eval mode) that holds these tensors, each of them and no other."""
    import torch

    with torch.device("meta"):  # nothing is allocated or initialised twice: the file's tensors become the parameters
        model = kind(config)
    _account(model.state_dict(), renamed, path)
    model.load_state_dict(renamed, assign=True)
    return model.eval()


def transformers_names(state: State, table: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """The tensors of an official state dict, float32, under the names of transformers."""
    depths: dict[str, int] = {}
    for key in state:
        if match := _HEAD_LAYER.search(key):
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)

    def head_layer(match: re.Match[str]) -> str:
        layer = int(match[2])
        name = {0: "proj_in", depths[match[1]] - 1: "proj_out"}.get(layer, f"layers.{layer - 1}")
        return f"{match[1]}{name}."

    renamed: dict[str, Any] = {}
    for key, tensor in state.items():
        name = _HEAD_LAYER.sub(head_layer, key)
        for theirs, ours in table.items():
            name = name.replace(theirs, ours)
        renamed[_NUMBERED_NORM.sub(r".layer_norm\1.", name)] = tensor.float()
    if _SHARED in renamed:
        renamed[_SHARED_TWIN] = renamed[_SHARED]
    return renamed


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


def read_state(path: Path) -> State:
    """The state dict of an official file; code in it is never run."""
    import torch
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file; all mean the same to the user
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path} cannot be read as weights (no code in it is ever run): {reason}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds a {type(state).__name__}; expected a state dict of segment-anything")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _account(expected: State, given: State, path: Path) -> None:
    """Refuse weights that leave a parameter at random or are not all used."""
    shapes = [
        f"{key}: expected {tuple(expected[key].shape)}, got {tuple(given[key].shape)}"
        for key in expected
        if key in given and expected[key].shape != given[key].shape
    ]
    misfits = {
        "missing": [key for key in expected if key not in given],
        "unknown": [key for key in given if key not in expected],
        "of another shape": shapes,
    }
    if any(misfits.values()):
        lines = [f"  {len(names)} {kind}: {listed(names)}" for kind, names in misfits.items() if names]
        raise WeightsError(
            f"{path} does not fit SAM, SAM-HQ or SAM 2 (is it another relative?); by transformers' names:\n" + "\n".join(lines)
        )


def count_of(state: State, pattern: str) -> int:
    return 1 + max((int(match[1]) for key in state if (match := re.match(pattern, key))), default=-1)


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
