"""Models that write about images, as taggers: tiny ones with random weights, against transformers' own example code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.errors import ConfigError, WeightsError
from autodistill_grounded_sam.tag.captions import FLORENCE_TASK, QUESTION, Captioner
from autodistill_grounded_sam.tag.phrases import things_in
from autodistill_grounded_sam.testing import check_tagger
from tests.detect.tiny_models import picture, save_florence, save_owl, shaken

SIDE = 32
NOUNS = [f"{first}{second}" for first in ("cat", "dog", "cup", "car", "hat") for second in ("", "fish", "bird", "boat")]
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }} {% endfor %}{% endfor %}say"
)


def words(special: list[str], first: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*special, *first, *NOUNS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if "<image>" not in special else pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]",
        additional_special_tokens=[word for word in special if word.startswith("<")],
    )  # fmt: skip


def save_blip(folder: Path) -> Path:
    tokenizer = words(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], [])
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "bos_token_id": 2, "pad_token_id": 0,
            "eos_token_id": 3, "sep_token_id": 3, "max_position_embeddings": 64}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": SIDE, "patch_size": 8})
    shaken(lambda: BlipForConditionalGeneration(config), 0.3).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def save_chat(folder: Path) -> Path:
    tokenizer = words(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>"], QUESTION.split())
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={**small, "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 8, "projection_dim": 32},
        text_config={**small, "model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2,
                     "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
        image_token_id=4, image_seq_length=16,
    )  # fmt: skip
    shaken(lambda: LlavaForConditionalGeneration(config), 0.3).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


BUILDERS: dict[str, Callable[[Path], Path]] = {"blip": save_blip, "chat": save_chat, "florence2": save_florence}


def by_the_book(kind: str, folder: Path, image: Any, most: int) -> str:
    """What transformers' own example code gives for the model."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    if kind == "chat":
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}], add_generation_prompt=True
        )
        inputs = processor(images=image, text=prompt, return_tensors="pt")
    else:
        inputs = processor(images=image, **({"text": FLORENCE_TASK} if kind == "florence2" else {}), return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=most, do_sample=False)
    start = inputs["input_ids"].shape[1] if kind == "chat" else 0
    return str(processor.batch_decode(written[:, start:], skip_special_tokens=kind != "florence2")[0])


@pytest.mark.parametrize("kind", BUILDERS)
def test_it_tags_what_the_model_writes(kind: str, tmp_path: Path) -> None:
    folder = BUILDERS[kind](tmp_path / kind)
    tagger = plugins.load("taggers", str(folder))
    assert isinstance(tagger, Captioner)
    short = Captioner(str(folder), most_tokens=12)
    image = picture(60, 40, 3)
    said = by_the_book(kind, folder, Image.fromarray(image), 12)
    assert short.say(image) == said and said.strip()
    assert [tag.name for tag in short.tag([image])[0]] == things_in(said)
    assert all(tag.score == 1 for tag in short.tag([image])[0])
    check_tagger(short)


def test_what_does_not_fit_is_told_in_words(tmp_path: Path) -> None:
    folder = save_blip(tmp_path / "blip")
    with pytest.raises(ConfigError, match="says what it sees in its own words"):
        Captioner(str(folder), words=("cat",))
    with pytest.raises(WeightsError, match="cannot be read"):
        Captioner(str(save_owl(tmp_path / "owl", "owlvit")))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"not a whole tagger: \*\.safetensors missing; its \.bin file is a pickle"):
        plugins.load("taggers", str(folder))
