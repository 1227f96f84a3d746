"""Every code block of the README runs as it stands; only the hub is played, by the tiny models of the package."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import autodistill_grounded_sam.weights as weights
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset
from tests.cli_kit import said

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [code for kind, code in BLOCKS if kind == language]


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README speaks of it: `images` and their `truth.json`."""
    names = Ontology.load("painted_shapes_small").class_names
    pairs = tuple((name.split()[0], name.split()[1]) for name in names)
    truth = paint_dataset(tmp_path, 12, PainterSettings(pairs=pairs), 50_000, names)
    assert truth == tmp_path / "truth.json"
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_python_blocks(painted: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(weights, "_from_hub", lambda _name, role, _offline: Path(weights.__file__).parent / "mini" / role)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert list(painted.glob("*/data.yaml"))


@pytest.mark.slow
def test_command_line_block(painted: Path) -> None:
    commands = [line for code in blocks("bash") for line in code.splitlines() if line.startswith("grounded-sam ")]
    assert {shlex.split(line)[1] for line in commands} >= {"label", "decide", "export", "evaluate", "distill", "predict"}
    for line in commands:
        said(*shlex.split(line)[1:])


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    named = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert named == ["demo", "test"]
    assert all(re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in named)


def test_yaml_block(tmp_path: Path) -> None:
    (code,) = blocks("yaml")
    (tmp_path / "my_shop.yaml").write_text(code)
    words = Ontology.load(str(tmp_path / "my_shop.yaml"))
    assert words.class_names == ("bottle", "can")
    assert "a glass jar" in words.prompts


def test_every_block_is_run_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "yaml"}
    for code in blocks("bash"):
        assert all(re.match(r"(make|grounded-sam) ", line) for line in code.splitlines() if line)


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for path in re.findall(r"`((?:docs|autodistill_grounded_sam)/[\w./]+\.\w+)`", TEXT):
        assert (ROOT / path).exists(), path
