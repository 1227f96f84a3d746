"""A person at the playground, in a real browser: see, slide, compare, save, label; and what hostile names can do there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.testing import paint_folder
from tests import browser_kit
from tests.app.app_kit import CONFIG, label_folder, page_of
from tests.browser_kit import grave_faults

pytestmark = pytest.mark.browser

SLOW_MS = 240_000  # the first look loads models, and machines that test are busy
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def mini() -> Iterator[Any]:
    """The playground as it starts: the built-in models, offline."""
    with page_of(detector="mini", segmenter="mini") as server:
        yield server


@contextmanager
def opened(browser: Any, server: Any, width: int = 1440, height: int = 900, **settings: Any) -> Iterator[Any]:
    """The page with its first picture; a script's fault, a dialog and a request to elsewhere fail the test."""
    size = {"viewport": {"width": width, "height": height}}
    with browser_kit.opened(browser, server.url, may_say="", slow_ms=SLOW_MS, **size, **settings) as page:  # gradio talks
        page.locator(".look img").first.wait_for()
        yield page


def shot(page: Any, name: str) -> None:
    browser_kit.shot(page, f"app_{name}", full_page=True)


def found(page: Any, side: int = 0) -> str:
    return str(page.locator("figure.look figcaption b").nth(side).inner_text())


def look(page: Any, button: str = "Look") -> None:
    """Press the button, and wait until the answer is there."""
    before = page.locator("figure.look").first.evaluate("one => { one.dataset.old = 'yes'; return 1; }")
    assert before == 1
    page.get_by_role("button", name=button, exact=True).click()
    page.locator("figure.look:not([data-old]), .view .fault").first.wait_for()


def settled(page: Any) -> None:
    """Wait until nothing is asked of the server: gradio draws what is about to change at a fifth of its strength."""
    page.wait_for_function("() => !document.querySelector('.pending, .generating')")
    page.wait_for_function("() => document.getAnimations().every(one => !(one instanceof CSSTransition))")


def field(page: Any, name: str) -> Any:
    """A text field by its name; what gradio explains of it is part of its label."""
    return page.get_by_label(re.compile(rf"^\s*{name}(?!, other side)")).first


def put(box: Any, text: str) -> None:
    """Fill a field that was just unfolded: gradio sets it to its first value when that is drawn, maybe after we have."""
    for _ in range(20):
        box.fill(text)
        box.press("Tab")
        box.page.wait_for_timeout(300)
        if box.input_value() == text:
            return


def slide(page: Any, label: str, value: str) -> None:
    box = page.get_by_label(re.compile(f"number input for {re.escape(label)}"))
    box.fill(value)
    box.press("Enter")


def test_a_story_at_the_playground(browser: Any, mini: Any, tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 3, seed=7)
    with opened(browser, mini) as page:
        assert found(page) == "2 star, 1 heart, 1 ball"
        shot(page, "start")

        field(page, "Negatives").fill("green star")  # a star is none, as it is the negative
        field(page, "What to look for").fill("ball: red circle, orange circle\nheart: purple heart\nring: red ring")
        look(page)
        assert found(page) == "2 ring, 1 heart, 1 ball"
        page.get_by_label("Show what was dropped").check()
        page.get_by_text("a negative scored").first.wait_for()
        assert page.locator("tr.lost").count() >= 2
        shot(page, "dropped")

        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
        slide(page, "Score that a label must reach", "0.99")
        page.locator("figure.look figcaption b", has_text="nothing").wait_for()
        slide(page, "Score that a label must reach", "0.35")
        page.locator("figure.look figcaption b", has_text="2 ring").wait_for()
        assert page.locator("figure.look figcaption b").count() == 1

        page.locator("input[type=file]").first.set_input_files(tmp_path / "images" / "scene_0000.png")
        page.get_by_text(re.compile("scene_0000.png · mini")).wait_for()

        page.get_by_text("Save the ontology").click()
        path = tmp_path / "mine.yaml"
        put(page.get_by_label("File", exact=True), str(path))
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("grounded-sam label IMAGES --ontology").wait_for()
        saved = Ontology.from_yaml(path)
        assert saved.class_names == ("ball", "heart", "ring") and saved.negatives == ("green star",)

        page.get_by_role("tab", name="A folder").click()
        page.get_by_label("Images", exact=True).fill(str(tmp_path / "images"))
        page.get_by_label("Dataset", exact=True).fill(str(tmp_path / "out"))
        page.get_by_role("button", name="Label", exact=True).click()
        page.get_by_text("Done.").wait_for()
        shot(page, "folder")
        _, labelled = pipeline.decided_labels(tmp_path / "out")
        assert len(list(labelled)) == 3
        with page.expect_popup() as report:
            page.get_by_role("link", name="Open the report").click()
        report.value.get_by_role("heading", name="ring").first.wait_for()


def test_two_models_and_two_sets_of_words_side_by_side(browser: Any, mini: Any) -> None:
    with opened(browser, mini) as page:
        page.get_by_label("Compare with other words or models").check()
        other = page.get_by_label("What to look for, other side")
        other.wait_for()
        other.fill("ring: red ring")
        page.locator("button.label-wrap", has_text="Models, other side").click()
        segmenter = page.get_by_label("Segmenter, other side")
        segmenter.fill("ellipse")
        segmenter.press("Enter")
        page.get_by_role("button", name="Look at both").click()
        page.locator("figure.look").nth(1).wait_for()
        assert (found(page), found(page, 1)) == ("2 star, 1 heart, 1 ball", "2 ring")
        assert "mini, ellipse" in page.locator("figure.look figcaption").nth(1).inner_text()
        left, right = (page.locator("figure.look").nth(side).bounding_box() for side in (0, 1))
        assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 2
        shot(page, "compare")


