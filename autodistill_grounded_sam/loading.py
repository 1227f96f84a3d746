"""Where a model runs, how exactly, and how it loads quietly; the one ground-floor module that knows torch, inside functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from autodistill_grounded_sam.errors import ConfigError

Precision = Literal["float32", "tf32", "bfloat16"]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without the progress bars of transformers while a model loads; afterwards they are as before."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    hub_was_quiet = are_progress_bars_disabled()  # transformers' switch turns the hub's along with its own
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if hub_was_quiet:
            disable_progress_bars()


def pick_device(device: str) -> str:
    """The device of this name; for `auto` the first that is here of cuda, mps and cpu."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(device: str) -> str:
    """As `pick_device`; raises ConfigError for a device that nothing can be put on here."""
    import torch

    picked = pick_device(device)
    try:
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:  # no driver, no such card, no such word; not built for it
        told = str(error).partition("\n")[0]
        raise ConfigError(f"device {device!r} cannot be used: {told}; `grounded-sam doctor` lists those that can") from error
    return picked


@contextmanager
def inference(device: str, precision: Precision) -> Iterator[None]:
    """Around a forward pass: no gradients, and products of matrices in this precision; what must be exact stays float32.

    `tf32` is for NVIDIA cards since Ampere and changes nothing elsewhere; `bfloat16` is torch's autocast.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    half = torch.autocast(device.partition(":")[0], torch.bfloat16) if precision == "bfloat16" else nullcontext()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    try:
        with torch.inference_mode(), half:
            yield
    finally:
        torch.set_float32_matmul_precision(before)
