"""The loop: views of labelled images in, the running mean of the weights out, watched on the validation split.

Every step draws from its own seed and the schedule is fixed at the start, so a run that was killed goes on as if nothing had
happened.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from autodistill_grounded_sam.distill.detr_answers import answer, predicted
from autodistill_grounded_sam.distill.detr_dataset import TrainingSet, read_pixels
from autodistill_grounded_sam.distill.detr_models import Detr
from autodistill_grounded_sam.distill.detr_recipe import Recipe
from autodistill_grounded_sam.distill.detr_views import View, draw_view
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.evaluate.average_precision import Kind, average_precision
from autodistill_grounded_sam.evaluate.matching import Objects, Pair
from autodistill_grounded_sam.protocols import OnEpoch
from autodistill_grounded_sam.types import DatasetImage

logger = logging.getLogger(__name__)

LOOKS = 25  # times at most that the validation split is looked at
SAVE_SECONDS = 30.0  # what a kill costs at most
FLAT_SHARE = 0.4  # of the steps are taken at the full rate before it falls to 0
MOST_WARM_UP_STEPS = 500
MOST_KEPT = 0.998  # of the mean's old weights, each step
LOOK_CONFIDENCE = 0.001  # AP ranks every detection
MOST_BROKEN = 20  # steps in a row without a finite loss, before training gives up
AHEAD = 3  # batches that are drawn while one is learnt


Target = dict[str, Tensor]  # class_labels (n,), boxes (n, 4) cxcywh as shares, masks (n, side, side) where they are learnt


@dataclass
class State:
    """All that changes while learning, beside the weights, and is saved; `history` is (epoch, figures) of each look."""

    step: int = 0
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    broken: int = 0


class Training:
    """A model that learns a training set; after `run` `mean` holds the last weights and `state.best` the best."""

    def __init__(self, detr: Detr, data: TrainingSet, recipe: Recipe, device: str) -> None:
        self._detr, self._data, self._recipe, self._device = detr, data, recipe, device
        self._model = detr.model.to(device)
        self._per_epoch = math.ceil(len(data.train) / recipe.batch)
        self.steps = self._per_epoch * recipe.epochs
        groups = _groups(self._model, recipe)
        self._rates = [group["lr"] for group in groups]
        self._optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        self.mean = detr._replace(model=copy.deepcopy(self._model).eval())
        self.state = State()

    def run(self, unfinished: Path, on_epoch: OnEpoch | None = None) -> None:
        """Learn to the end, from where `unfinished` (a file of an earlier run) left off if it is there."""
        if unfinished.is_file():
            self._restore(torch.load(unfinished, map_location=self._device, weights_only=True))
        saved, losses = time.monotonic(), []
        with ThreadPoolExecutor(AHEAD) as pool:
            for views in _ahead(pool, self._views, range(self.state.step, self.steps)):
                losses.append(self._learn(self.state.step, views))
                self.state.step += 1
                if self.state.step % self._per_epoch == 0:
                    self._end_epoch(self.state.step // self._per_epoch, _mean(losses), on_epoch)
                    losses = []
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save(unfinished)
                    saved = time.monotonic()

    def _views(self, step: int) -> list[View]:
        """The batch of a step: the images of an epoch in a random order, each drawn from a seed of its own."""
        epoch, place = divmod(step, self._per_epoch)
        recipe, images = self._recipe, self._data.train
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(images))
        chosen = order[place * recipe.batch : (place + 1) * recipe.batch]
        return [
            draw_view(
                np.random.default_rng((recipe.seed, epoch, int(index))), images[index], self._detr.inputs,
                masks=self._detr.makes_masks, mirror=recipe.mirror,
            )
            for index in chosen
        ]  # fmt: skip

    def _learn(self, step: int, views: Sequence[View]) -> float:
        """One step; returns its loss, nan where there was nothing to learn from."""
        if not any(len(view.class_id) for view in views):
            return math.nan
        torch.manual_seed(int(np.random.default_rng((self._recipe.seed, step)).integers(2**31)))  # dropout, noise, points
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * _share_of_rate(step, self.steps)
        self._model.train()
        pixels = torch.from_numpy(np.stack([view.pixels for view in views])).permute(0, 3, 1, 2).to(self._device)
        loss = loss_of(self._model, self._detr.inputs.normalised(pixels), [self._target(view) for view in views])
        self._optimiser.zero_grad()
        if not self._is_finite(loss):
            return math.nan
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.largest_gradient)
        self._optimiser.step()
        _follow(self.mean.model, self._model, min(MOST_KEPT, (1 + step) / (10 + step)))
        return loss.item()

    def _is_finite(self, loss: Tensor) -> bool:
        """Whether a step can be taken. RF-DETR's loss is the logarithm of a probability, which can round to 0."""
        if bool(torch.isfinite(loss)):
            self.state.broken = 0
            return True
        self.state.broken += 1
        if self.state.broken >= MOST_BROKEN:
            raise ConfigError(
                f"training fell apart: no finite loss in {MOST_BROKEN} steps; take a lower --set lr={self._recipe.lr:g}"
            )
        return False

    def _target(self, view: View) -> Target:
        target = {
            "class_labels": torch.from_numpy(view.class_id.astype(np.int64)),
            "boxes": box_convert(torch.from_numpy(view.boxes), "xyxy", "cxcywh"),
        }
        if view.masks is not None:
            target["masks"] = torch.from_numpy(np.ascontiguousarray(view.masks)).float()
        return {name: value.to(self._device) for name, value in target.items()}

    def _end_epoch(self, epoch: int, loss: float, on_epoch: OnEpoch | None) -> None:
        state, epochs = self.state, self._recipe.epochs
        figures: dict[str, float] = {}
        if self._recipe.val and (epoch * LOOKS // epochs != (epoch - 1) * LOOKS // epochs or epoch == epochs):
            figures = average_precision_of(self.mean, self._data.valid, len(self._data.class_names))
            figure = "mask_AP" if self._detr.makes_masks else "box_AP"
            if figures.get(figure, 0.0) >= max((past.get(figure, 0.0) for _, past in state.history), default=0.0):
                state.best_epoch = epoch
                state.best = {name: value.clone() for name, value in self.mean.model.state_dict().items()}
            state.history.append((epoch, figures))
        logger.info("epoch %d/%d loss %.4f %s", epoch, epochs, loss, figures)
        if on_epoch is not None:
            on_epoch(epoch, epochs, {"loss": loss, **figures})

    def _save(self, unfinished: Path) -> None:
        content = {
            "state": vars(self.state), "model": self._model.state_dict(), "mean": self.mean.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }  # fmt: skip
        partial = unfinished.with_suffix(".partial")
        torch.save(content, partial)
        partial.replace(unfinished)

    def _restore(self, content: Mapping[str, Any]) -> None:
        self._model.load_state_dict(content["model"])
        self.mean.model.load_state_dict(content["mean"])
        self._optimiser.load_state_dict(content["optimiser"])
        self.state = State(**content["state"])


def loss_of(model: Any, pixels: Tensor, targets: Sequence[Target]) -> Tensor:
    """The loss of a batch that holds at least one object (without any, transformers' matchers raise)."""
    if type(model).__name__ == "RfDetrForInstanceSegmentation":
        from autodistill_grounded_sam.distill.detr_mask_loss import mask_loss

        model.loss_function = mask_loss
    loss: Tensor = model(pixel_values=pixels, labels=list(targets)).loss
    return loss


def average_precision_of(detr: Detr, images: Sequence[DatasetImage], classes: int) -> dict[str, float]:
    """AP and AP50 of boxes, and of masks where the model makes them; none where no image holds an object."""
    pairs = [Pair(image.name, image.width, image.height, _truth(image), _seen(detr, image)) for image in images]
    kinds: tuple[Kind, ...] = ("box", "mask") if detr.makes_masks else ("box",)
    found = {kind: average_precision(pairs, classes, kind).overall for kind in kinds}
    return {
        f"{kind}_{name}": round(figures[name], 5)
        for kind, figures in found.items()
        for name in ("AP", "AP50")
        if not math.isnan(figures[name])
    }


def _truth(image: DatasetImage) -> Objects:
    objects = Objects.of(image.class_id, image.xyxy)
    rle = image.rle if len(objects) else ()
    return replace(objects, rle=rle, crowd=objects.crowd if image.crowd is None else image.crowd)


def _seen(detr: Detr, image: DatasetImage) -> Objects:
    pixels, places = read_pixels(image), [str(place) for place in range(len(detr.classes))]
    seen = predicted(answer(detr, pixels), pixels, places, LOOK_CONFIDENCE, image.name)
    objects = Objects.of(np.array([int(place) for place in seen.class_names], np.int32), seen.xyxy, seen.scores)
    return objects if seen.rles is None else replace(objects, rle=tuple(seen.rles))


def _mean(losses: Sequence[float]) -> float:
    known = [loss for loss in losses if not math.isnan(loss)]
    return sum(known) / len(known) if known else math.nan


def _share_of_rate(step: int, steps: int) -> float:
    """Of the full rate: up over the first steps, flat, then down to 0."""
    warm_up = min(1.0, (step + 1) / max(1, min(MOST_WARM_UP_STEPS, steps // 10)))
    return warm_up * min(1.0, (1 - step / steps) / (1 - FLAT_SHARE))


def _groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters by rate and decay: the backbone apart, and what has one dimension (biases, norms) without decay."""
    rows: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            backbone = ".backbone.backbone." in f".{name}" or ".backbone.model." in f".{name}"
            rows.setdefault((backbone, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr * (recipe.backbone_share if backbone else 1.0),
            **({} if decays else {"weight_decay": 0.0}),
        }
        for (backbone, decays), parameters in sorted(rows.items(), key=lambda row: row[0])
    ]


@torch.no_grad()
def _follow(mean: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the weights and statistics of `mean` towards those of `model`; `keep` is the share of the old ones that stays."""
    for slow, quick in zip([*mean.parameters(), *mean.buffers()], [*model.parameters(), *model.buffers()], strict=True):
        if slow.is_floating_point():
            slow.lerp_(quick, 1 - keep)
        else:
            slow.copy_(quick)


def _ahead(pool: ThreadPoolExecutor, make: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """`make(step)` of each step in order, the next `AHEAD` being made in threads."""
    waiting: list[Future[Any]] = []
    for step in steps:
        waiting.append(pool.submit(make, step))
        if len(waiting) > AHEAD:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
