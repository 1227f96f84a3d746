"""Grounding DINO run by its authors' own module `groundingdino`, for those who want that code: `--detector original:FILE.pth`.

Reading, captions, spans and boxes are those of `GroundingDino`; only the forward pass is theirs. Their package was written for
older transformers; what it lost is given back here, to this one model and not to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from autodistill_grounded_sam.detect.grounding_dino import GroundingDino, Loaded, beside_official
from autodistill_grounded_sam.detect.official import official_config, read_official
from autodistill_grounded_sam.errors import MissingExtraError, WeightsError
from autodistill_grounded_sam.plugins import ORIGINAL
from autodistill_grounded_sam.weights import find_weights

# Of every release; the shapes of its weights tell all else.
SETTINGS = {
    "position_embedding": "sine", "pe_temperatureH": 20, "pe_temperatureW": 20, "backbone_freeze_keywords": None,
    "pre_norm": False, "dropout": 0.0, "query_dim": 4, "num_patterns": 0, "two_stage_type": "standard",
    "two_stage_bbox_embed_share": False, "two_stage_class_embed_share": False, "transformer_activation": "relu",
    "dec_pred_bbox_embed_share": True, "dn_box_noise_scale": 1.0, "dn_label_noise_ratio": 0.5, "dn_labelbook_size": 2000,
    "embed_init_tgt": True, "use_text_enhancer": True, "use_fusion_layer": True, "use_checkpoint": False,
    "use_transformer_ckpt": False, "use_text_cross_attention": True, "text_dropout": 0.0, "fusion_dropout": 0.0,
    "fusion_droppath": 0.1, "sub_sentence_present": True, "text_encoder_type": "bert", "backbone": "swin_T_224_1k",
}  # fmt: skip


class AuthorsGroundingDino(GroundingDino):
    """As `GroundingDino` on an official file, by the authors' forward pass; needs the package `rf-groundingdino` or
    `groundingdino-py`. Raises MissingExtraError without it."""

    def __init__(
        self,
        name: str,
        *,
        offline: bool = False,
        config: Mapping[str, Any] | None = None,
        tokenizer: str = "bert-base-uncased",
        **settings: Any,
    ) -> None:
        found = find_weights(name.removeprefix(ORIGINAL), "detector", offline=offline)
        if found.kind != "official":
            raise WeightsError(f"{name}: the authors' package reads their .pth files, and {found.path} is a transformers folder")
        module = build(found.path, config)  # a missing package is told before anything is fetched
        super().__init__(name, fast=False, loaded=Loaded(module, *beside_official(tokenizer, offline)), **settings)


def build(path: Path, config: Mapping[str, Any] | None = None) -> Any:
    """The authors' module (float32, eval mode) on an official file, called as transformers' model is. `config` as of
    `official.load_official`; raises WeightsError where the file lacks a weight of the module."""
    from torch import nn
    from transformers import GroundingDinoConfig

    package = _package()
    state = read_official(path)
    told = GroundingDinoConfig(**official_config(path, state, config))
    names = {
        "hidden_dim": "d_model", "nheads": "encoder_attention_heads", "enc_layers": "encoder_layers",
        "dec_layers": "decoder_layers", "dim_feedforward": "encoder_ffn_dim", "num_queries": "num_queries",
        "num_feature_levels": "num_feature_levels", "enc_n_points": "encoder_n_points", "dec_n_points": "decoder_n_points",
        "max_text_len": "max_text_len",
    }  # fmt: skip
    stages = [stage - 1 for stage in told.backbone_config.out_indices]
    args = SimpleNamespace(
        **SETTINGS, return_interm_indices=stages, **{own: getattr(told, theirs) for own, theirs in names.items()}
    )
    model = _built(package, args, told)
    lacking = sorted(model.load_state_dict(state, strict=False).missing_keys)
    lacking = [key for key in lacking if not key.endswith(("position_ids", "relative_position_index")) and ".pooler." not in key]
    if lacking:
        raise WeightsError(f"{path} lacks {len(lacking)} weights of the authors' module: {', '.join(lacking[:5])}")

    class AsTransformers(nn.Module):
        """Their module with our tokens, as transformers' model is called and answers."""

        def __init__(self) -> None:
            super().__init__()
            self.theirs, self.config = model, told

        def forward(self, pixel_values: Any, input_ids: Any, attention_mask: Any) -> Any:
            tokens = {"input_ids": input_ids, "token_type_ids": input_ids * 0, "attention_mask": attention_mask}
            self.theirs.tokenizer = _Given(tokens)
            answer = self.theirs(pixel_values, captions=[""] * len(pixel_values))
            return SimpleNamespace(logits=answer["pred_logits"], pred_boxes=answer["pred_boxes"])

    return AsTransformers().float().eval()


