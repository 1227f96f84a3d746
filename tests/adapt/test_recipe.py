from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.adapt.recipe import choose_recipe, hold_out
from autodistill_grounded_sam.ontology import Ontology

WORDS = Ontology.from_dict({"cat": "a", "dog": "b"})


def example(name: str, side_px: float, count: int = 1, classes: tuple[int, ...] = (0,), height: int = 480) -> Example:
    """`count` square boxes of `side_px` in a picture 640 px wide."""
    boxes = np.tile(np.array([10, 10, 10 + side_px, 10 + side_px], np.float32), (count, 1))
    return Example(name, Path(name), name, 640, height, np.resize(np.array(classes, np.int32), count), boxes)


def model(parameters: float, queries: int = 40) -> Any:
    weights = [torch.empty(int(parameters), device="meta")]
    return SimpleNamespace(parameters=lambda: weights, config=SimpleNamespace(num_queries=queries))


@pytest.mark.parametrize(
    ("side_px", "shorter"),
    [(240, 256), (40, 288), (4, 480)],  # large enough; 24 px in steps of 32; the most that a small model can learn
)
def test_the_input_of_a_small_model_follows_the_objects(side_px: float, shorter: int) -> None:
    recipe = choose_recipe([example("x", side_px)], model(2e6), (160, 640))
    assert recipe.shorter_side_px == shorter
    assert recipe.longer_side_px == shorter * 4


@pytest.mark.parametrize(("height", "shorter"), [(480, 256), (200, 192), (120, 160)])
def test_large_objects_are_not_enlarged_beyond_what_the_images_show(height: int, shorter: int) -> None:
    assert choose_recipe([example("x", 100, height=height)], model(2e6), (160, 640)).shorter_side_px == shorter


def test_the_input_follows_the_smallest_class_and_not_its_smallest_object() -> None:
    many, few = example("x", 240, 50), example("y", 40, 3, (1,))
    few.xyxy[0, 2:] = 12
    assert choose_recipe([many, few], model(2e6), (160, 640)).shorter_side_px == 288


def test_a_large_model_keeps_its_input_and_its_text() -> None:
    few = choose_recipe([example("x", 4)], model(172e6, 900), (800, 1333))
    assert (few.shorter_side_px, few.longer_side_px, few.queries) == (800, 1333, 900)
    assert few.frozen == ("model.text_backbone.", "model.backbone.")
    many = choose_recipe([example(str(k), 4) for k in range(200)], model(172e6, 900), (800, 1333))
    assert many.frozen == ("model.text_backbone.",) and many.learning_rate < choose_recipe(
        [example("x", 4)], model(2e6), (160, 640)
    ).learning_rate  # fmt: skip


@pytest.mark.parametrize(("most", "queries"), [(3, 40), (30, 50), (258, 390), (2000, 900)])
def test_queries_follow_the_fullest_image(most: int, queries: int) -> None:
    examples = [example("empty", 50, 0), example("full", 50, most)]
    assert choose_recipe(examples, model(2e6), (160, 640)).queries == queries


def test_wishes_win() -> None:
    recipe = choose_recipe([example("x", 60)], model(2e6), (160, 640), shorter_side_px=200, steps=7, minutes=None, seed=3)
    assert (recipe.shorter_side_px, recipe.longer_side_px, recipe.steps, recipe.minutes, recipe.seed) == (200, 800, 7, None, 3)


def test_hold_out__a_fifth_by_digest_and_never_the_last_of_a_class() -> None:
    common, rare = [example(f"c{k}", 50) for k in range(18)], [example(f"a{k}", 50, 2, (0, 1)) for k in range(2)]
    learn, held = hold_out([*common, *rare], WORDS)
    assert len(held) == 4 and len(learn) == 16
    assert {one.name for one in rare} <= {one.name for one in learn}  # a0 and a1 would come first by digest
    assert {one.name for one in held} == {one.name for one in hold_out([*rare, *common], WORDS)[1]}


def test_hold_out__few_or_empty_images_spare_none() -> None:
    assert hold_out([example(str(k), 50) for k in range(4)], WORDS)[1] == []
    assert hold_out([example(str(k), 50, 0) for k in range(10)], WORDS)[1] == []
