"""The table of what there is: whole, of facts that stand beside the classes, the same in the docs as on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.about import About, table
from autodistill_grounded_sam.testing import FakeDetector
from autodistill_grounded_sam.weights import known_models
from tools.plugins_table import PAGE, page_with

ROOT = Path(__file__).resolve().parents[1]
ROWS = [row for row in table() if row.plugin.built_in]


def test_docs_say_what_the_command_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page_with([row.facts() for row in ROWS], text) == text, "run: python -m tools.plugins_table"


@pytest.mark.parametrize("role", plugins.BUILT_IN)
def test_every_known_checkpoint_is_in_one_row(role: str) -> None:
    listed = [name for row in ROWS if row.plugin.role == role for name in row.checkpoints]
    for model in known_models():
        if model.role == role[:-1]:
            assert listed.count(model.name) == 1, f"{model.name}: write an About beside the class that runs it"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.plugin.role} {row.name}")
def test_a_row_of_ours_is_whole(row: Any) -> None:
    assert row.proven and row.licence, "what was proven here, and how? what may be done with it?"
    assert row.problem == ""
    folder = ROOT
    for path in re.findall(r"`([\w/]+\.py)`", row.proven):  # the folder of a second path is that of the first
        folder = (ROOT / path).parent if "/" in path else folder
        assert (folder / Path(path).name).is_file(), path


class Told(FakeDetector):
    about: Any = (About("told", "by hand", licence="MIT"), About("another"))


class Untold(FakeDetector):
    about = "a sentence of its own"


def test_of_others_what_they_tell_is_shown_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"told": f"{__name__}:Told", "untold": f"{__name__}:Untold", "gone": "no_such_module:Detector"}
    others = [plugins.Plugin("detectors", name, target, "their-models") for name, target in here.items()]
    monkeypatch.setattr("autodistill_grounded_sam.about.list_plugins", lambda role: others if role == "detectors" else [])
    facts = {row.name: row.facts() for row in table() if not row.plugin.built_in}
    assert list(facts) == ["told", "untold", "gone"]
    assert (facts["told"]["licence"], facts["told"]["proven"], facts["told"]["problem"]) == ("MIT", "by hand", None)
    assert (facts["untold"]["licence"], facts["untold"]["problem"]) == (None, None)
    assert "No module named 'no_such_module'" in facts["gone"]["problem"]
