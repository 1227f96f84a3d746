"""Their own module under today's transformers, on the same weights as ours: skipped where the package is not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from autodistill_grounded_sam.detect.authors import AuthorsGroundingDino, bert_of_today, build
from autodistill_grounded_sam.detect.grounding_dino import GroundingDino
from autodistill_grounded_sam.errors import MissingExtraError
from tests.detect.test_official import HEADS
from tests.peers import peer

FILE = "groundingdino_tiny_official_fp16.pth"


def test_bert_of_today__a_mask_of_pairs_hides_what_it_hides() -> None:
    """What a token may not see does not change it; what it may see does; where it may see all, it is transformers' BERT."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    model = bert_of_today(config).eval()
    ids, other = torch.arange(1, 7)[None], torch.tensor([[1, 2, 3, 9, 9, 9]])
    pairs = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3))[None].bool()

    def seen(tokens: torch.Tensor, mask: torch.Tensor) -> Any:
        with torch.inference_mode():
            return model(tokens, mask, torch.zeros_like(tokens), torch.arange(6)[None])["last_hidden_state"]

    first, second = seen(ids, pairs), seen(other, pairs)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert (first[:, 3:] - second[:, 3:]).abs().max() > 1e-3
    plain = BertModel(config).eval()
    plain.load_state_dict(model.state_dict())
    with torch.inference_mode():
        expected = plain(ids).last_hidden_state
    torch.testing.assert_close(seen(ids, torch.ones(1, 6, 6, dtype=torch.bool)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.shared
def test_their_logits_and_boxes_and_ours_on_the_same_weights(shared: Path) -> None:
    peer("groundingdino")
    reference = shared / "reference" / "groundingdino_official"
    with np.load(reference / "expected.npz") as arrays:
        expected = dict(arrays)
    module = build(reference / FILE, HEADS)
    for case in (0, 1):
        ids = torch.from_numpy(expected[f"input_ids_{case}"])[None]
        with torch.inference_mode():
            answer = module(torch.from_numpy(expected[f"pixels_{case}"])[None], ids, torch.ones_like(ids))
        np.testing.assert_allclose(answer.logits[0, :, : ids.shape[1]].numpy(), expected[f"logits_{case}"], atol=1e-4)
        np.testing.assert_allclose(answer.pred_boxes[0].numpy(), expected[f"boxes_cxcywh_{case}"], atol=1e-5)
    settings: dict[str, Any] = {"config": HEADS, "tokenizer": str(reference / "bert"), "shorter_side_px": 200, "floor": 0.0}
    settings |= {"longer_side_px": 333, "prompt_groups": [["cat", "dog"]]}
    theirs, ours = (kind(f"{name}{reference / FILE}", **settings) for kind, name in (
        (AuthorsGroundingDino, "original:"), (GroundingDino, ""),
    ))  # fmt: skip
    for case in json.loads((reference / "case.json").read_text())["cases"]:
        image = np.asarray(Image.open(reference / case["image"]).convert("RGB"))
        prompts = case["caption"].removesuffix(" .").split(" . ")
        (first,), (second,) = theirs.detect([image], prompts), ours.detect([image], prompts)
        assert len(first) == len(second) > 10
        np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)
        np.testing.assert_allclose(first.xyxy, second.xyxy, atol=0.05)


def test_without_their_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "groundingdino":
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    torch.save({"model": {}}, tmp_path / "a.pth")
    with pytest.raises(MissingExtraError, match=r"pip install 'autodistill-grounded-sam\[original\]'"):
        AuthorsGroundingDino(f"original:{tmp_path / 'a.pth'}")
