"""The docs site without building it: every page has its place in the nav, links between files lead somewhere, pages keep up."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from autodistill_grounded_sam.cli import app
from tools import cli_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*") if path.suffix in {".md", ".ipynb"})
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def files_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for child in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from files_of(child)


def test_nav_holds_every_page_once() -> None:
    listed = sorted(files_of(SITE["nav"]))
    assert listed == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (page.parent / target) if target else page
        assert file.is_file(), f"{page.name}: there is no {target}"
        inside = DOCS if page.is_relative_to(DOCS) else ROOT
        assert file.resolve().is_relative_to(inside), f"{page.name}: {target} is not part of the site; name it as code"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file.read_text(encoding="utf-8")), f"{page.name}: no heading #{anchor} in {file.name}"


def anchors_of(text: str) -> set[str]:
    """The ids that python-markdown gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_command_line_page_is_that_of_the_commands() -> None:
    assert cli_page.PAGE.read_text(encoding="utf-8") == cli_page.page(), "run: python -m tools.cli_page"


@pytest.mark.parametrize("page", [path for path in PAGES if path.suffix == ".md"], ids=lambda path: path.stem)
def test_commands_of_a_page_can_be_copied(page: Path) -> None:
    """Each is one that there is, takes the flags beside it, and what is told of it is a comment to a shell."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^(?:    )?grounded-sam ((?!--).*)$", text, re.MULTILINE):
        command, words = typer.main.get_command(app), shlex.split(re.sub(r"\[.*?\]|>.*", "", line), comments=True)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        try:
            command.make_context(None, words)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("name", ["index.md", "concepts.md", "reference/ontology.md"])
def test_code_is_that_of_the_readme_whose_test_runs_it(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|python|yaml)\n(.*?)^```$", (DOCS / name).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for line in "".join(blocks).splitlines():
        assert line in readme.splitlines(), f"{name}: {line!r} is run by no test"


def test_the_settings_of_the_page_are_taken() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "reference" / "settings.md").read_text(encoding="utf-8"), re.M | re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["config"].decide.box_threshold == 0.3


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert SITE["strict"] is True
    assert "analytics" not in SITE["extra"]
    assert all((DOCS / name).is_file() for name in [*SITE["extra_css"], *SITE["extra_javascript"], *SITE["extra"]["polyfills"]])
    for file in [path for path in (DOCS / "assets").iterdir() if path.suffix in {".css", ".svg", ".js"}]:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text.replace('"file:"', ""), file.name
