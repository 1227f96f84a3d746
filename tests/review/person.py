"""A person at the review page, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser_kit import opened


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
