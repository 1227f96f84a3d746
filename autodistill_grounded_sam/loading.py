"""What every adapter of transformers needs while a model loads; the one ground-floor module that knows it, inside functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
