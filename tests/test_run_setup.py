"""What a run is set up with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.run_setup import batch_size_of

MINI = SeeConfig(detector="mini", segmenter="mini")


@pytest.mark.parametrize(("free_gb", "batch"), [(80, 32), (24, 8), (16, 8), (8, 2), (3, 1)])
def test_a_batch_is_what_the_free_memory_of_a_card_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, batch: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gb * 2**30, 80 * 2**30))
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cuda:1")), tmp_path) == batch


def test_a_batch_that_is_given_is_kept(tmp_path: Path) -> None:
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cpu", batch_size=7)), tmp_path) == 7
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cpu")), tmp_path) == 4