def test_a_class_has_a_score_of_its_own(browser: Any, mini: Any) -> None:
    with opened(browser, mini) as page:
        chosen = page.get_by_label("of", exact=True)
        chosen.click()
        page.get_by_role("option", name="ball").click()
        slide(page, "Score that a label must reach", "0.99")
        page.locator("figcaption b", has_text="2 star, 1 heart").wait_for()
        page.get_by_text("ball 0.99; every other class 0.35").wait_for()
        assert found(page) == "2 star, 1 heart"
        page.get_by_role("button", name="One score for every class").click()
        page.locator("figcaption b", has_text="1 ball").wait_for()


def test_what_is_typed_beside_a_slider_becomes_a_number_that_it_has(browser: Any, mini: Any) -> None:
    with opened(browser, mini) as page:
        page.on("response", lambda answer: None if answer.status < 400 else refused.append(f"{answer.status} {answer.url}"))
        refused: list[str] = []
        box = page.get_by_label(re.compile("number input for Score that"))
        for typed, taken in (("2", "1"), ("-1", "0"), ("", "0"), ("0.5", "0.5")):
            box.fill(typed)
            box.press("Tab")
            page.wait_for_timeout(500)
            assert box.input_value() == taken
        assert page.locator(".toast-body").count() == 0 and refused == []


def test_faults_are_told_in_words(browser: Any, mini: Any, tmp_path: Path) -> None:
    with opened(browser, mini) as page:
        (tmp_path / "broken.png").write_bytes(b"no image at all")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
        alert = page.get_by_role("alert")
        alert.get_by_text("broken.png").wait_for()
        assert str(tmp_path) not in alert.inner_text() and "Traceback" not in alert.inner_text()
        field(page, "What to look for").fill("box, bin")
        page.get_by_role("button", name="Look", exact=True).click()
        alert.get_by_text("line 1: expected `class` or `class: prompt, prompt`").wait_for()
        field(page, "What to look for").fill("box")
        page.locator("button.label-wrap", has_text="Models").first.click()
        detector = page.get_by_label("Detector", exact=True)
        detector.fill("miny")
        detector.press("Enter")
        page.get_by_role("button", name="Paint a scene instead").click()
        alert.get_by_text("no detector is named 'miny'; did you mean 'mini'?").wait_for()
        shot(page, "fault")


def test_a_run_of_hostile_names_is_text_and_is_decided_anew(browser: Any, tmp_path: Path) -> None:
    names = {"red circle": HOSTILE, "blue square": '"><img src=x onerror=alert(2)>${alert(3)}{{alert(4)}}'}
    label_folder(tmp_path, 5, names)
    shutil.rmtree(tmp_path / "out")
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        path.rename(tmp_path / "images" / f"{number}<img src=x onerror=alert(5)>${{alert(6)}}.png")
    pipeline.label(tmp_path / "images", names, tmp_path / "out", CONFIG)
    with page_of(tmp_path / "out") as server, opened(browser, server) as page:
        assert (
            "0<img src=x onerror=alert(5)>${alert(6)}.png · from the run, no model asked"
            in page.locator("figcaption").inner_text()
        )
        slide(page, "Score that a label must reach", "0.01")
        page.get_by_label("Show what was dropped").check()
        page.locator("tbody th", has_text=HOSTILE).first.wait_for()
        page.locator("tbody th", has_text="${alert(3)}{{alert(4)}}").first.wait_for()
        slide(page, "Image of the run, of 5", "2")
        page.get_by_text("1<img src=x onerror=alert(5)>").first.wait_for()
        assert page.locator("figure.look img").count() == 1 and page.locator(".view script").count() == 0
        shot(page, "hostile")
        page.locator("button.label-wrap", has_text="Decide the whole run").click()
        page.get_by_role("button", name="Decide", exact=True).click()
        page.get_by_text("The run is decided with these settings.").wait_for()
        assert pipeline.last_settings(tmp_path / "out")[0].box_threshold == 0.01


def test_what_is_changed_while_models_look_is_what_is_shown_after(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_run = Playground.look_at_run

    def look_slowly(*asked: Any) -> Any:
        time.sleep(0.3)
        return look_at_run(*asked)

    with page_of(label_folder(tmp_path, 6)) as server, opened(browser, server) as page:
        monkeypatch.setattr(Playground, "look_at_run", look_slowly)
        number = page.get_by_label(re.compile("range slider for Image of the run"))
        number.focus()
        for _ in range(5):
            number.press("ArrowRight")
            page.wait_for_timeout(60)
        page.get_by_text("scene_0005.png").wait_for()
        page.wait_for_timeout(1000)  # until no look is left
        settled(page)
        before = found(page)
        page.get_by_role("button", name="Look", exact=True).click()
        page.wait_for_timeout(100)
        slide(page, "Score that a label must reach", "1")
        page.wait_for_function("before => document.querySelector('figure.look figcaption b').innerText !== before", arg=before)
        assert page.get_by_label(re.compile("number input for Score that")).input_value() == "1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_serious_fault_and_all_fits_the_window(browser: Any, mini: Any, width: int, scheme: Any) -> None:
    with opened(browser, mini, width, 844, color_scheme=scheme) as page:
        settled(page)
        assert grave_faults(page) == []
        page.get_by_label("Compare with other words or models").check()
        for name in ("Models, other side", "Duplicates", "Save the ontology"):
            page.locator("button.label-wrap", has_text=name).click()
        page.get_by_label("Show what was dropped").check()
        page.locator("tr.lost").first.wait_for()
        settled(page)
        assert grave_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        shot(page, f"{width}_{scheme}")
        page.get_by_role("tab", name="A folder").click()
        page.get_by_label("Dataset", exact=True).wait_for()
        assert grave_faults(page) == []
