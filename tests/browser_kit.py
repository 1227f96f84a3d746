"""What tests in a real browser share: Chromium, pages that tell on themselves, pictures for people, and axe."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHOTS = Path(os.environ.get("AGS_SHOTS", REPOSITORY / "browser_shots"))  # git ignores it
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
DESKTOP = {"viewport": {"width": 1440, "height": 900}}
GRAVE = ("serious", "critical")  # impacts of axe that fail a test; it names them, and "minor" and "moderate" beside them


def chromium() -> Iterator[Any]:
    """Debian's Chromium, or the one that playwright brought; skips where neither is."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        if found is None and not Path(started.chromium.executable_path).exists():
            end = pytest.fail if os.environ.get("AGS_BROWSER") else pytest.skip  # `make browser` promises it
            end("needs Chromium: apt-get install chromium, or playwright install chromium")
        running = started.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@contextmanager
def opened(browser: Any, url: str, *, may_say: str = "\0", slow_ms: int = 20_000, **settings: Any) -> Iterator[Any]:
    """The page at `url` in a browser of its own, a desktop's unless `settings` say otherwise.

    On leaving, an error of its script, a word on its console but what `may_say` is in, a dialog that it opened or a request to
    anywhere but its own place fails the test. (Not when it happens: what an event's handler raises ends playwright's loop, and
    with it every test that shares the browser.) What is waited for may take `slow_ms`.
    """
    context = browser.new_context(**{**DESKTOP, **settings})
    context.set_default_timeout(slow_ms)
    page, told = context.new_page(), list[str]()
    own = url if url.startswith("file:") else re.match("https?://[^/]*/", url)[0]  # type: ignore[index]
    page.on("console", lambda message: may_say in message.text or told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(f"a dialog opened: {dialog.type} {dialog.message}"), dialog.accept()))
    page.on("request", lambda request: request.url.startswith((own, "data:", "blob:")) or told.append(request.url))
    try:
        page.goto(url)
        yield page
        assert not told, told
    finally:
        context.close()


def shot(page: Any, name: str, **settings: Any) -> None:
    """A picture for people, `name`.png in the folder of artefacts."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", **settings)


def grave_faults(page: Any, within: str | None = None) -> list[str]:
    """What axe-core finds in the page as it is now, or `within` an element, that keeps people out: rule, fault, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra [browser]").Axe()
    found = axe.run(page, context=within).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {node['target']}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]
