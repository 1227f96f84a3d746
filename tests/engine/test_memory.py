"""Pieces: what does not fit is asked in smaller parts, and how small is remembered."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.engine import memory
from autodistill_grounded_sam.engine.memory import Pieces, is_out_of_memory
from autodistill_grounded_sam.errors import PluginError
from autodistill_grounded_sam.types import Candidates


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class Small:
    """A model that answers with the image's number; `most` images fit, and those of `giants` not even alone."""

    def __init__(self, most: int, giants: Sequence[int] = ()) -> None:
        self.most, self.giants = most, set(giants)
        self.asked: list[int] = []
        self.failures = 0

    def __call__(self, which: Sequence[int]) -> list[Candidates]:
        self.asked.append(len(which))
        if len(which) > self.most or self.giants & set(which):
            self.failures += 1
            raise OutOfMemoryError("CUDA: 8 GiB short\nand more")
        return [Candidates(np.array([[i, 0, i + 1, 1]], np.float32), np.array([[0.5]], np.float32)) for i in which]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without collecting garbage, which takes far longer than the rest of these tests."""
    monkeypatch.setattr(memory, "free_memory", lambda: None)


def numbers(answers: Sequence[Candidates | memory.OutOfMemoryError]) -> list[int | None]:
    return [int(answer.xyxy[0, 0]) if isinstance(answer, Candidates) else None for answer in answers]


def test_a_batch_that_does_not_fit_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    model = Small(2)
    with caplog.at_level(logging.WARNING):
        assert numbers(Pieces().ask(model, range(7))) == list(range(7))
    assert model.asked == [7, 4, 2, 2, 2, 1]
    assert "out of memory with 7 images, going on with 4" in caplog.text


def test_what_worked_is_remembered() -> None:
    model, pieces = Small(2), Pieces()
    for batch in range(40):
        assert numbers(pieces.ask(model, range(batch * 8, batch * 8 + 8))) == list(range(batch * 8, batch * 8 + 8))
    assert model.failures == 2
    assert model.asked[2:] == [2] * 160
    assert pieces.most == 2


def test_without_a_failure_nothing_is_cut() -> None:
    model, pieces = Small(100), Pieces()
    for count in (1, 8, 3, 100):
        pieces.ask(model, range(count))
    assert pieces.ask(model, []) == []
    assert model.asked == [1, 8, 3, 100]


def test_one_image_that_never_fits_does_not_slow_the_others() -> None:
    model, pieces = Small(8, giants=[3]), Pieces()
    answers = pieces.ask(model, range(8))
    assert numbers(answers) == [0, 1, 2, None, 4, 5, 6, 7]
    assert str(answers[3]) == "CUDA: 8 GiB short"
    assert isinstance(answers[3], memory.OutOfMemoryError) and answers[3].__traceback__ is None and answers[3].__context__ is None
    model.asked.clear()
    pieces.ask(model, range(8, 16))
    assert model.asked == [8]


@pytest.mark.usefixtures("quick")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 12), max_size=6), most=st.integers(1, 12), giants=st.lists(st.integers(0, 40), max_size=3))
def test_answers_are_those_of_a_device_without_end(sizes: list[int], most: int, giants: list[int]) -> None:
    model, pieces, start = Small(most, giants), Pieces(), 0
    for size in sizes:
        which = range(start, start + size)
        assert numbers(pieces.ask(model, which)) == [None if i in giants else i for i in which]
        start += size


def test_a_model_that_answers_too_little_is_named() -> None:
    with pytest.raises(PluginError, match="a model must answer one Candidates an image: expected 3, got 0"):
        Pieces().ask(lambda which: [], range(3))


def test_out_of_memory_is_known_by_name() -> None:
    assert is_out_of_memory(OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
def test_the_cache_of_the_device_is_emptied(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: device == "cuda", empty_cache=lambda: emptied.append("cuda")),
        mps=SimpleNamespace(empty_cache=lambda: emptied.append("mps")),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: device == "mps")),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    Pieces().ask(Small(1), range(2))
    assert emptied == ([] if device == "cpu" else [device])


def test_without_torch_there_is_nothing_to_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert numbers(Pieces().ask(Small(1), range(2))) == [0, 1]
