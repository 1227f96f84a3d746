"""A person at the review page, in a real browser: label, see, fix, export; and what hostile names can do there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset
from autodistill_grounded_sam.reviews import read_reviews
from tests.browser_kit import PHONE, grave_faults, opened, shot
from tests.review.review_kit import CONFIG, answer_of, dataset_of, label_folder, page_of, redecided

pytestmark = pytest.mark.browser

TOOL = [sys.executable, "-m", "autodistill_grounded_sam.cli"]
MINI = ("--detector", "mini", "--segmenter", "mini", "--device", "cpu", "--offline")
NAMES, CLASSES = ["red circle", "blue square", "green star"], ["ball", "box", "badge"]
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(3, 3), pairs=tuple(
    (name.split()[0], name.split()[1]) for name in NAMES
))  # fmt: skip


@contextmanager
def reviewing(browser: Any, url: str, **settings: Any) -> Iterator[Any]:
    """The page, once its first picture is asked about."""
    with opened(browser, url, **settings) as page:
        page.get_by_role("heading", level=2, name="Is ").wait_for()
        yield page


def kept(page: Any) -> None:
    """Wait until every decision was answered."""
    page.wait_for_timeout(50)  # the next request leaves when the one before was answered
    page.locator("main[aria-busy=false]").wait_for(timeout=120_000)  # a segmenter is loaded for the first box


def drag(page: Any, xyxy: tuple[float, float, float, float]) -> None:
    """Drag a box that is given in pixels of the image."""
    scale, left, top = screen_of(page)
    page.mouse.move(left + xyxy[0] * scale, top + xyxy[1] * scale)
    page.mouse.down()
    page.mouse.move(left + xyxy[2] * scale, top + xyxy[3] * scale, steps=4)
    page.mouse.up()


def screen_of(page: Any) -> tuple[float, float, float]:
    """Screen pixels a pixel of the image, and where its corner is on the screen, by what the stage shows."""
    x, y, width, _ = (float(number) for number in page.locator("#view").get_attribute("viewBox").split())
    stage = page.locator("#stage").bounding_box()
    scale = stage["width"] / width
    return scale, stage["x"] - x * scale, stage["y"] - y * scale


def test_label_see_fix_three_labels_and_export(browser: Any, tmp_path: Path) -> None:
    paint_dataset(tmp_path, 6, SETTINGS, 82_000, NAMES)
    out, ontology = tmp_path / "out", json.dumps(dict(zip(NAMES, CLASSES, strict=True)))
    label = [*TOOL, "label", str(tmp_path / "images"), "--ontology", ontology, *MINI, "--out", str(out), "--format", "coco"]
    subprocess.run(label, check=True, capture_output=True)
    before = dataset_of(out)
    process = subprocess.Popen(
        [*TOOL, "review", str(out), "--no-browser", "--json", "--offline", "--device", "cpu"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        page = opened(browser, json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"])
        first = page.locator("#where").inner_text()
        name = page.locator("#question .name").inner_text()
        page.keyboard.press("x")  # wrong
        page.locator("#last", has_text=f"no {name}").wait_for()
        second, name = page.locator("#where").inner_text(), page.locator("#question .name").inner_text()
        other = next(one for one in CLASSES if one != name)
        page.keyboard.press(str(CLASSES.index(other) + 1))  # it is another class
        page.locator("#last", has_text=f"it is a {other}").wait_for()
        third = page.locator("#where").inner_text()
        page.keyboard.press("n")  # a missed object
        page.keyboard.press("3")
        drag(page, (4, 6, 40, 44))
        page.locator("#labels li", has_text="badge").last.wait_for()
        kept(page)
        shot(page, "added")
    finally:
        process.terminate()
        process.wait()
    reviews = read_reviews(out / "run" / "reviews.jsonl")
    assert [(one.image, one.verdict) for one in reviews] == [(first, "rejected"), (second, "corrected"), (third, "added")]
    drawn = reviews[-1]
    assert drawn.mask is not None  # by mini's segmenter, behind the person's back
    subprocess.run([*TOOL, "decide", str(out), "--format", "coco"], check=True, capture_output=True)
    after = dataset_of(out)
    assert sum(map(len, after.values())) == sum(map(len, before.values()))  # one less, one more
    assert len(after[first]) == len(before[first]) - 1 + (third == first)
    assert other in [found for found, _ in after[second]]
    (added,) = [box for found, box in after[third] if found == "badge" and box not in [old for _, old in before[third]]]
    assert max(abs(a - b) for a, b in zip(added, (4, 6, 40, 44), strict=True)) < 2


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def out(tmp_path: Path, labelled: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "out"))


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


def test_a_fault_is_told_in_words(browser: Any, out: Path) -> None:
    with page_of(out) as server, reviewing(browser, server.url, may_say="ERR_INTERNET_DISCONNECTED") as page:
        page.context.set_offline(True)
        page.keyboard.press("x")
        page.get_by_role("alertdialog").get_by_text("does not answer").wait_for()
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
