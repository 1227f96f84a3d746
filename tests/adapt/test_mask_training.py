from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.adapt.examples import Example, read_labelled
from autodistill_grounded_sam.adapt.loss import mask_loss
from autodistill_grounded_sam.adapt.mask_training import held_iou, masked, save_segmenter, train_masks
from autodistill_grounded_sam.masks import boxes_xyxy, encode_mask
from autodistill_grounded_sam.segment.models import load
from autodistill_grounded_sam.segment.sam import Sam
from tests.adapt.adapt_kit import ONTOLOGY, painted


@pytest.fixture(scope="module")
def upper_halves(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Of every painted object only the upper half is the mask, its box that of the whole: something `mini` does not know."""
    folder = painted(tmp_path_factory.mktemp("painted"), 4)
    found = []
    for example in read_labelled(folder / "images", folder / "truth.json", ONTOLOGY).examples:
        halves = []
        for x1, y1, x2, y2 in example.xyxy.astype(int):
            mask = np.zeros((example.height, example.width), np.uint8)
            mask[y1 : (y1 + y2) // 2, x1:x2] = 1
            halves.append(encode_mask(mask))
        found.append(Example(**{**vars(example), "rle": tuple(halves)}))
    return found


def test_mask_loss__is_least_for_the_truth() -> None:
    truth = torch.zeros(1, 8, 8)
    truth[0, 2:6, 2:6] = 1
    right, empty, wrong = (torch.where(guess > 0, 9.0, -9.0) for guess in (truth, truth * 0, 1 - truth))
    ious = torch.ones(1), torch.zeros(1), torch.zeros(1)
    losses = [mask_loss(guess, iou, truth).item() for guess, iou in zip((right, empty, wrong), ious, strict=True)]
    assert losses[0] < 0.01 < 0.9 < losses[1] < losses[2]
    assert mask_loss(right, torch.zeros(1), truth).item() == pytest.approx(losses[0] + 0.5)  # the guess of the IoU is off by 1


def test_only_images_with_masks_take_part(upper_halves: list[Example]) -> None:
    boxes = Example(**{**vars(upper_halves[0]), "rle": None})
    assert masked([boxes, *upper_halves]) == upper_halves


def test_the_decoder_learns_another_kind_of_mask(upper_halves: list[Example], tmp_path: Path) -> None:
    model = load("mini")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = held_iou(model, upper_halves[3:], "cpu")
    model, looks = train_masks(model, upper_halves[:3], upper_halves[3:], steps=40, seed=0, device="cpu")
    assert looks[0] == (0, {"mask_iou": start}) and looks[-1][0] == 40
    best = max(figures["mask_iou"] for _, figures in looks)
    assert best > start + 0.05
    assert held_iou(model, upper_halves[3:], "cpu") == best
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"mask_decoder"}
    save_segmenter(model, tmp_path / "segmenter", "float32")
    assert held_iou(Sam(str(tmp_path / "segmenter"))._model, upper_halves[3:], "cpu") == pytest.approx(best, abs=1e-6)


def test_a_decoder_that_learns_nothing_good_is_not_kept(upper_halves: list[Example]) -> None:
    """Learnt on halves, measured on wholes: the parent's own decoder stays."""
    whole = []
    for example in upper_halves[3:]:
        masks = []
        for x1, y1, x2, y2 in example.xyxy.astype(int):
            mask = np.zeros((example.height, example.width), np.uint8)
            mask[y1:y2, x1:x2] = 1
            masks.append(encode_mask(mask))
        assert np.array_equal(boxes_xyxy(masks), example.xyxy)
        whole.append(Example(**{**vars(example), "rle": tuple(masks)}))
    model = load("mini")
    start = held_iou(model, whole, "cpu")
    model, looks = train_masks(model, upper_halves[:3], whole, steps=40, seed=0, device="cpu")
    assert looks[-1][1]["mask_iou"] < start - 0.05
    assert held_iou(model, whole, "cpu") >= start
