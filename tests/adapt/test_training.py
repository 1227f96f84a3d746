from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import autodistill_grounded_sam.adapt.training as training_module
from autodistill_grounded_sam.adapt.examples import Example, read_labelled
from autodistill_grounded_sam.adapt.recipe import Recipe
from autodistill_grounded_sam.adapt.training import Training
from autodistill_grounded_sam.adapt.weights_folder import with_queries
from autodistill_grounded_sam.detect.grounding_dino import Loaded, load
from tests.adapt.adapt_kit import ONTOLOGY, painted, tiny

RECIPE = Recipe(64, 128, 24, seed=1, steps=5, batch=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Example, ...]:
    folder = painted(tmp_path_factory.mktemp("painted"))
    return read_labelled(folder / "images", folder / "truth.json", ONTOLOGY).examples


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny") / "model", mm=request.param.startswith("mm"))


def training(weights: Path, examples: tuple[Example, ...], recipe: Recipe = RECIPE) -> Training:
    loaded = load(str(weights))
    return Training(Loaded(with_queries(loaded.model, 24), *loaded[1:]), examples[2:], examples[:2], ONTOLOGY, recipe, "cpu")


def state_of(trained: Training) -> dict[str, Tensor]:
    return dict(trained.mean.state_dict())


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_gradient_reaches_every_part(weights: Path, examples: tuple[Example, ...]) -> None:
    """The two-stage head above all: transformers' own `labels=` leaves it without any."""
    learner = training(weights, examples)
    learner.loss_of_step(0).backward()  # type: ignore[no-untyped-call]
    silent = {
        name for name, parameter in learner._model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    }  # fmt: skip
    first_stage = ("enc_output.", "enc_output_norm.", "encoder_output_bbox_embed.", "encoder_output_class_embed.")
    assert not [name for name in silent if any(part in name for part in first_stage)]
    # Unused in transformers' forward pass: Swin's last norm, BERT's pooler; a key's bias cancels in a softmax.
    assert all("swin.layernorm" in name or "pooler" in name or "key.bias" in name or name.endswith("word_embeddings.weight")
               for name in silent), silent  # fmt: skip


def test_the_same_seed_learns_the_same_and_resuming_changes_nothing(
    weights: Path, examples: tuple[Example, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "SAVE_SECONDS", 0.0)
    undisturbed = training(weights, examples)
    undisturbed.run(tmp_path / "a.pt")

    class Killed(Exception):
        pass

    def kill(step: int, steps: int, figures: Mapping[str, float]) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        training(weights, examples).run(tmp_path / "b.pt", kill)
    resumed = training(weights, examples)
    resumed.run(tmp_path / "b.pt")
    assert resumed.state.looks[0] == undisturbed.state.looks[0] and len(resumed.state.looks) == 6
    assert same(state_of(undisturbed), state_of(resumed))
    assert undisturbed.state.looks == resumed.state.looks
    other = training(weights, examples, replace(RECIPE, seed=2))
    other.run(tmp_path / "c.pt")
    assert not same(state_of(undisturbed), state_of(other))


def test_what_is_frozen_stays_and_the_rest_moves(weights: Path, examples: tuple[Example, ...], tmp_path: Path) -> None:
    learner = training(weights, examples, replace(RECIPE, frozen=("model.text_backbone.", "model.backbone."), steps=3))
    before = {name: value.clone() for name, value in learner._model.state_dict().items()}
    learner.run(tmp_path / "state.pt")
    moved = {name for name, value in learner._model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not [name for name in moved if name.startswith(("model.text_backbone.", "model.backbone."))]


def test_minutes_become_steps(
    weights: Path, examples: tuple[Example, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "LOOKS", 2)
    monkeypatch.setattr(training_module, "TIMED_STEPS", 2)
    learner = training(weights, examples, replace(RECIPE, steps=None, minutes=0.001))
    learner.run(tmp_path / "state.pt")
    assert learner.state.steps == learner.state.step == 2  # never fewer than the looks


def test_nothing_held_out_keeps_the_last(weights: Path, examples: tuple[Example, ...], tmp_path: Path) -> None:
    loaded = load(str(weights))
    learner = Training(loaded, examples, [], ONTOLOGY, replace(RECIPE, steps=2), "cpu")
    learner.run(tmp_path / "state.pt")
    assert all(set(figures) == {"loss"} for _, figures in learner.state.looks)
    assert not learner.state.best and learner.state.step == 2


@pytest.mark.parametrize(("held", "kept"), [(1, 3), (16, 2)])
def test_an_earlier_look_is_kept_where_its_ap_is_better_by_more_than_so_few_images_scatter(
    weights: Path, examples: tuple[Example, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, kept: int
) -> None:
    told = iter((0.0, 0.2, 0.3, 0.19))  # 0.11 less at the end: within the scatter of one image (0.2), beyond that of 16 (0.05)
    monkeypatch.setattr(training_module, "average_precision_of", lambda *_: {"AP": next(told)})
    loaded, state = load(str(weights)), list[Mapping[str, Tensor]]()
    learner = Training(loaded, examples, [examples[0]] * held, ONTOLOGY, replace(RECIPE, steps=3), "cpu")
    learner.run(tmp_path / "state.pt", lambda *_: state.append({k: v.clone() for k, v in learner.mean.state_dict().items()}))
    assert learner.state.best_look == kept
    assert same(state_of(learner), state[kept])
