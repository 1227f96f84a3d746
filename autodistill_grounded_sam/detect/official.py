"""Checkpoints of the original Grounding DINO authors, read into transformers' `GroundingDinoForObjectDetection`.

The names are mapped by the tables below, the architecture is read off the shapes, and every key of the file and of the model
has to be accounted for. Names after transformers 5.23; arithmetic equals the official code (tests/detect/test_official.py).
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]

SWIN = "model.backbone.conv_encoder.model.swin."
# Recomputed by transformers, only used in training (label_enc), or never used (the pooler of BERT).
_DROPPED = re.compile(
    r"label_enc\.weight|.*\.relative_position_index|bert\.embeddings\.position_ids|bert\.pooler\..*|.*\.attn_mask"
)
_UNUSED_IN_MODEL = re.compile(r".*swin\.layernorm\.(weight|bias)")  # the backbone reads the norms of its stages instead
# Official prefix -> transformers' prefix, and what the rest of the name begins with, official -> transformers'.
_PREFIXES: tuple[tuple[str, str, dict[str, str]], ...] = (
    (r"backbone\.0\.patch_embed\.", SWIN + "embeddings.", {"proj.": "patch_embeddings.projection.", "norm.": "norm."}),
    (
        r"backbone\.0\.layers\.(\d+)\.blocks\.(\d+)\.",
        SWIN + r"encoder.layers.\1.blocks.\2.",
        {
            "norm1.": "layernorm_before.",
            "norm2.": "layernorm_after.",
            "attn.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
            "attn.qkv.": "attention.qkv.",
            "attn.proj.": "attention.o_proj.",
            "mlp.": "mlp.",
        },
    ),
    (r"backbone\.0\.layers\.(\d+)\.downsample\.", SWIN + r"encoder.layers.\1.downsample.", {"": ""}),
    (
        r"backbone\.0\.",
        "model.backbone.conv_encoder.model.hidden_states_norms.",
        {f"norm{stage}.": f"stage{stage + 1}." for stage in range(4)},
    ),
    (r"bert\.", "model.text_backbone.", {"": ""}),
    (r"feat_map\.", "model.text_projection.", {"": ""}),
    (r"input_proj\.", "model.input_proj_vision.", {"": ""}),
    (r"bbox_embed\.", "bbox_embed.", {"": ""}),
    (
        r"transformer\.encoder\.layers\.(\d+)\.",
        r"model.encoder.layers.\1.deformable_layer.",
        {
            "self_attn.": "self_attn.",
            "norm1.": "self_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm2.": "final_layer_norm.",
        },
    ),
    (
        r"transformer\.encoder\.text_layers\.(\d+)\.",
        r"model.encoder.layers.\1.text_enhancer_layer.",
        {
            "self_attn.": "self_attn.",
            "norm1.": "layer_norm_before.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm2.": "layer_norm_after.",
        },
    ),
    (
        r"transformer\.encoder\.fusion_layers\.(\d+)\.",
        r"model.encoder.layers.\1.fusion_layer.",
        {
            "gamma_v": "vision_param",
            "gamma_l": "text_param",
            "layer_norm_v.": "layer_norm_vision.",
            "layer_norm_l.": "layer_norm_text.",
            "attn.v_proj.": "attn.vision_proj.",
            "attn.l_proj.": "attn.text_proj.",
            "attn.values_v_proj.": "attn.values_vision_proj.",
            "attn.values_l_proj.": "attn.values_text_proj.",
            "attn.out_v_proj.": "attn.out_vision_proj.",
            "attn.out_l_proj.": "attn.out_text_proj.",
        },
    ),
    (
        r"transformer\.decoder\.layers\.(\d+)\.",
        r"model.decoder.layers.\1.",
        {
            "norm1.": "encoder_attn_layer_norm.",
            "cross_attn.": "encoder_attn.",
            "ca_text.": "encoder_attn_text.",
            "catext_norm.": "encoder_attn_text_layer_norm.",
            "self_attn.": "self_attn.",
            "norm2.": "self_attn_layer_norm.",
            "norm3.": "final_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
        },
    ),
    (
        r"transformer\.decoder\.",
        "model.decoder.",
        {"norm.": "layer_norm.", "ref_point_head.": "reference_points_head.", "bbox_embed.": "bbox_embed."},
    ),
    (
        r"transformer\.",
        "model.",
        {
            "level_embed": "level_embed",
            "tgt_embed.": "query_position_embeddings.",
            "enc_output.": "enc_output.",
            "enc_output_norm.": "enc_output_norm.",
            "enc_out_bbox_embed.": "encoder_output_bbox_embed.",
        },
    ),
)
# One official tensor that holds three of transformers', stacked.
_STACKED = (
    (re.compile(r"(.*\.)in_proj_(weight|bias)"), ("query", "key", "value")),
    (re.compile(r"(.*\.)qkv\.(weight|bias)"), ("q_proj", "k_proj", "v_proj")),
)


def load_official(path: Path, config: Mapping[str, Any] | None = None) -> Any:
    """Build the float32 model of an official file, in eval mode.

    `config` overrides what cannot be read off the shapes (numbers of heads), in the names of transformers' GroundingDinoConfig;
    left out, it is read from a `.json` of the file's own name beside it, if there is one.
    Raises WeightsError where the file is damaged, holds code, or does not account for every weight of the model.
    """
    from torch.random import fork_rng
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    official = read_official(path)
    settings = official_config(path, official, config)
    with fork_rng(devices=[]):  # the random start is overwritten at once; the caller's random numbers stay as they were
        model = GroundingDinoForObjectDetection(GroundingDinoConfig(**settings))
    _load_all(model, rename_official(official), path)
    return model.float().eval()


def read_official(path: Path) -> State:
    """The state dict of an official Grounding DINO file, less what is recomputed or only used in training."""
    official = {key.removeprefix("module."): value for key, value in read_state(path).items()}
    return {key: value for key, value in official.items() if not _DROPPED.fullmatch(key)}


def official_config(path: Path, official: State, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments for GroundingDinoConfig of what `read_official` gave; `config` as of `load_official`."""
    try:
        return infer_config(official, _beside(path) if config is None else config)
    except KeyError as error:
        raise WeightsError(f"{path} is not an official Grounding DINO checkpoint: it has no {error.args[0]!r}") from error


