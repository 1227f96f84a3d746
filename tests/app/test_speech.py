"""Words that are spoken: a recognition model of transformers at a tiny size, with random weights, hears real samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.app.speech import Listener, _mono
from autodistill_grounded_sam.errors import WeightsError

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2 for English letters that has learnt nothing."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    folder = tmp_path_factory.mktemp("speech")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=RATE), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def test_what_is_heard_is_what_the_model_makes_of_the_samples(model: Path) -> None:
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    samples = np.random.default_rng(0).normal(0, 0.2, RATE // 4)
    sound = (samples.clip(-1, 1) * 32767).astype(np.int16)
    heard = Listener(str(model), "cpu", offline=True)((RATE, sound))
    processor, own = AutoProcessor.from_pretrained(model), AutoModelForCTC.from_pretrained(model).eval()
    with torch.inference_mode():
        logits = own(**processor(sound / 32767, sampling_rate=RATE, return_tensors="pt")).logits
    assert heard == processor.batch_decode(logits.argmax(-1))[0].strip() != ""
    assert Listener(str(model), "cpu", offline=True)((RATE, np.stack([sound, sound], axis=1))) == heard  # in stereo


def test_samples_of_another_rate_keep_their_tone() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    heard = _mono((tone * 32767).astype(np.int16), 44_100, RATE)
    assert heard.shape == (RATE,) and heard.dtype == np.float32
    assert int(np.abs(np.fft.rfft(heard)).argmax()) == 440
    assert abs(float(np.abs(heard[2000:-2000]).max()) - 1) < 0.02


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no speech recognition model .* by the name .*nothing.* give --speech a hub id"):
        Listener(str(tmp_path / "nothing"), "cpu", offline=True)((RATE, np.zeros(100, np.int16)))
