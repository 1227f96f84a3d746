"""A person at the review page, in a real browser: keys, touch, faults, and what hostile names can do there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.reviews import read_reviews
from tests.browser_kit import PHONE, grave_faults, shot
from tests.review.person import kept, reviewing
from tests.review.review_kit import CONFIG, answer_of, label_folder, page_of, redecided

pytestmark = pytest.mark.browser


def test_all_is_decided_by_one_key_and_undone_by_another(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url) as page:
        count = server.session.about()["total"]
        while page.locator("#question").inner_text() != "All decided":  # a key before the next picture is there says nothing
            page.keyboard.press("a")
            page.wait_for_timeout(20)
        kept(page)
        assert server.session.about()["left"] == 0
        shot(page, "review_done")
        page.keyboard.press("u")
        page.get_by_role("heading", level=2, name="Is ").wait_for()
        assert server.session.about()["left"] >= 1
    found = redecided(out)
    assert sum(map(len, found.values())) == count - sum(not labels for labels in found.values())


def test_the_whole_of_an_image_by_keyboard_alone(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url) as page:
        image = page.locator("#where").inner_text()
        page.keyboard.press("b")
        for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Enter"):
            page.keyboard.press(key)
        page.keyboard.press("n")
        for key in ("ArrowUp", "Shift+ArrowRight", "Enter"):
            page.keyboard.press(key)
        page.keyboard.press("c")
        kept(page)
    verdicts = [one.verdict for one in read_reviews(out / "run" / "reviews.jsonl") if one.image == image]
    assert {"corrected", "added", "complete"} <= set(verdicts)


def test_a_box_that_was_begun_is_never_that_of_the_next_label(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url) as page:
        while page.locator("#labels li").count() < 2:
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(50)
        for key in ("b", "ArrowRight", "j", "Enter"):  # Enter would keep the box, and now says that the next label is right
            page.keyboard.press(key)
        kept(page)
    assert "corrected" not in {one.verdict for one in read_reviews(out / "run" / "reviews.jsonl")}


def test_keyboards_of_other_letters(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url) as page:
        image = page.locator("#where").inner_text()
        type_key = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, code, bubbles: true }))"
        page.evaluate(type_key, ["ч", "KeyX"])
        kept(page)
    assert [(one.image, one.verdict) for one in read_reviews(out / "run" / "reviews.jsonl")] == [(image, "rejected")]


def test_by_touch_on_a_phone(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url, **PHONE) as page:
        image = page.locator("#where").inner_text()
        page.get_by_role("button", name="Wrong", exact=True).tap()
        page.get_by_role("button", name="Right", exact=True).tap()
        kept(page)
        shot(page, "review_phone")
        assert page.evaluate_handle("document.documentElement").get_property("scrollWidth").json_value() <= 390
    reviews = read_reviews(out / "run" / "reviews.jsonl")
    assert (reviews[0].image, reviews[0].verdict) == (image, "rejected")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (900, "dark"), (1440, "light")])
def test_nothing_keeps_people_out(browser: Any, out: Path, width: int, scheme: str) -> None:
    settings = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with page_of(out) as server, reviewing(browser, server.url, **settings) as page:
        assert page.evaluate_handle("document.documentElement").get_property("scrollWidth").json_value() <= width
        for key, name in (("", "label"), ("?", "help"), ("r", "finder")):
            page.keyboard.press(key) if key else None
            shot(page, f"review_{width}_{scheme}_{name}")
            assert grave_faults(page) == []
            page.keyboard.press("Escape")


def test_a_fault_is_told_in_words(browser: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with page_of(out) as server, reviewing(browser, server.url, may_say="net::ERR_") as page:
        # The server goes away without a word. (The browser's own "offline" may begin only after its next request.)
        monkeypatch.setattr(server.RequestHandlerClass, "do_POST", lambda handler: setattr(handler, "close_connection", True))
        page.keyboard.press("x")
        page.get_by_role("alertdialog").get_by_text("does not answer").wait_for()
        page.get_by_role("alertdialog").get_by_text("were not kept: 1 at most").wait_for()
    assert not (out / "run" / "reviews.jsonl").exists()


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    folder = tmp_path / "images"
    label_folder(tmp_path, 3)
    shutil.rmtree(tmp_path / "out")
    names = (hostile, "<img src=x onerror=alert(1)>", "&lt;b&gt;")
    for path, name in zip(sorted(folder.iterdir()), names, strict=True):
        evil = folder / f"{name}.png"
        evil.parent.mkdir(exist_ok=True)  # the slash in the first makes a folder
        path.rename(evil)
    from autodistill_grounded_sam import pipeline

    pipeline.label(folder, {"red circle": hostile, "blue square": f'"><svg onload=alert(2)>{hostile}'}, tmp_path / "out", CONFIG)
    with page_of(tmp_path / "out") as server, reviewing(browser, server.url) as page:
        assert page.locator("#where").inner_text() in [f"{name}.png" for name in names]
        assert hostile in page.locator("#classes").inner_text()
        page.keyboard.press("1")
        page.keyboard.press("r")
        page.locator("#words").fill("script")
        assert page.locator("#found button").count() == 2
        kept(page)
        shot(page, "review_hostile")
        assert page.locator("img, script:not([src])").count() == 0


def test_a_second_browser_without_the_token_sees_nothing(browser: Any, out: Path) -> None:
    with page_of(out) as server:
        page = browser.new_context().new_page()
        answer = page.goto(server.url.replace(server.token, "x" * 43))
        assert (answer.status, answer.text()) == (404, '{"error": "not found"}')
        assert answer_of(server.url)[0] == 200
