"""The notebooks of docs/stories are their scripts, executed: the same cells, no error, nothing of the machine that ran them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tools.notebooks import NOTEBOOKS, SCRIPTS, cells_of, stories

MOST_BYTES = 400_000
MACHINE = re.compile(r"/(?:home|root|tmp|Users|work|var|mnt)/|[A-Z]:\\|127\.0\.0\.1|site-packages|/ipykernel_\d+/")


def notebook(name: str) -> dict[str, Any]:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def text_of(part: str | list[str]) -> str:
    return part if isinstance(part, str) else "".join(part)


def test_a_script_is_cut_into_its_cells() -> None:
    script = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\na = 1\n\n\n# %%\n# a comment\nprint(a)\n"
    assert cells_of(script) == [("markdown", "# Title\n\nText."), ("code", "a = 1"), ("code", "# a comment\nprint(a)")]


def test_every_story_has_a_notebook_and_no_other_is_there() -> None:
    assert stories() == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert len(stories()) == 10


@pytest.mark.parametrize("name", stories())
def test_the_cells_are_those_of_the_script(name: str) -> None:
    cells = [(cell["cell_type"], text_of(cell["source"])) for cell in notebook(name)["cells"]]
    assert cells == cells_of((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")), f"run: python -m tools.notebooks {name}"


@pytest.mark.parametrize("name", stories())
def test_it_was_executed_from_top_to_bottom_without_an_error(name: str) -> None:
    code = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", stories())
def test_it_is_small_and_says_nothing_of_the_machine(name: str) -> None:
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < MOST_BYTES
    outputs = [output for cell in notebook(name)["cells"] for output in cell.get("outputs", [])]
    said = [text_of(output.get("text") or output["data"]["text/plain"]) for output in outputs]
    assert not [line for text in said for line in text.splitlines() if MACHINE.search(line)]
