"""The page in a browser, opened from disk: no request, no error, and everything by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.reporting import write_report
from tests.report.report_kit import label_all_sorts

pytestmark = pytest.mark.browser
WIDTHS = (390, 820, 1440)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the one that playwright brought."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with playwright.sync_playwright() as started:
        if chromium is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("needs Chromium: apt-get install chromium, or playwright install chromium")
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        running = started.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(label_all_sorts(tmp_path_factory.mktemp("home"))).path


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(f"a dialog opened: {dialog.message}"))
    page.on("request", lambda request: told.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(report.as_uri())
    yield page
    assert told == []
    context.close()


def test_a_label_is_enlarged_and_left_by_keyboard(page: Any) -> None:
    first = page.locator(".shot[data-full]").first
    opener = first.get_by_role("button", name="Enlarge: ")
    opener.focus()
    page.keyboard.press("Enter")
    zoomed = page.locator("dialog[open] .zoomed")
    assert zoomed.locator("> svg").get_attribute("viewBox") == first.get_attribute("data-full")
    shown = zoomed.locator(".more").text_content()
    page.keyboard.press("ArrowRight")
    assert zoomed.locator(".more").text_content() != shown
    page.keyboard.press("m")
    assert not zoomed.locator(".outlines").is_visible()
    page.keyboard.press("m")
    page.keyboard.press("ArrowLeft")
    assert zoomed.locator(".more").text_content() == shown
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert opener.evaluate("one => one === document.activeElement")


def test_classes_are_filtered_by_name(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("SQUARE")
    assert [one.text_content() for one in page.locator("article.class h3").all() if one.is_visible()] == ["square & co"]
    assert page.locator(".filter output").text_content() == "1 shown"
    assert page.locator("table.classes tbody tr:visible").count() == 1
    page.locator("#filter").fill("")
    assert page.locator("article.class:visible").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_the_paper_and_nothing_is_wider_than_the_window(browser: Any, report: Path, scheme: Any) -> None:
    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(LOWEST_CONTRAST) >= 4.5
        context.close()


def test_the_page_is_whole_without_its_script(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".shot svg").first.is_visible() and page.locator("article.class").count() == 3
    assert not page.locator(".filter").is_visible() and page.locator("dialog").count() == 0
    context.close()


# Of all texts against the colour of the page, or of what they stand on; as WCAG 2.2 has it.
LOWEST_CONTRAST = """() => {
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [.2126, .7152, .0722][k], 0);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (alpha > .5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  let lowest = 21;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || one.offsetParent === null || one.closest("svg, script")) continue;
    const [above, below] = [light(rgba(getComputedStyle(one).color).slice(0, 3)), light(behind(one))].sort((a, b) => b - a);
    lowest = Math.min(lowest, (above + .05) / (below + .05));
  }
  return lowest;
}"""
