"""The page in a browser, opened from disk: no request, no error, everything by keyboard, and nothing that keeps people out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.reporting import write_report
from tests.browser_kit import grave_faults, opened, shot
from tests.report.report_kit import EVIL, label_all_sorts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(label_all_sorts(tmp_path_factory.mktemp("home"))).path


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report.as_uri()) as page:
        yield page


def test_a_label_is_enlarged_and_left_by_keyboard(page: Any) -> None:
    first = page.locator("#gallery .shot[data-full]").first
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


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (900, "light"), (1440, "light"), (1440, "dark")])
def test_nothing_keeps_people_out_and_nothing_is_wider_than_the_window(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    with opened(browser, report.as_uri(), viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.evaluate(
            "document.querySelectorAll('.class').forEach((one) => one.style.contentVisibility = 'visible')"
        )  # all of it
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(LOWEST_CONTRAST) >= 4.5  # which axe leaves undecided where a text stands on a picture
        assert grave_faults(page) == []
        shot(page, f"report_{width}_{scheme}", full_page=True)
        page.locator(".shot:not([data-line]) .open").first.click()
        shot(page, f"report_{width}_{scheme}_enlarged")
        assert grave_faults(page, "dialog[open]") == []


def test_the_page_is_whole_without_its_script(browser: Any, report: Path) -> None:
    with opened(browser, report.as_uri(), java_script_enabled=False) as page:
        assert page.locator(".shot svg").first.is_visible() and page.locator("article.class").count() == 3
        assert not page.locator(".filter, .asking").first.is_visible() and page.locator("dialog").count() == 0


def test_evil_names_are_text(page: Any) -> None:
    assert page.locator("article.class h3", has_text=EVIL).is_visible()
    page.locator("#review .shot .open", has=page.locator(":scope[aria-label*='square & co']")).first.click()
    assert page.locator("dialog[open] .classes button", has_text=EVIL).is_visible()
    assert page.locator("dd", has_text=f"{EVIL}.png").count()
    assert page.locator("script").count() == 1


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