class _Given:
    """In the place of their tokenizer, once the tokens are known."""

    def __init__(self, tokens: Mapping[str, Any]) -> None:
        from transformers import BatchEncoding

        self._tokens = BatchEncoding(dict(tokens))

    def __call__(self, captions: Any, **settings: Any) -> Any:
        return self._tokens


def _package() -> Any:
    """The parts of the authors' package that build a model."""
    try:
        from groundingdino.models.GroundingDINO import groundingdino
        from groundingdino.models.GroundingDINO.backbone import backbone, swin_transformer
    except ImportError as error:
        raise MissingExtraError(f"the authors' Grounding DINO ({error.name} is missing)", extra="original") from error
    return SimpleNamespace(main=groundingdino, backbone=backbone, swin=swin_transformer)


def _built(package: Any, args: Any, told: Any) -> Any:
    """Their model, with a Swin and a BERT of the sizes that the file has; their own names of these know the releases alone."""
    from torch.random import fork_rng

    swin = told.backbone_config
    stand_ins: list[tuple[Any, str, Callable[..., Any]]] = [
        (
            package.backbone,
            "build_swin_transformer",
            lambda _name, **given: package.swin.SwinTransformer(
                patch_size=swin.patch_size, embed_dim=swin.embed_dim, depths=swin.depths, num_heads=swin.num_heads,
                window_size=swin.window_size, mlp_ratio=swin.mlp_ratio, **given,
            ),
        ),
        (package.main.get_tokenlizer, "get_tokenlizer", lambda _name: _Delimiters()),
        (package.main.get_tokenlizer, "get_pretrained_language_model", lambda _name: bert_of_today(told.text_config)),
        (package.main, "BertModelWarper", lambda bert_model: bert_model),
    ]  # fmt: skip
    before = [getattr(module, name) for module, name, _ in stand_ins]
    try:
        for module, name, stand_in in stand_ins:
            setattr(module, name, stand_in)
        with fork_rng(devices=[]):  # the random start is overwritten at once
            return package.main.build_groundingdino(args)
    finally:
        for (module, name, _), own in zip(stand_ins, before, strict=True):
            setattr(module, name, own)


class _Delimiters:
    """All that their model asks of a tokenizer while it is built: the ids of [CLS], [SEP], "." and "?" in BERT's words."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [{"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}[token] for token in tokens]


def bert_of_today(config: Any) -> Any:
    """A BertModel of today's transformers in the form of the authors' wrapper: called with a mask (b, n, n) of which token may
    see which, it answers a mapping with `last_hidden_state`. Its parameters have the names that they have in the wrapper.

    Their own wrapper takes `get_extended_attention_mask`, `invert_attention_mask` and `get_head_mask` from the model, and hands
    `past_key_values_length` and `head_mask` to its parts; transformers 5 has none of the five.
    """
    import torch
    from torch import nn
    from transformers import BertModel

    config._attn_implementation = "eager"  # takes the mask as it is, to be added
    model = BertModel(config)

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.embeddings, self.encoder, self.pooler = config, model.embeddings, model.encoder, model.pooler

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any, position_ids: Any) -> Any:
            seen = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
            hidden = torch.zeros_like(attention_mask, dtype=seen.dtype).masked_fill(~attention_mask, torch.finfo(seen.dtype).min)
            return {"last_hidden_state": self.encoder(seen, attention_mask=hidden[:, None])[0]}

    return Bert()
