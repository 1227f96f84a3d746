"""A tiny Grounding DINO with random weights and a vocabulary of its own, as a transformers folder."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

WORDS = ("red", "blue", "cat", "dog", "car", "person", "fire", "machine", "##s", "-", "'", ",", "+")
SIZES = {"shortest_edge": 96, "longest_edge": 160}


def build_tokenizer(folder: Path) -> BertTokenizerFast:
    """Special tokens and delimiters at the rows that transformers' Grounding DINO has fixed, then words and letters."""
    rows = [f"[unused{i}]" for i in range(1030)]
    for row, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}.items():
        rows[row] = token
    letters = string.ascii_lowercase + string.digits
    rows[200 : 200 + len(WORDS)] = WORDS
    rows[300 : 300 + len(letters)] = letters
    rows[400 : 400 + len(letters)] = [f"##{letter}" for letter in letters]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n")
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)


def save_grounding_dino(folder: Path, *, size: dict[str, int] | None = None, mm: bool = False, max_text_len: int = 256) -> Path:
    """Random weights from a fixed seed; small sides and few queries, so that a forward pass takes milliseconds."""
    swin = SwinConfig(
        image_size=96, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, mlp_ratio=2,
        out_indices=[2, 3, 4], drop_path_rate=0.0,
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=1030,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    config_type, model_type = GroundingDinoConfig, GroundingDinoForObjectDetection
    if mm:
        config_type, model_type = MMGroundingDinoConfig, MMGroundingDinoForObjectDetection
    config = config_type(
        backbone_config=swin, text_config=bert, d_model=64, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=20, num_feature_levels=3,
        max_text_len=max_text_len,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = model_type(config)
        for parameter in model.parameters():  # away from the initial zeros: image, text and position all have to matter
            parameter.data += 0.05 * torch.randn_like(parameter)
        for layer, head in enumerate(model.class_embed if mm else ()):  # at first 0.01 for everything, below every floor
            head.bias.data.fill_(0.3 + 0.2 * layer)
    model.save_pretrained(folder)
    processor = GroundingDinoImageProcessor(size=size or SIZES, do_pad=False)
    GroundingDinoProcessor(processor, build_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerFast:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tiny_grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_grounding_dino(tmp_path: Path) -> Callable[..., Path]:
    """Save one with other settings: `size`, `mm`, `max_text_len`."""
    return lambda **settings: save_grounding_dino(tmp_path / "model", **settings)
