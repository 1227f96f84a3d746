"""Batches depend on the sorted list, the batch size and the window alone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.engine.planning import plan_batches
from autodistill_grounded_sam.types import ImageRecord


def records(sizes: list[tuple[int, int]]) -> list[ImageRecord]:
    return [ImageRecord(f"{n:04d}", "", Path(), *size) for n, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=40),
    batch_size=st.integers(1, 5),
    window=st.integers(1, 12),
)
def test_every_image_once_no_mix_of_sizes_no_window_crossed(sizes: list[tuple[int, int]], batch_size: int, window: int) -> None:
    images = records(sizes)
    plan = list(plan_batches(images, batch_size, window, lambda width, height: (width, height)))
    assert sorted(image.id for batch in plan for image in batch.images) == [image.id for image in images]
    for batch in plan:
        assert 1 <= len(batch.images) <= batch_size
        assert len({(image.width, image.height) for image in batch.images}) == 1
        assert {int(image.id) // window for image in batch.images} == {batch.window}
    numbers = [(batch.window, batch.number) for batch in plan]
    assert numbers == sorted(set(numbers))
    assert all((w, n - 1) in numbers for w, n in numbers if n > 0)


def test_images_of_one_input_size_share_a_batch() -> None:
    images = records([(100, 50), (200, 100), (50, 100), (400, 200)])
    plan = list(plan_batches(images, 2, 512, lambda width, height: (80, 40) if width > height else (40, 80)))
    assert [[image.id for image in batch.images] for batch in plan] == [["0000", "0001"], ["0003"], ["0002"]]


def test_a_longer_list_leaves_earlier_windows_as_they_are() -> None:
    images = records([(n % 3 + 1, 1) for n in range(30)])
    short = list(plan_batches(images[:20], 4, 10, lambda width, height: (width, height)))
    long = list(plan_batches(images, 4, 10, lambda width, height: (width, height)))
    assert long[: len(short)] == short
