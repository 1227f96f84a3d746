"""The loop: views and captions in, the running mean of the weights out, watched on images that are held out.

Every step draws from its own seed and the schedule is fixed at the start, so a run that was killed goes on as if nothing had
happened.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from autodistill_grounded_sam.adapt.captions import Asked, Captions
from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.adapt.learning import descend, follow
from autodistill_grounded_sam.adapt.loss import Target, detector_loss
from autodistill_grounded_sam.adapt.measuring import average_precision_of
from autodistill_grounded_sam.adapt.recipe import Recipe
from autodistill_grounded_sam.adapt.views import Pictures, View, draw_view
from autodistill_grounded_sam.detect.grounding_dino import MOST_TOKENS, GroundingDino, Loaded, enough_cells
from autodistill_grounded_sam.ontology import Ontology

logger = logging.getLogger(__name__)

LOOKS = 12  # times that the held-out images are looked at
PATIENCE = 5  # looks without a better AP before learning stops
# By how much AP of one held-out image differs between weights that are equally good; of n images it is 1 / sqrt(n) of this.
# Of two weights within it the later ones are kept, which have seen more: AP of two images of blood cells went from 0.53 down
# to 0.40 while AP of 254 others stayed at 0.46, and of one image of boards it was 0 while that of others rose from 0.09 to
# 0.24 (docs/real.md).
SCATTER = 0.2
WARM_UP_STEPS, FLAT_SHARE = 50, 0.4
TIMED_STEPS = 8  # by which minutes are turned into steps; the first of them is not counted
SAVE_SECONDS = 30.0  # what a kill costs at most


# Called with (step, steps, figures) after each look at the held-out images; without any of these the loss is the one figure.
OnLook = Callable[[int, int, Mapping[str, float]], None]


@dataclass
class State:
    """All that changes while learning, and is saved: `steps` 0 while they are not planned yet; `looks` are (step, figures)."""

    step: int = 0
    steps: int = 0
    looks: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_look: int = 0


class Training:
    """A model that learns from `examples`; `run` returns when it is done, with the best weights in `mean`."""

    def __init__(
        self,
        loaded: Loaded,
        examples: Sequence[Example],
        held: Sequence[Example],
        ontology: Ontology,
        recipe: Recipe,
        device: str,
    ) -> None:
        self._model, self._tokenizer, self._inputs = loaded
        self._held, self._ontology, self._recipe, self._device = held, ontology, recipe, device
        self._pictures = Pictures(examples, recipe.shorter_side_px)
        limit = min(self._model.config.max_text_len, MOST_TOKENS)
        taught = sorted({int(class_id) for example in examples for class_id in example.class_id})
        self._captions = Captions(ontology, taught, self._tokenizer, limit)
        self._model.to(device)
        slow, fast = _groups(self._model, recipe.frozen)
        self._shares = (1.0, recipe.backbone_share)
        self._optimiser = torch.optim.AdamW(
            [{"params": fast}, {"params": slow}], lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
        )
        self.mean = copy.deepcopy(self._model).eval()
        self.state = State()

    def run(self, unfinished: Path, on_look: OnLook | None = None) -> None:
        """Learn to the end, from where `unfinished` (a file of an earlier run) left off if it is there."""
        if unfinished.is_file():
            self._restore(torch.load(unfinished, map_location=self._device, weights_only=True))
        state = self.state
        if not state.steps:
            started = time.monotonic()
            self._look(0.0, on_look)
            state.steps = self._recipe.steps or self._plan(LOOKS * (time.monotonic() - started))
            self._save(unfinished)
        saved, losses = time.monotonic(), []
        while state.step < state.steps and not self._stopped():
            losses.append(self._step(state.step, state.steps))
            state.step += 1
            if state.step * LOOKS // state.steps != (state.step - 1) * LOOKS // state.steps:
                self._look(float(np.mean(losses)), on_look)
                losses = []
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(unfinished)
                saved = time.monotonic()
        if state.best:
            self.mean.load_state_dict(state.best)

    def loss_of_step(self, step: int) -> Tensor:
        """The loss of the batch that belongs to this step, with its gradient to come."""
        rng = np.random.default_rng((self._recipe.seed, step))
        torch.manual_seed(int(rng.integers(2**31)))  # dropout, where a model has any
        views = self._views(rng)
        asked = self._captions.draw(rng, np.concatenate([view.class_id for view in views]))
        ids = asked.input_ids.to(self._device).expand(len(views), -1)
        pixels = self._inputs.normalised(torch.stack([view.pixels for view in views]).to(self._device))
        outputs = self._model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        return detector_loss(self._model, outputs, asked.tokens, [self._target(view, asked) for view in views])

    def _views(self, rng: np.random.Generator) -> list[View]:
        """A batch of views of one size: that which detection gives to one of the examples."""
        example = self._pictures.examples[int(rng.integers(len(self._pictures.examples)))]
        size = enough_cells(self._model.config, *self._inputs.size(example.width, example.height))
        return [draw_view(rng, self._pictures, size, self._recipe.turns) for _ in range(self._recipe.batch)]

    def _target(self, view: View, asked: Asked) -> Target:
        tokens = asked.class_tokens[view.class_id]
        wanted = tokens.any(1)
        boxes = box_convert(torch.from_numpy(view.boxes), "xyxy", "cxcywh")
        return Target(tokens[wanted].to(self._device), boxes[wanted].to(self._device))

    def _step(self, step: int, steps: int) -> float:
        share = step / steps
        rate = min(1, (step + 1) / max(1, min(WARM_UP_STEPS, steps // 5))) * min(1, (1 - share) / (1 - FLAT_SHARE))
        for group, own in zip(self._optimiser.param_groups, self._shares, strict=True):
            group["lr"] = self._recipe.learning_rate * own * rate
        self._model.train()
        loss = self.loss_of_step(step)
        descend(self._optimiser, loss)
        follow(self.mean, self._model, min(0.998, (1 + step) / (10 + step)))
        return loss.item()

    def _plan(self, look_seconds: float) -> int:
        """How many steps fit into the minutes beside the looks: timed on the first batches, of which nothing is learnt."""
        self._model.train()
        for step in range(TIMED_STEPS):
            if step == 1:
                started = time.monotonic()
            self.loss_of_step(step).backward()  # type: ignore[no-untyped-call]
        self._optimiser.zero_grad()
        each = (time.monotonic() - started) / (TIMED_STEPS - 1)
        return max(LOOKS, int(((self._recipe.minutes or 0) * 60 - look_seconds) / each))

    def _look(self, loss: float, on_look: OnLook | None) -> None:
        state = self.state
        figures = {"loss": loss}
        if self._held:
            detector = GroundingDino("adapting", device=self._device, loaded=Loaded(self.mean, self._tokenizer, self._inputs))
            figures |= average_precision_of(detector, self._held, self._ontology)
            best = max((past["AP"] for _, past in state.looks), default=0.0)
            if figures["AP"] >= best - SCATTER / sqrt(len(self._held)):
                state.best_look = len(state.looks)
                state.best = {name: value.clone() for name, value in self.mean.state_dict().items()}
        state.looks.append((state.step, figures))
        logger.info("step %d of %d: %s", state.step, state.steps, figures)
        if on_look is not None:
            on_look(state.step, state.steps, figures)

    def _stopped(self) -> bool:
        """Whether the held-out images have been found no better for `PATIENCE` looks, in a run past its flat part."""
        state = self.state
        return bool(self._held) and len(state.looks) > LOOKS * FLAT_SHARE + PATIENCE and (
            len(state.looks) - 1 - state.best_look >= PATIENCE
        )  # fmt: skip

    def _save(self, unfinished: Path) -> None:
        state = self.state
        content = {
            "step": state.step, "steps": state.steps, "looks": state.looks, "best": state.best, "best_look": state.best_look,
            "model": self._model.state_dict(), "mean": self.mean.state_dict(), "optimiser": self._optimiser.state_dict(),
        }  # fmt: skip
        partial = unfinished.with_suffix(".partial")
        torch.save(content, partial)
        partial.replace(unfinished)

    def _restore(self, content: Mapping[str, Any]) -> None:
        self._model.load_state_dict(content["model"])
        self.mean.load_state_dict(content["mean"])
        self._optimiser.load_state_dict(content["optimiser"])
        names = ("step", "steps", "looks", "best", "best_look")
        self.state = State(**{name: content[name] for name in names})


def _groups(model: Any, frozen: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of the backbone, and all others that learn; those of `frozen` modules get no gradient."""
    slow: list[Tensor] = []
    fast: list[Tensor] = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
        if parameter.requires_grad:
            (slow if "backbone.conv_encoder" in name or "sampling_offsets" in name else fast).append(parameter)
    return slow, fast
