"""The page itself: whole without a server or a script, safe whatever a file is called, and readable without eyes."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.report.facts import Measured, RunFacts
from autodistill_grounded_sam.report.gathering import Gatherer
from autodistill_grounded_sam.report.page import PICTURE_BYTES, render, shown_of_each_class
from autodistill_grounded_sam.reporting import write_report
from tests.report.report_kit import EVIL, Element, Page, label_all_sorts


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_all_sorts(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def text(out: Path) -> str:
    return write_report(out).path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Element:
    return Page(text).root


def test_nothing_is_fetched_from_anywhere(page: Element) -> None:
    for element in page:
        for key in ("href", "src", "action", "srcset", "data"):
            value = element.attributes.get(key, "#")
            assert value.startswith(("#", "data:image/webp;base64,")), f"<{element.name} {key}={value[:60]!r}>"
    assert not page.all("link") and not page.all("iframe")


def test_the_policy_allows_this_script_and_this_style_alone(page: Element) -> None:
    policy = next(one for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    (script,), (style,) = page.all("script"), page.all("style")
    rules = dict(rule.split(" ", 1) for rule in policy.attributes["content"].split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for name, element in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    for element in page:  # neither would be allowed
        assert "style" not in element.attributes
        assert not [key for key in element.attributes if key.startswith("on")]


def test_evil_names_are_text_everywhere(page: Element, text: str) -> None:
    assert text.count("<script>") == 1
    assert EVIL in page.words
    assert [heading.words for heading in page.all("h3") if EVIL in heading.words]
    told = {one.words for one in page.all("dd")}
    assert f"{EVIL}.png" in told or EVIL in told
    assert any("square & co" in one.words for one in page.all("th"))


def test_every_picture_and_chart_says_what_it_shows_or_is_decoration(page: Element) -> None:
    drawings = page.all("svg")
    assert len(drawings) > 30
    for drawing in drawings:
        told = drawing.attributes.get("role") == "img" and drawing.attributes.get("aria-label", "").strip()
        assert told or drawing.attributes.get("aria-hidden") == "true"


def test_structure__landmarks_headings_links_and_tables(page: Element) -> None:
    ids = [one.attributes["id"] for one in page if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids and link.words
    for element in page:
        for key in ("aria-labelledby", "for"):
            assert element.attributes.get(key, ids[0]) in ids
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("h1")) == 1
    levels = [int(one.name[1]) for one in page if re.fullmatch("h[1-6]", one.name)]
    assert all(after <= before + 1 for before, after in pairwise(levels)), "a level of headings is skipped"
    assert all("scope" in cell.attributes for cell in page.all("th"))
    assert page.all("html")[0].attributes["lang"] == "en"


def test_it_tells_what_became_of_everything(page: Element) -> None:
    headings = [one.words for one in page.all("h3")]
    assert "Threshold" in headings and "Negative" in headings  # what was dropped
    assert "No candidate was dropped as" in page.words  # and what was not
    assert "broken.png" in page.words and "not an image" in page.words
    advice = [one.words for one in page.all("li") if one.attributes.get("class", "").startswith("weight")]
    assert "4 images are byte for byte the same as another" in advice
    assert any(one.startswith("never was never found: its best candidate scores 0.") for one in advice)
    assert any(one.words.startswith("grounded-sam report ") for one in page.all("code"))
    assert "red circle" in page.all("details")[0].words and "duplicate_iou" in page.all("details")[1].words


def test_what_looks_alike_is_not_said_to_be_without_labels(page: Element) -> None:
    shots = [one for pair in page.all("div", class_="pair") for one in pair.all("svg")]
    assert shots and not any("label" in one.attributes["aria-label"] for one in shots)


def test_numbers_of_the_page_are_those_of_the_dataset(page: Element, out: Path) -> None:
    rows = [line for file in out.glob("*/labels/*.txt") for line in file.read_text().splitlines()]
    cells = {row.all("th")[0].words: row.all("td")[0].words for row in page.all("tr") if "data-name" in row.attributes}
    by_class = [sum(line.split(" ", 1)[0] == str(place) for line in rows) for place in range(3)]
    assert [int(cells[next(key for key in cells if key.startswith(name))]) for name in (EVIL, "square & co", "never")] == by_class
    assert by_class[2] == 0 and min(by_class[:2]) > 5


def test_the_same_run_gives_the_same_bytes(out: Path, text: str, tmp_path: Path) -> None:
    again = write_report(out, tmp_path / "again.html")
    assert again.path.read_text("utf-8") == text
    assert again.bytes == len(text.encode())


def test_without_its_images_the_page_is_whole_but_for_pictures(out: Path, tmp_path: Path, text: str) -> None:
    home = tmp_path / "moved"
    shutil.copytree(out, home)
    (tmp_path / "nothing").mkdir()
    page = Page(write_report(home, images=tmp_path / "nothing").path.read_text("utf-8")).root
    assert not page.all("image")
    assert "left out" in page.words and EVIL in page.words


@pytest.mark.parametrize(("classes", "shown"), [(1, 6), (16, 6), (80, 1), (1200, 1), (0, 6)])
def test_the_more_classes_the_fewer_pictures_of_each(classes: int, shown: int) -> None:
    assert shown_of_each_class(classes) == shown


def test_a_page_of_1200_classes_leaves_their_room_to_the_pictures() -> None:
    ontology = Ontology(tuple(ClassSpec(f"class {number}", (f"a thing of the kind {number}",)) for number in range(1200)))
    gathered = Gatherer(ontology, ontology.thresholds(0.35), 1).result()
    rng = np.random.default_rng(0)
    for name in ("scores", "margins", "where", "sizes", "areas", "images_with"):
        counts = getattr(gathered, name)
        counts[:] = rng.integers(0, 1000, counts.shape)
    text = render(RunFacts("many", ontology, DecideConfig(), {}), gathered, Measured())
    assert len(text) + PICTURE_BYTES < 15_000_000
    assert "Shown are the 96 classes with most labels." in Page(text).root.words
