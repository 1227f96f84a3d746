"""What a run is set up with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autodistill_grounded_sam import cli
from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.run_setup import _command, _name_of, batch_size_of, identity_of
from autodistill_grounded_sam.store.identity import describe_changes

MINI = SeeConfig(detector="mini", segmenter="mini")


@pytest.mark.parametrize(("free_gb", "batch"), [(80, 32), (24, 8), (16, 8), (8, 2), (3, 1)])
def test_a_batch_is_what_the_free_memory_of_a_card_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, batch: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gb * 2**30, 80 * 2**30))
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cuda:1")), tmp_path) == batch


def test_a_card_of_other_machines_has_the_usual_batch(tmp_path: Path) -> None:
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cuda:99")), tmp_path) == 4


def test_a_batch_that_is_given_is_kept(tmp_path: Path) -> None:
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cpu", batch_size=7)), tmp_path) == 7
    assert batch_size_of(LabelConfig(see=MINI, run=RunConfig(device="cpu")), tmp_path) == 4


def test_a_store_belongs_to_the_weights_of_both_models() -> None:
    identity = identity_of(LabelConfig(see=MINI), Ontology.load("painted_shapes_small"))
    assert [len(identity[model][digest]) for model in ("detector", "segmenter") for digest in ("sha256", "identity")] == [64] * 4


def test_a_store_belongs_to_its_guess_of_masks_and_older_stores_to_the_single_one() -> None:
    words = Ontology.load("painted_shapes_small")

    def identity(**see: str) -> dict:
        return identity_of(LabelConfig(see=SeeConfig(**MINI.model_dump() | see)), words)

    assert "mask_guess" not in identity()["see"]  # as in stores written before there was a choice
    assert describe_changes(identity(), identity(mask_guess="best-of-three")) == ["see.mask_guess: None -> 'best-of-three'"]
    assert identity(masks="none", mask_guess="best-of-three") == identity(masks="none")


def test_a_name_of_weights_may_hold_of() -> None:
    weights = {"name": "/data/photos of cells/weights", "sha256": "ab", "identity": {}}
    plugin = {"name": "my.models:Detector of my-models", "sha256": None}
    ours = {"name": "ellipse", "sha256": None}
    names = ["/data/photos of cells/weights", "my.models:Detector", "ellipse"]
    assert [_name_of(model) for model in (weights, plugin, ours)] == names


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("/usr/bin/grounded-sam", "grounded-sam label 'a b'"),
        (cli.__file__, "grounded-sam label 'a b'"),
        ("/theirs/cli.py", "cli.py"),
    ],
)
def test_only_our_own_command_line_is_kept(monkeypatch: pytest.MonkeyPatch, program: str, told: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "label", "a b"])
    assert _command() == told
