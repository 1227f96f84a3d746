"""What changed is said exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.errors import StoreError
from autodistill_grounded_sam.store.identity import check_identity, describe_changes

OLD: dict[str, Any] = {
    "prompts": ["cat", "dog"],
    "detector": {"name": "IDEA-Research/grounding-dino-tiny", "sha256": "a" * 64},
    "segmenter": {"name": "mini", "sha256": "b" * 64},
    "see": {"floor": 0.1, "masks": "all"},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": ["cat", "bird"]}, "prompts: without 'dog'; new 'bird'"),
        ({"prompts": ["dog", "cat"]}, "prompts: another order, ['cat', 'dog'] -> ['dog', 'cat']"),
        (
            {"detector": {"name": "mini", "sha256": "c" * 64}},
            "detector: IDEA-Research/grounding-dino-tiny (sha256 aaaaaaaaaaaa) -> mini (sha256 cccccccccccc)",
        ),
        ({"segmenter": None}, "segmenter: mini (sha256 bbbbbbbbbbbb) -> none"),
        ({"segmenter": {"name": "pkg:Own", "sha256": None}}, "segmenter: mini (sha256 bbbbbbbbbbbb) -> pkg:Own"),
        ({"see": {"floor": 0.2, "masks": "all"}}, "see.floor: 0.1 -> 0.2"),
        ({"see": {"floor": 0.1, "masks": "all", "new": 1}}, "see.new: None -> 1"),
    ],
)
def test_each_change_is_one_line(change: dict[str, Any], said: str) -> None:
    assert describe_changes(OLD, {**OLD, **change}) == [said]


def test_the_same_weights_by_another_name_are_the_same() -> None:
    moved = {**OLD, "detector": {"name": "/models/gd-tiny", "sha256": "a" * 64}}
    assert describe_changes(OLD, moved) == []


def model(weights: str, identity: str | None = None, name: str = "mini") -> dict[str, Any]:
    return {"name": name, "sha256": weights * 64} | ({"identity": identity * 64} if identity else {})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (model("a", "1"), model("a", "1", name="/models/mini"), []),
        (model("a", "1"), model("a"), []),  # a run of an earlier version: the weights decide
        (model("a"), model("a", "1"), []),
        (model("a"), model("b", "1"), ["detector: mini (sha256 aaaaaaaaaaaa) -> mini (sha256 bbbbbbbbbbbb)"]),
        (model("a", "1"), model("b", "2"), ["detector: mini (sha256 aaaaaaaaaaaa) -> mini (sha256 bbbbbbbbbbbb)"]),
        (
            model("a", "1"),
            model("a", "2"),
            [
                "detector: mini (sha256 aaaaaaaaaaaa) -> mini (sha256 aaaaaaaaaaaa); the weights are the same, "
                "but the config, processor or tokenizer files of the model changed"
            ],
        ),
    ],
)
def test_models_are_compared_by_all_their_files_where_both_sides_know_them(
    before: dict[str, Any], after: dict[str, Any], said: list[str]
) -> None:
    assert describe_changes({"detector": before}, {"detector": after}) == said


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"(?s)belongs to other models.*see.floor: 0.1 -> 0.3\n.*another --out.*use `decide`"):
        check_identity(tmp_path, OLD, {**OLD, "see": {"floor": 0.3, "masks": "all"}})
    check_identity(tmp_path, OLD, dict(OLD))
