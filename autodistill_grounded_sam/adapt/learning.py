"""A step of training, and the running mean of the weights that is kept: the same here and where `mini` is made."""

from __future__ import annotations

import torch
from torch import nn

LARGEST_GRADIENT = 5.0  # norm over all parameters; a batch with a rare class jumps to several times that


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step down `loss`, its gradient clipped to `LARGEST_GRADIENT`."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], LARGEST_GRADIENT)
    optimiser.step()


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the weights of `mean` towards those of `model`; `keep` is the share of the old ones that stays."""
    for slow, quick in zip(mean.parameters(), model.parameters(), strict=True):
        slow.lerp_(quick, 1 - keep)
