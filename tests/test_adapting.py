"""The joiner: everything from labelled images to a weights folder and what it says of itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam import adapt_weights
from autodistill_grounded_sam.adapting import AdaptResult
from autodistill_grounded_sam.errors import ConfigError, DatasetError, WrongPlaceError
from autodistill_grounded_sam.weights import find_weights
from tests.adapt.adapt_kit import NAMES, painted

WORDS = {"red circle": "red circle", "blue square": "blue square"}


def adapted(folder: Path, out: Path, **settings: Any) -> AdaptResult:
    return adapt_weights(folder / "images", folder / "truth.json", WORDS, out, device="cpu", offline=True, **settings)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted(tmp_path_factory.mktemp("scenes"))


def test_the_card_tells_everything(scenes: Path, tmp_path: Path) -> None:
    looks: list[tuple[int, int]] = []
    result = adapted(scenes, tmp_path / "w", steps=4, seed=7, on_look=lambda step, steps, figures: looks.append((step, steps)))
    assert (result.images, result.held_out, result.steps) == (8, 2, 4)
    assert looks == [(0, 0), (1, 4), (2, 4), (3, 4), (4, 4)]
    card = json.loads((tmp_path / "w/adapted.json").read_text())
    assert card["licence"] == "Apache-2.0" and card["parent"]["sha256"] == find_weights("mini", "detector").sha256
    assert card["recipe"]["seed"] == 7 and card["recipe"]["steps"] == 4
    assert set(card["data"]["classes"]) == set(NAMES) and len(card["held out"]) == 2
    assert card["figures"] == dict(result.figures) and set(result.figures_before) == {"AP", "AP50"}
    assert "--steps 4 --seed 7" in card["command"] and card["command"] == result.command
    readme = (tmp_path / "w/README.md").read_text()
    for told in (
        "base_model: mini",
        f"| adapted | {result.figures['AP']:.3f} |",
        "Licence of the parent: Apache-2.0",
        card["data"]["digest"],
    ):
        assert told in readme
    identity = find_weights(str(tmp_path / "w"), "detector").identity
    again = adapted(scenes, tmp_path / "again", steps=4, seed=7)
    assert find_weights(str(tmp_path / "again"), "detector").identity == identity  # the same recipe, the same weights
    assert adapted(scenes, tmp_path / "w", steps=4, seed=7) == result  # finished already: told from the card
    with pytest.raises(WrongPlaceError, match="of another recipe"):
        adapted(scenes, tmp_path / "w", steps=5, seed=7)
    assert again.figures == result.figures


def test_an_adapted_folder_is_a_parent_too(scenes: Path, tmp_path: Path) -> None:
    adapted(scenes, tmp_path / "first", steps=1)
    adapted(scenes, tmp_path / "second", steps=1, detector=str(tmp_path / "first"))
    card = json.loads((tmp_path / "second/adapted.json").read_text())
    assert card["licence"] == "Apache-2.0" and card["parent"]["name"] == str(tmp_path / "first")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 1, "minutes": 1}, "minutes and steps both say how long to learn; give one of them"),
        ({"steps": 0}, "must be positive and finite, got 0"),
        ({"minutes": -1}, "must be positive and finite, got -1"),
        ({"minutes": math.inf}, "must be positive and finite, got inf"),
        ({"minutes": math.nan}, "must be positive and finite, got nan"),
        ({"shorter_side_px": 0}, "must be 32 px or more, got 0"),
        ({"shorter_side_px": -64}, "must be 32 px or more, got -64"),
    ],
)
def test_wrong_wishes_are_refused(scenes: Path, tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        adapted(scenes, tmp_path / "w", **settings)
    assert not (tmp_path / "w").exists()


def test_nothing_is_written_where_nothing_can_be_learnt(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no label to learn from"):
        adapt_weights(scenes / "images", scenes / "truth.json", {"zebra": "zebra"}, tmp_path / "w", steps=1)
    assert not (tmp_path / "w").exists()


def test_example_images_are_refused_with_what_to_do(scenes: Path, tmp_path: Path) -> None:
    image = str(next((scenes / "images").iterdir()))
    both, alone = ({"examples": [{"image": image, "box": [side, side, 9, 9]}]} for side in (1, 2))
    words = {"version": 1, "classes": {"red circle": {"prompts": ["red circle"], **both}, "logo": alone}}
    with pytest.raises(
        ConfigError, match=r"'red circle', 'logo' of the ontology holds example images .*, and give 'logo' prompts$"
    ):
        adapt_weights(scenes / "images", scenes / "truth.json", words, tmp_path / "w", steps=1)
    assert not (tmp_path / "w").exists()


def test_a_segmenter_whose_decoder_cannot_learn_is_refused_before_anything_is_learnt(scenes: Path, tmp_path: Path) -> None:
    from transformers import SamHQConfig, SamHQModel, SamImageProcessor

    from tests.segment.conftest import TINY

    SamHQModel(SamHQConfig(**{**TINY, "mask_decoder_config": {**TINY["mask_decoder_config"], "vit_dim": 32}})).save_pretrained(
        tmp_path / "hq"
    )
    SamImageProcessor().save_pretrained(tmp_path / "hq")
    with pytest.raises(ConfigError, match=r"the mask decoder of .*hq cannot learn: it is SAM-HQ, and only SAM's can; give a SAM"):
        adapted(scenes, tmp_path / "w", steps=1, segmenter=str(tmp_path / "hq"))
    assert not (tmp_path / "w").exists()
