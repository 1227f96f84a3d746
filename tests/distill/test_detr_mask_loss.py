"""The loss for masks is transformers' own, matched an image at a time; and what it takes that theirs does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.loss import loss_rf_detr

from autodistill_grounded_sam.distill.detr_models import model_to_train
from autodistill_grounded_sam.distill.detr_training import Target, loss_of

SIDE = 64


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return model_to_train("rf-detr-seg-mini", ["a", "b"], SIDE, offline=True).model.train()


def target(boxes: list[list[float]]) -> Target:
    """Objects that fill their boxes (cxcywh as shares)."""
    masks = torch.zeros(len(boxes), SIDE, SIDE)
    for place, (x, y, w, h) in enumerate(boxes):
        masks[place, int((y - h / 2) * SIDE) : int((y + h / 2) * SIDE), int((x - w / 2) * SIDE) : int((x + w / 2) * SIDE)] = 1
    labels = torch.arange(len(boxes)) % 2
    return {"class_labels": labels, "boxes": torch.tensor(boxes).reshape(-1, 4), "masks": masks}


FULL, EMPTY = target([[0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5]]), target([])


def pixels(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def test_of_one_image_it_is_transformers_own(model: Any) -> None:
    torch.manual_seed(5)
    ours = loss_of(model, pixels(1), [FULL])
    model.loss_function = loss_rf_detr.RfDetrForSegmentationLoss
    torch.manual_seed(5)
    theirs = model(pixel_values=pixels(1), labels=[FULL]).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_points_do_not_grow_with_the_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: with transformers' own matcher a batch of 4 takes 4 times the points, for 4 times the queries."""
    drawn: list[int] = []
    sample = loss_rf_detr.sample_point

    def noted(features: Any, points: Any, **settings: Any) -> Any:
        drawn.append(features.shape[0] * points.shape[1])
        return sample(features, points, **settings)

    monkeypatch.setattr(loss_rf_detr, "sample_point", noted)
    most = []
    for count in (1, 4):
        drawn.clear()
        loss_of(model, pixels(count), [FULL] * count)
        most.append(max(drawn))
    assert most[0] == most[1]
    model.loss_function = loss_rf_detr.RfDetrForSegmentationLoss
    drawn.clear()
    model(pixel_values=pixels(4), labels=[FULL] * 4)
    assert max(drawn) == 16 * most[0], "transformers is mended: take its own loss again"


def test_an_image_without_objects_beside_others(model: Any) -> None:
    loss = loss_of(model, pixels(2), [EMPTY, FULL])
    assert torch.isfinite(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", ["rf-detr-mini", "rf-detr-seg-mini", "d-fine-mini", "rt-detr-mini"])
def test_all_that_learns_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = model_to_train(name, ["a", "b"], SIDE, offline=True).model.train()
    for seed in range(2):  # in the first step heads whose last layer is zero pass none on
        torch.manual_seed(seed)
        model.zero_grad()
        loss_of(model, pixels(2), [FULL, FULL]).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= 1e-3 * weight.grad.sign()
    silent = {
        n for n, weight in model.named_parameters() if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    }
    assert {name for name in silent if "mask_token" not in name} == set()
