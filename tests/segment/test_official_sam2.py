"""SAM 2's own files: the authors' code and ours give the same masks, and no tensor of the image half goes unaccounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.config import MaskGuess
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.masks import decode_mask, encode_mask, mask_iou
from autodistill_grounded_sam.segment import official_sam2
from autodistill_grounded_sam.segment.official import load_official
from autodistill_grounded_sam.segment.official_sam2 import LAYOUTS, Layout
from autodistill_grounded_sam.segment.sam import Sam
from autodistill_grounded_sam.types import Candidates
from tests.peers import peer
from tests.segment.conftest import randomised

SIZES = {"t": 309, "s": 357, "b+": 453, "l": 741}  # tensors of the image half
TINY = ["embed_dim=16", "stages=[1,2,2,1]", "global_att_blocks=[4]"]
TINY_LAYOUT = {(16, (1, 2, 2, 1)): Layout(1, (8, 4, 14, 7), (4,))}


def authors_model(config: str, *changes: str, device: str = "cpu") -> Any:
    """A model of the authors' code with random weights."""
    peer("sam2")
    from sam2.build_sam import build_sam2

    return build_sam2(f"configs/{config}.yaml", None, device=device, hydra_overrides_extra=[f"++model.{c}" for c in changes])


@pytest.fixture(scope="module")
def tiny() -> Any:
    changes = [f"image_encoder.trunk.{change}" for change in TINY]
    return randomised(  # of the seeds tried, the first whose masks fill about half
        authors_model("sam2.1/sam2.1_hiera_t", *changes, "image_encoder.neck.backbone_channel_list=[128,64,32,16]"), 2
    )


@pytest.fixture(scope="module")
def tiny_file(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tiny.state_dict()}, path)
    return path


@pytest.mark.parametrize("config", ["sam2.1/sam2.1_hiera_t", "sam2.1/sam2.1_hiera_s", "sam2.1/sam2.1_hiera_b+",
                                    "sam2.1/sam2.1_hiera_l", "sam2/sam2_hiera_t"])  # fmt: skip
def test_every_released_size_is_mapped_name_by_name(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Sam2Model

    linspace = torch.linspace
    monkeypatch.setattr(torch, "linspace", lambda *numbers, **settings: linspace(*numbers, **{**settings, "device": "cpu"}))
    with torch.device("meta"):  # shapes alone
        state = {
            key: value
            for key, value in authors_model(config, device="meta").state_dict().items()
            if not official_sam2._OF_VIDEO.match(key)
        }
        ours = Sam2Model(official_sam2.config_of(state, Path("sam2.pt"))).state_dict()
        renamed = official_sam2.names_of_transformers(state)
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in ours.items()}
    assert len(renamed) == SIZES[config.rpartition("_")[2]]


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("guess", ["single", "best-of-three"])
def test_equals_the_authors_predictor_on_real_photographs(
    tiny: Any, tiny_file: Path, shared: Path, guess: MaskGuess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    monkeypatch.setattr(official_sam2, "LAYOUTS", LAYOUTS | TINY_LAYOUT)
    predictor, sam = SAM2ImagePredictor(tiny), Sam(str(tiny_file), mask_guess=guess)
    truth = json.loads((shared / "data" / "coco_ccby" / "annotations.json").read_text())
    ious: list[float] = []
    for record in truth["images"][:12:3]:
        xywh = [a["bbox"] for a in truth["annotations"] if a["image_id"] == record["id"]]
        if not xywh:
            continue
        xyxy = np.array([[x, y, x + width, y + height] for x, y, width, height in xywh], np.float32)
        image = np.asarray(Image.open(shared / "data" / "coco_ccby" / "images" / record["file_name"]).convert("RGB"))
        predictor.set_image(image)
        (found,) = sam.segment([image], [Candidates(xyxy, np.ones((len(xyxy), 1), np.float32))])
        for box, ours, score in zip(xyxy, found.rle or (), found.mask_score, strict=True):
            masks, iou, _ = predictor.predict(box=box, multimask_output=guess == "best-of-three")
            ious.append(mask_iou(ours, encode_mask(masks[iou.argmax()].astype(np.uint8))))
            assert abs(score - iou.max()) < 1e-3
        assert 0.01 < np.mean([decode_mask(code).mean() for code in found.rle or ()]) < 0.99, "trivial masks prove nothing"
    print(f"{guess}: {len(ious)} boxes, mean IoU {np.mean(ious):.7f}, lowest {min(ious):.6f}")
    assert len(ious) > 8 and np.mean(ious) >= 0.9999 and min(ious) >= 0.995


def test_another_size_is_refused_in_words(tiny_file: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"not an official checkpoint of SAM 2 \(tiny, small, .*looked for \(16, \(1, 2, 2, 1\)\)"
    ):
        load_official(tiny_file)


def test_a_missing_tensor_is_named(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_sam2, "LAYOUTS", TINY_LAYOUT)
    state = dict(tiny.state_dict())
    del state["no_mem_embed"]
    torch.save(state, tmp_path / "sam2.pt")
    with pytest.raises(WeightsError, match=r"does not fit SAM, SAM-HQ or SAM 2 .*\n  1 missing: no_memory_embedding"):
        load_official(tmp_path / "sam2.pt")
