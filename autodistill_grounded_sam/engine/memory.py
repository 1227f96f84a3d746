"""A device's memory that runs full: ask a model in pieces that fit, and remember how large those are."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from autodistill_grounded_sam.errors import PluginError
from autodistill_grounded_sam.types import Candidates

logger = logging.getLogger(__name__)

Ask = Callable[[Sequence[int]], list[Candidates]]


class OutOfMemoryError(RuntimeError):
    """One image alone fills the memory of the device. Holds no traceback of the model, whose frames would keep that memory."""


class Pieces:
    """Asks one model, and keeps in mind how many images at once fit the memory of its device.

    `most` is the largest number of images that worked since the last failure; None while nothing ever failed.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def ask(self, ask: Ask, which: Sequence[int]) -> list[Candidates | OutOfMemoryError]:
        """The answers for the images `which`, in order, asked in pieces of at most `most`; a piece that does not fit is halved.

        An image that does not fit even alone has an OutOfMemoryError in its place. It tells nothing about the others, so what
        failed because of it is not remembered.
        """
        answers: list[Candidates | OutOfMemoryError] = []
        while len(answers) < len(which):
            most = self.most
            part = self._piece(ask, which[len(answers) :][:most])
            if any(isinstance(answer, OutOfMemoryError) for answer in part):
                self.most = most
            answers += part
        return answers

    def _piece(self, ask: Ask, which: Sequence[int]) -> list[Candidates | OutOfMemoryError]:
        try:
            answers = ask(which)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            if len(answers) != len(which):
                raise PluginError(f"a model must answer one Candidates an image: expected {len(which)}, got {len(answers)}")
            return list(answers)
        free_memory()
        if len(which) == 1:
            return [OutOfMemoryError(message)]
        self.most = (len(which) + 1) // 2
        logger.warning("out of memory with %d images, going on with %d", len(which), self.most)
        return self.ask(ask, which)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory; told by name, so that torch need not be there."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


def free_memory() -> None:
    """Give back what torch, if it is loaded, keeps of the device's memory for later use."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
