"""The review section of a page from disk: decisions by key, mouse and touch, kept over a reload, downloaded and merged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.reporting import write_report
from autodistill_grounded_sam.reviewing import merge_reviews
from autodistill_grounded_sam.reviews import Review, parse_review, read_reviews
from tests.browser_kit import PHONE, grave_faults, opened, shot
from tests.review.review_kit import dataset_of, label_folder, redecided

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = label_folder(tmp_path_factory.mktemp("home"))
    write_report(out)
    return out


@pytest.fixture
def out(tmp_path: Path, labelled: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "out"))


@pytest.fixture
def page(browser: Any, out: Path) -> Iterator[Any]:
    with opened(browser, (out / "report.html").as_uri()) as page:
        yield page


def tool(*words: object) -> Any:
    """Run the command line in a process of its own; its JSON."""
    command = [sys.executable, "-m", "autodistill_grounded_sam.cli", *map(str, words), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def asked(page: Any) -> Review:
    """The label in question, as the page holds it."""
    number = int(page.locator("dialog[open] .status").inner_text().split(" of ")[0]) - 1
    line = json.loads(page.locator("#review .shot").nth(number).get_attribute("data-line"))
    return parse_review(json.dumps({**line, "time": "2026-11-26"}), "the page")


def to_a_label(page: Any) -> Review:
    """Past the images without a label, which have no class to be of."""
    while (review := asked(page)).xyxy is None:
        page.keyboard.press("ArrowRight")
    return review


def downloaded(page: Any, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download decisions").click()
    assert waiting.value.suggested_filename == "reviews.jsonl"
    waiting.value.save_as(folder / "reviews.jsonl")
    return folder / "reviews.jsonl"


def count_of(page: Any) -> str:
    return str(page.locator("#review-count").inner_text())


def test_three_decisions_are_downloaded_merged_and_in_the_dataset(page: Any, out: Path, tmp_path: Path) -> None:
    before = dataset_of(out)
    page.get_by_role("button", name="Review", exact=True).click()
    right = to_a_label(page)
    page.keyboard.press("a")
    wrong = to_a_label(page)
    page.keyboard.press("x")
    renamed = to_a_label(page)
    other = "square" if renamed.class_name == "circle" else "circle"
    page.locator("dialog[open] .classes").get_by_role("button", name=other).click()
    page.keyboard.press("Escape")
    assert count_of(page).startswith("3 decisions, ")
    file = downloaded(page, tmp_path)
    assert "--merge reviews.jsonl" in page.locator("#review-next").inner_text()
    assert tool("review", out, "--merge", file) == {"added": 3, "known": 0, "elsewhere": 0, "faults": []}
    kept = read_reviews(out / "run" / "reviews.jsonl")
    assert [(one.verdict, one.key) for one in kept] == [
        ("accepted", right.key), ("rejected", wrong.key), ("corrected", renamed.key)
    ]  # fmt: skip
    assert (kept[0].mask, kept[1].mask, kept[2].mask) == (right.mask, None, renamed.mask) and right.mask is not None
    tool("decide", out, "--format", "coco")
    after = dataset_of(out)
    assert sum(map(len, after.values())) == sum(map(len, before.values())) - 1
    for class_, then in (("circle", other), ("square", other)):
        moved = (then == class_) - (renamed.class_name == class_) - (wrong.class_name == class_)
        counts = [sum(name == class_ for labels in found.values() for name, _ in labels) for found in (before, after)]
        assert counts[1] - counts[0] == moved
    assert any(name == right.class_name for name, _ in redecided(out, box_threshold=0.999)[right.image])  # it stays


def test_what_is_downloaded_last_counts_undone_decisions_too(page: Any, out: Path, tmp_path: Path) -> None:
    page.get_by_role("button", name="Review", exact=True).click()
    first = to_a_label(page)
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    assert merge_reviews(out, downloaded(page, tmp_path)).added == 1
    page.get_by_role("button", name="Undo").click()
    assert count_of(page).startswith("0 decisions, ")
    page.locator("#review .shot .open").first.click()
    to_a_label(page)
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    merge_reviews(out, downloaded(page, tmp_path))
    assert [(one.verdict, one.key) for one in read_reviews(out / "run" / "reviews.jsonl")] == [("accepted", first.key)]
    for _ in range(2):
        page.get_by_role("button", name="Undo").click(force=True)  # there is only one left to take back
        page.wait_for_timeout(20)
    merge_reviews(out, downloaded(page, tmp_path))
    assert read_reviews(out / "run" / "reviews.jsonl") == []


def test_a_key_that_is_held_down_is_one_decision(page: Any) -> None:
    page.get_by_role("button", name="Review", exact=True).click()
    for _ in range(3):
        page.keyboard.down("a")
    page.keyboard.up("a")
    for _ in range(3):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.press("Escape")
    assert count_of(page).startswith("2 decisions, ")


def test_keyboards_of_other_letters(page: Any) -> None:
    page.get_by_role("button", name="Review", exact=True).click()
    type_key = "([key, code]) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, code, bubbles: true }))"
    for key in (["ф", "KeyA"], ["é", "Digit2"], ["ю", "Period"]):
        page.evaluate(type_key, key)
    page.keyboard.press("Escape")
    assert count_of(page).startswith("2 decisions, ")


def test_decisions_outlive_a_reload_and_only_of_this_run(page: Any, out: Path) -> None:
    page.get_by_role("button", name="Review", exact=True).click()
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    told = count_of(page)
    page.reload()
    assert count_of(page) == told and told.startswith("1 decision, ")
    assert page.get_by_role("button", name="Go on").is_enabled()
    assert page.locator("#review .verdict", has_text="✓").count() == 1
    other = shutil.copytree(out, out.with_name("other"))
    page = page.context.new_page()
    page.goto(write_report(other).path.as_uri())
    assert count_of(page).startswith("0 decisions, ")


def test_a_browser_that_keeps_nothing_says_so(browser: Any, out: Path) -> None:
    with opened(browser, (out / "report.html").as_uri()) as page:
        page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })")
        page.reload()
        page.get_by_role("button", name="Review", exact=True).click()
        page.keyboard.press("a")
        page.keyboard.press("Escape")
        assert "This browser does not keep them" in count_of(page)


def test_by_touch_on_a_phone_to_the_last_one(browser: Any, out: Path, tmp_path: Path) -> None:
    with opened(browser, (out / "report.html").as_uri(), **PHONE) as page:
        page.get_by_role("button", name="Review", exact=True).tap()
        shot(page, "report_review_phone")
        assert grave_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        total = page.locator("#review .shot").count()
        for _ in range(total):
            page.locator("dialog[open] .verdicts .right").tap()
        assert page.locator("dialog[open]").count() == 0
        assert count_of(page) == f"{total} decisions, none left on this page."
        file = downloaded(page, tmp_path)
        shot(page, "report_review_phone_done")
    merged = merge_reviews(out, file)
    assert (merged.added, merged.faults) == (total, ())
    kept = read_reviews(out / "run" / "reviews.jsonl")
    assert {(one.verdict, one.classes) for one in kept} == {("accepted", ()), ("empty", ("circle", "square"))}


def test_what_was_decided_is_not_asked_again(browser: Any, page: Any, out: Path, tmp_path: Path) -> None:
    page.get_by_role("button", name="Review", exact=True).click()
    first = to_a_label(page)
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    merge_reviews(out, downloaded(page, tmp_path))
    with opened(browser, write_report(out).path.as_uri()) as again:
        assert "1 decision of a person is in the dataset already" in again.locator("#review").inner_text()
        lines = [json.loads(one.get_attribute("data-line")) for one in again.locator("#review .shot").all()]
        assert lines and (first.digest, list(first.xyxy or ())) not in [(line["digest"], line["xyxy"]) for line in lines]
