"""Which images are looked at together: planned from the whole sorted list, so that a resumed run forms the very same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from autodistill_grounded_sam.types import ImageRecord

SizeOf = Callable[[int, int], tuple[int, int]]  # (width, height) of an image -> that of the model's input


class PlannedBatch(NamedTuple):
    """Batch `number` of window `window`."""

    window: int
    number: int
    images: tuple[ImageRecord, ...]


def plan_batches(images: Sequence[ImageRecord], batch_size: int, window_images: int, size_of: SizeOf) -> Iterator[PlannedBatch]:
    """Cut images, sorted by id, into windows of `window_images`, and each window into batches of one input size.

    A batch never crosses a window, holds at most `batch_size` images, and all of them are of one `size_of`, so nothing is padded.
    Within a window the groups come in the order of their first image.
    """
    for window, start in enumerate(range(0, len(images), window_images)):
        groups: dict[tuple[int, int], list[ImageRecord]] = {}
        for image in images[start : start + window_images]:
            groups.setdefault(size_of(image.width, image.height), []).append(image)
        batches = (group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size))
        for number, batch in enumerate(batches):
            yield PlannedBatch(window, number, tuple(batch))
