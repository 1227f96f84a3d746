"""Tiny models with random weights, saved as the hub holds the real ones, and pictures to look at."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from autodistill_grounded_sam.types import Candidates, RgbImage

PROMPTS = ("red cat", "dog", "t-shirt", "fire machine")
SIZES = ((200, 150), (150, 200), (64, 64), (301, 40), (3, 90), (90, 3), (1, 1))  # (width, height)


def picture(width: int, height: int, seed: int = 0) -> RgbImage:
    """Smooth noise: what a photograph is to a resize."""
    small = np.random.default_rng(seed).integers(0, 256, (min(height, 12), min(width, 16), 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(width, height, seed) for seed, (width, height) in enumerate(SIZES)]


def shaken(build: Callable[[], Any], amount: float = 0.05) -> Any:
    """A model with random weights from a fixed seed, away from the initial zeros, so that every part of it matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = build().eval()
        for parameter in model.parameters():
            parameter.data += amount * torch.randn_like(parameter)
    return model


def write_clip_words(folder: Path, most: int) -> dict[str, int]:
    """CLIP's byte pairs for letters and a few words, in the form the hub holds (vocab.json and merges.txt); gives the ids."""
    marks = [*string.ascii_lowercase, *string.digits, *"!?.,-'"]
    merges = ["r e", "re d</w>", "c a", "ca t</w>", "d o", "do g</w>"]
    tokens = ["!", *(mark for mark in marks if mark != "!"), *(f"{mark}</w>" for mark in marks)]
    tokens += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer", "model_max_length": most}
    special |= {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "!"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return ids


def assert_same(found: Candidates, xyxy: Any, scores: Any, atol_px: float = 0.01) -> None:
    """Equal boxes and scores, in one order."""
    assert len(found) == len(scores)
    np.testing.assert_allclose(found.scores, np.asarray(scores), atol=1e-5)
    np.testing.assert_allclose(found.xyxy, np.asarray(xyxy), atol=atol_px)
