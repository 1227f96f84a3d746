"""Official state dicts of segment-anything's family: read without running code, renamed, put into transformers' models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import WeightsError

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
_NUMBERED_NORM = re.compile(r"\.norm(\d)\.")
_HEAD_LAYER = re.compile(
    r"((?:iou_prediction_head|output_hypernetworks_mlps\.\d+|hf_mlp|mlp|pred_obj_score_head)\.)layers\.(\d+)\."
)
_SHARED = "shared_image_embedding.positional_embedding"
_SHARED_TWIN = "prompt_encoder.shared_embedding.positional_embedding"  # the same tensor under a second name in transformers

State = Mapping[str, Any]


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


def transformers_names(state: State, table: Mapping[str, str]) -> dict[str, Any]:
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


def assembled(kind: type, config: Any, renamed: State, path: Path) -> Any:
    """A model of transformers (eval mode) that holds these tensors, each of them and no other."""
    import torch

    with torch.device("meta"):  # nothing is allocated or initialised twice: the file's tensors become the parameters
        model = kind(config)
    _account(model.state_dict(), renamed, path)
    model.load_state_dict(renamed, assign=True)
    return model.eval()


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
