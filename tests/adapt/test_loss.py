from __future__ import annotations

from math import exp, log
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_grounding_dino import GroundingDinoHungarianMatcher, GroundingDinoImageLoss

import autodistill_grounded_sam.adapt.loss as loss
from autodistill_grounded_sam.adapt.loss import Target, detector_loss, focal, match_cost, stage_loss

NEAR, FAR = [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_focal__by_hand() -> None:
    logits = torch.tensor([0.0, 0.0, 2.0, 2.0])
    p = 1 / (1 + exp(-2))
    right = [0.5 * 0.25 * log(2)] * 2 + [0.5 * (1 - p) ** 2 * -log(p), 0.5 * p**2 * -log(1 - p)]
    torch.testing.assert_close(focal(logits, torch.tensor([0.0, 1.0, 1.0, 0.0])), torch.tensor(right))


def test_match_cost__by_hand() -> None:
    """At logits of 0 naming costs nothing; a perfect box costs -2 (its GIoU), a box beside it its L1 and the hull between."""
    target = Target(tensor([1.0, 0.0]), tensor(NEAR))
    cost = match_cost(torch.zeros(2, 2), tensor(NEAR, [0.8, 0.5, 0.2, 0.2]), target)
    giou = 0 - (0.5 * 0.2 - 2 * 0.04) / (0.5 * 0.2)  # the hull is 0.5 wide, of which each box fills 0.2
    torch.testing.assert_close(cost, tensor([-2.0], [5 * 0.3 - 2 * giou]))


def test_match_cost__naming_is_over_the_own_tokens() -> None:
    target = Target(tensor([1.0, 1.0, 0.0]), tensor(NEAR))
    right, half, wrong = [4.0, 4.0, -4.0], [4.0, -4.0, -4.0], [-4.0, -4.0, 4.0]
    cost = match_cost(tensor(right, half, wrong), tensor(NEAR, NEAR, NEAR), target)[:, 0]
    assert cost[0] < cost[1] < cost[2]
    torch.testing.assert_close(cost[1], (cost[0] + cost[2]) / 2)  # the mean over its two tokens


def test_stage_loss__by_hand() -> None:
    """Two queries, one object on the first: one token is wanted of four logits, and the box is off by 0.1 in x."""
    target = Target(tensor([1.0, 0.0]), tensor(NEAR))
    boxes = tensor([0.6, 0.5, 0.2, 0.2], FAR)[None]
    naming = 4 * 0.5 * 0.25 * log(2)
    giou = (0.02 / 0.06) - 0  # side by side the hull is their union
    wanted = 2 * naming + 5 * 0.1 + 2 * (1 - giou)
    assert stage_loss(torch.zeros(1, 2, 2), boxes, [target], many=False).item() == pytest.approx(wanted, rel=1e-5)


def test_stage_loss__an_image_without_objects_only_silences() -> None:
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    nothing = Target(torch.zeros(0, 2), torch.zeros(0, 4))
    for many in (False, True):
        (gradient,) = torch.autograd.grad(stage_loss(logits, tensor(NEAR, NEAR, FAR)[None], [nothing], many), logits)
        assert (gradient > 0).all()


def test_stage_loss__images_of_a_batch_are_matched_apart() -> None:
    """Tokens of one image are never those of another: the sum over the batch is that of its images."""
    generator = torch.Generator().manual_seed(3)
    logits, boxes = torch.randn(3, 5, 6, generator=generator), torch.rand(3, 5, 4, generator=generator) * 0.3 + 0.3
    targets = []
    for objects in (2, 0, 3):
        tokens = torch.eye(6)[torch.randint(6, (objects,), generator=generator)]
        targets.append(Target(tokens, torch.rand(objects, 4, generator=generator) * 0.3 + 0.3))
    whole = stage_loss(logits, boxes, targets, many=False) * 5
    parts = [stage_loss(logits[k : k + 1], boxes[k : k + 1], [targets[k]], many=False) for k in range(3)]
    torch.testing.assert_close(whole, 2 * parts[0] + parts[1] + 3 * parts[2])


def test_stage_loss__more_objects_than_queries() -> None:
    targets = [Target(torch.ones(4, 1), torch.rand(4, 4) * 0.2 + 0.4)]
    assert torch.isfinite(stage_loss(torch.zeros(1, 2, 1), torch.full((1, 2, 4), 0.4), targets, many=False))
    assert torch.isfinite(stage_loss(torch.zeros(1, 2, 1), torch.full((1, 2, 4), 0.4), targets, many=True))


def test_stage_loss__many_teaches_the_cells_inside() -> None:
    """Of six cells five have their centre in the object: the four cheapest are taught to speak, the others to be silent."""
    boxes = tensor(*[[0.45 + 0.02 * k, 0.5, 0.2, 0.2] for k in range(5)], FAR)[None]
    logits = torch.zeros(1, 6, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(stage_loss(logits, boxes, [Target(torch.ones(1, 1), tensor(NEAR))], many=True), logits)
    assert (gradient[0, :, 0] < 0).tolist() == [False, True, True, True, True, False]  # the first is the farthest


def test_stage_loss__equals_transformers_where_all_prompts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One phrase map for the whole batch is where theirs is right; same matching, same three terms."""
    monkeypatch.setattr(loss, "FOCAL_ALPHA", 0.25)
    generator = torch.Generator().manual_seed(5)
    logits, boxes = torch.randn(2, 7, 6, generator=generator), torch.rand(2, 7, 4, generator=generator) * 0.3 + 0.3
    phrases = tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    labels = [torch.tensor([0, 1, 1]), torch.tensor([0, 0])]
    truth = [torch.rand(len(label), 4, generator=generator) * 0.3 + 0.3 for label in labels]
    outputs = {
        "logits": logits, "pred_boxes": boxes, "label_maps": (phrases,),
        "text_mask": torch.ones(2, 7, 6, dtype=torch.bool),
    }  # fmt: skip
    theirs_of = GroundingDinoImageLoss(
        GroundingDinoHungarianMatcher(class_cost=2.0, bbox_cost=5.0, giou_cost=2.0), 0.25, ["labels", "boxes"]
    )
    # Their offset is wrong for a second map; in one image there is none.
    total = 0.0
    for k in range(2):
        one = {name: value[k : k + 1] for name, value in outputs.items() if name != "label_maps"} | {"label_maps": (phrases,)}
        parts = theirs_of(one, [{"class_labels": labels[k], "boxes": truth[k]}])
        total += (2 * parts["loss_ce"] + 5 * parts["loss_bbox"] + 2 * parts["loss_giou"]) * len(labels[k])
    ours = stage_loss(logits, boxes, [Target(phrases[of], box) for of, box in zip(labels, truth, strict=True)], many=False)
    torch.testing.assert_close(ours, total / 5)


def test_detector_loss__sums_first_stage_and_every_layer() -> None:
    """A model of one stage has no first-stage term; each layer's boxes start from those of the layer before."""
    hidden, text = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4)
    model = SimpleNamespace(
        bbox_embed=[lambda states: torch.zeros(*states.shape[:2], 4)] * 2,
        class_embed=[lambda states, words, mask: torch.full((1, 3, 256), float("-inf")).index_fill(2, torch.arange(2), 0.0)] * 2,
    )
    first, second = torch.tensor([[NEAR, FAR, FAR]]), torch.tensor([[FAR, NEAR, FAR]])
    outputs = SimpleNamespace(
        encoder_last_hidden_state_text=text, enc_outputs_class=None, enc_outputs_coord_logits=None, init_reference_points=first,
        intermediate_hidden_states=hidden, intermediate_reference_points=torch.stack([second, first], dim=1),
    )  # fmt: skip
    target = [Target(tensor([1.0, 0.0]), tensor(NEAR))]
    each = stage_loss(torch.zeros(1, 3, 2), first, target, many=False)
    torch.testing.assert_close(detector_loss(model, outputs, 2, target), 2 * each, rtol=1e-4, atol=1e-5)
    outputs.enc_outputs_class = torch.zeros(1, 3, 256)
    outputs.enc_outputs_coord_logits = torch.full((1, 3, 4), float("inf"))  # as cells at the edge propose
    assert torch.isfinite(detector_loss(model, outputs, 2, target))