def read_state(path: Path) -> State:
    """The state dict of a `.pth`, `.pt` or `.safetensors` file; code in a pickle is never run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors (code is never run); save its state dict alone, best as "
            f"safetensors: {type(error).__name__} {error}"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict (expected names with tensors, or them under 'model' or 'state_dict')")
    return state


def rename_official(official: State) -> State:
    """The same tensors under transformers' names; a name that no rule knows stays as it is."""
    renamed: State = {}
    for key, value in official.items():
        name = _renamed(key)
        for pattern, parts in _STACKED:
            if match := pattern.fullmatch(name):
                renamed |= {f"{match[1]}{part}.{match[2]}": third for part, third in zip(parts, value.chunk(3), strict=True)}
                break
        else:
            renamed[name] = value
    return renamed


def _renamed(key: str) -> str:
    for prefix, new_prefix, parts in _PREFIXES:
        if match := re.match(prefix, key):
            rest = key[match.end() :]
            for old, new in parts.items():
                if rest.startswith(old):
                    return match.expand(new_prefix) + new + rest[len(old) :]
    return key


def infer_config(official: State, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for GroundingDinoConfig from the shapes of an official state dict; what is `given` wins.

    Both releases (Swin-T OGC, Swin-B cogcoor) are told completely. Eight heads, and 64 channels a head of BERT, are what every
    released model has; the shapes do not tell them.
    """
    size, count = _readers(official)
    levels, heads = size("transformer.level_embed"), int(given.get("encoder_attention_heads", 8))
    ffn = "transformer.{}.layers.0.linear1.weight"
    points = "transformer.{}.attention_weights.weight"
    return _merged(
        {
            "backbone_config": infer_swin(official),
            "text_config": _infer_bert(size, count, given),
            "d_model": size("transformer.level_embed", 1),
            "num_queries": size("transformer.tgt_embed.weight"),
            "num_feature_levels": levels,
            "encoder_layers": count(r"transformer\.encoder\.layers\.(\d+)\."),
            "decoder_layers": count(r"transformer\.decoder\.layers\.(\d+)\."),
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": size(ffn.format("encoder")),
            "decoder_ffn_dim": size(ffn.format("decoder")),
            "encoder_n_points": size(points.format("encoder.layers.0.self_attn")) // (heads * levels),
            "decoder_n_points": size(points.format("decoder.layers.0.cross_attn")) // (heads * levels),
            "decoder_bbox_embed_share": _shares_bbox_embed(official),
        },
        given,
    )


def _readers(official: State) -> tuple[Callable[..., int], Callable[[str], int]]:
    """What reads a dimension of a tensor, and what counts the layers of a numbered name."""

    def size(key: str, axis: int = 0) -> int:
        return int(official[key].shape[axis])

    def count(pattern: str) -> int:
        numbers = [int(match[1]) for key in official if (match := re.match(pattern, key))]
        return max(numbers, default=-1) + 1

    return size, count


def infer_swin(official: State) -> dict[str, Any]:
    """Arguments for SwinConfig from the tensors under `backbone.0.`, the authors' own Swin."""
    size, count = _readers(official)
    depths = [count(rf"backbone\.0\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(count(r"backbone\.0\.layers\.(\d+)\."))]
    table = "backbone.0.layers.{}.blocks.0.attn.relative_position_bias_table"
    window = (isqrt(size(table.format(0))) + 1) // 2
    width = size("backbone.0.patch_embed.proj.weight")
    return {
        "model_type": "swin",
        "image_size": 384 if window == 12 else 224,  # only absolute position embeddings would depend on it; there are none
        "patch_size": size("backbone.0.patch_embed.proj.weight", -1),
        "embed_dim": width,
        "depths": depths,
        "num_heads": [size(table.format(stage), 1) for stage in range(len(depths))],
        "window_size": window,
        "mlp_ratio": size("backbone.0.layers.0.blocks.0.mlp.fc1.weight") / width,
        "out_indices": [stage + 1 for stage in range(len(depths)) if f"backbone.0.norm{stage}.weight" in official],
    }


def _infer_bert(size: Any, count: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    width = size("bert.embeddings.word_embeddings.weight", 1)
    heads = given.get("text_config", {}).get("num_attention_heads", width // 64)
    if heads == 0 or width % heads:
        raise WeightsError(
            f"the number of heads of a text encoder {width} wide cannot be told from the shapes; "
            "give config={'text_config': {'num_attention_heads': N}}"
        )
    return {
        "model_type": "bert",
        "vocab_size": size("bert.embeddings.word_embeddings.weight"),
        "hidden_size": width,
        "num_hidden_layers": count(r"bert\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": heads,
        "intermediate_size": size("bert.encoder.layer.0.intermediate.dense.weight"),
        "max_position_embeddings": size("bert.embeddings.position_embeddings.weight"),
    }


def _shares_bbox_embed(official: State) -> bool:
    """Whether all decoder layers have one box head, as in both releases (then stored once a layer all the same)."""
    import torch

    heads = [(key, re.sub(r"^bbox_embed\.\d+", "bbox_embed.0", key)) for key in official if key.startswith("bbox_embed.")]
    return all(torch.equal(official[key], official[first]) for key, first in heads)


def _merged(inferred: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(inferred)
    for key, value in given.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _beside(path: Path) -> Mapping[str, Any]:
    """The config that a person wrote beside an official file, or nothing."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{beside} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{beside} must hold one object in the names of GroundingDinoConfig, got a {type(config).__name__}")
    return config


def _load_all(model: Any, state: State, path: Path) -> None:
    """Copy every tensor; complain about each one that is missing, not known, or of another shape."""
    own = model.state_dict(keep_vars=True)
    covered = {id(own[key]) for key in state if key in own}  # a shared box head may be in the file once or once a layer
    problems = [f"not known: {key}" for key in state if key not in own]
    problems += [
        f"missing: {key}" for key, value in own.items() if id(value) not in covered and not _UNUSED_IN_MODEL.fullmatch(key)
    ]
    problems += [
        f"{key} is {tuple(value.shape)}, the model has {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise WeightsError(
            f"{path} does not fit the model built for it ({len(problems)} tensors); if it is no Swin-T or Swin-B release, "
            f"give its config=, or write it to {path.with_suffix('.json')}:\n  {shown}"
        )
    model.load_state_dict(state, strict=False)
