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
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartTokenizer,
    CLIPImageProcessor,
    CLIPTextConfig,
    DetrImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Florence2VisionConfig,
    OmDetTurboConfig,
    OmDetTurboForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    SwinConfig,
)

from autodistill_grounded_sam.types import Candidates, RgbImage

OWL_PX, OMDET_PX, FLORENCE_PX, SAM3_PX = 96, 64, 64, 84
OMDET_QUERIES = 40
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


def save_owl(folder: Path, kind: str) -> Path:
    ids = write_clip_words(folder, 16)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(ids), "max_position_embeddings": 16, "pad_token_id": 0,
            "bos_token_id": ids["<|startoftext|>"], "eos_token_id": ids["<|endoftext|>"]}  # fmt: skip
    vision = {**small, "image_size": OWL_PX, "patch_size": 16}
    config_type, model_type, images = {
        "owlvit": (OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor),
        "owlv2": (Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor),
    }[kind]
    model = shaken(lambda: model_type(config_type(text_config=text, vision_config=vision, projection_dim=32)), 0.1)
    # Scores from near 0 to near 1 that differ from prompt to prompt, and boxes of many sizes, as a trained model gives.
    getattr(model, kind).text_model.embeddings.token_embedding.weight.data *= 20.0
    model.class_head.logit_scale.bias.data += 5.0
    for head, share in (
        (model.class_head.logit_scale, 0.05),
        (model.class_head.logit_shift, 0.02),
        (model.box_head.dense2, 0.05),
    ):
        head.weight.data *= share
    model.box_head.dense2.bias.data += torch.tensor([-2.0, -2.0, 1.0, 1.0])  # more of them at the top left, and over each other
    model.save_pretrained(folder)
    images(size={"height": OWL_PX, "width": OWL_PX}).save_pretrained(folder)
    return folder


def save_omdet(folder: Path) -> Path:
    ids = write_clip_words(folder, 77)
    text = CLIPTextConfig(
        vocab_size=len(ids), hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, projection_dim=48,
        max_position_embeddings=77, bos_token_id=ids["<|startoftext|>"], eos_token_id=ids["<|endoftext|>"], pad_token_id=0,
    )  # fmt: skip
    swin = SwinConfig(
        image_size=OMDET_PX, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4,
        out_indices=[2, 3, 4], drop_path_rate=0.0,
    )  # fmt: skip
    config = OmDetTurboConfig(
        text_config=text, backbone_config=swin, image_size=OMDET_PX, text_projection_in_dim=48, text_projection_out_dim=48,
        task_encoder_hidden_dim=64, class_embed_dim=48, num_queries=OMDET_QUERIES, vision_features_channels=[32, 32, 32],
        encoder_in_channels=[32, 64, 128], encoder_hidden_dim=32, encoder_attention_heads=4, encoder_dim_feedforward=64,
        decoder_hidden_dim=32, decoder_num_heads=4, decoder_num_layers=2, decoder_dim_feedforward=64, cache_size=3,
        apply_layernorm_after_vision_backbone=False,
    )  # fmt: skip
    model = shaken(lambda: OmDetTurboForObjectDetection(config), 0.1)
    model.language_backbone.model.get_input_embeddings().weight.data *= 20.0
    model.decoder.encoder_bbox_head.layers[-1].bias.data += torch.tensor([0.0, 0.0, 2.5, 2.5])  # boxes over each other
    model.decoder.decoder_bbox_head[-1].layers[-1].weight.data *= 8.0
    model.save_pretrained(folder)
    DetrImageProcessor(size={"height": OMDET_PX, "width": OMDET_PX}, do_pad=False).save_pretrained(folder)
    return folder


def save_florence(folder: Path) -> Path:
    letters = [*string.ascii_letters, *string.digits, *"-.,", "Ġ", "Ã", "©"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    ids = {token: number for number, token in enumerate(tokens)}
    words = BartTokenizer(vocab=ids, merges=[], extra_special_tokens={"image_token": "<image>"})
    places = [f"<loc_{number}>" for number in range(1000)]
    words.add_special_tokens({"additional_special_tokens": [*places, "<poly>", "</poly>", "<sep>"]})
    text = BartConfig(
        vocab_size=len(words), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=150, bos_token_id=0,
        pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2, max_length=40,
    )  # fmt: skip
    vision = Florence2VisionConfig(
        depths=(1, 1, 1, 1), embed_dim=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), num_groups=(1, 1, 2, 2), window_size=4,
        projection_dim=32, drop_path_rate=0.0,
    )  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=words.image_token_id)
    model = shaken(lambda: Florence2ForConditionalGeneration(config), 0.2)
    model.generation_config.update(max_length=None, num_beams=3, no_repeat_ngram_size=3, decoder_start_token_id=2)
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"height": FLORENCE_PX, "width": FLORENCE_PX}, do_center_crop=False, image_seq_length=5)
    Florence2Processor(images, words, post_processor_config={"description_with_bboxes_or_polygons": {}}).save_pretrained(folder)
    return folder


def save_sam3(folder: Path, *, video: bool = False) -> Path:
    """`video` is the form of facebook/sam3: the detector is a part of the video model, under its name."""
    ids = write_clip_words(folder, 32)
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**small, "model_type": "clip_text_model", "vocab_size": len(ids), "num_hidden_layers": 1, "projection_dim": 32,
            "max_position_embeddings": 32, "bos_token_id": ids["<|startoftext|>"], "eos_token_id": ids["<|endoftext|>"],
            "pad_token_id": 0}  # fmt: skip
    vit = {**small, "model_type": "sam3_vit_model", "num_hidden_layers": 2, "image_size": SAM3_PX, "patch_size": 14,
           "window_size": 3, "global_attn_indexes": [1], "pretrain_image_size": 28}  # fmt: skip
    config = Sam3Config(
        vision_config={"backbone_config": vit, "fpn_hidden_size": 32}, text_config=text,
        geometry_encoder_config={**small, "num_layers": 1}, detr_encoder_config={**small, "num_layers": 2},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    model = shaken(lambda: Sam3Model(config), 0.1)
    model.text_encoder.get_input_embeddings().weight.data *= 20.0
    model.save_pretrained(folder)
    Sam3ImageProcessor(size={"height": SAM3_PX, "width": SAM3_PX}).save_pretrained(folder)
    if video:
        detector = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": detector}))
        state = load_file(folder / "model.safetensors")
        state = {f"detector_model.{name}": numbers for name, numbers in state.items()} | {"tracker_model.x": torch.ones(2)}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def assert_same(found: Candidates, xyxy: Any, scores: Any, atol_px: float = 0.01) -> None:
    """Equal boxes and scores, in one order."""
    assert len(found) == len(scores)
    np.testing.assert_allclose(found.scores, np.asarray(scores), atol=1e-5)
    np.testing.assert_allclose(found.xyxy, np.asarray(xyxy), atol=atol_px)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "owlvit": lambda folder: save_owl(folder, "owlvit"),
    "owlv2": lambda folder: save_owl(folder, "owlv2"),
    "omdet-turbo": save_omdet,
    "florence2": save_florence,
    "sam3": save_sam3,
    "sam3_video": lambda folder: save_sam3(folder, video=True),
}
