"""Our mask decoder against transformers' own, on the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SamConfig, SamModel

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.segment import decoder as decoder_module
from autodistill_grounded_sam.segment.decoder import MaskDecoder
from tests.segment.conftest import randomised


def model(**decoder: Any) -> Any:
    sizes = {"image_size": 96, "patch_size": 8}
    config = SamConfig(
        vision_config={
            **sizes, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16, "output_channels": 32,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={**sizes, "hidden_size": 32},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": 24, **decoder,
        },
    )  # fmt: skip
    return randomised(SamModel(config), seed=5)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])  # as on a CPU, as on a GPU
@pytest.mark.parametrize("guess", ["single", "best-of-three"])
@pytest.mark.parametrize("boxes", [1, 3])
@pytest.mark.parametrize(
    "decoder",
    [{}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"attention_downsample_rate": 1}, {"iou_head_depth": 2}],
    ids=lambda decoder: "-".join(decoder) or "plain",
)
def test_equals_transformers(
    decoder: dict[str, Any], boxes: int, guess: MaskGuess, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:
        monkeypatch.setattr(MaskDecoder, "_parts", lambda self, boxes: [slice(None)])
    monkeypatch.setattr(decoder_module, "BLOCK_CELLS", 50)  # blocks of cells that do not come out even
    sam, random = model(**decoder), torch.Generator().manual_seed(boxes)
    embedding = torch.randn((32, 12, 12), generator=random)
    corners = torch.rand((boxes, 2, 2), generator=random).sort(dim=1).values.flatten(1) * 96
    ours = MaskDecoder(sam)
    with torch.inference_mode():
        answer = sam(image_embeddings=embedding[None], input_boxes=corners[None], multimask_output=guess == "best-of-three")
        best = answer.iou_scores[0].argmax(dim=1)
        expected = answer.pred_masks[0, range(boxes), best]
        logits, iou = ours.decode(ours.see(embedding), corners, guess)
    assert expected.std() > 0.1, "random weights gave a constant mask: this test would prove nothing"
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, answer.iou_scores[0, range(boxes), best], atol=1e-5, rtol=1e-4)


def test_boxes_do_not_change_each_other() -> None:
    sam, random = model(), torch.Generator().manual_seed(9)
    ours, embedding = MaskDecoder(sam), torch.randn((32, 12, 12), generator=random)
    boxes = torch.tensor([[4.0, 5, 60, 70], [30, 30, 90, 80], [0, 0, 96, 96]])
    with torch.inference_mode():
        image = ours.see(embedding)
        together, _ = ours.decode(image, boxes, "single")
        for row in range(3):
            alone, _ = ours.decode(image, boxes[row : row + 1], "single")
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
