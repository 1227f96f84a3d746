"""The docs site as a reader has it, built and opened from disk: nothing from elsewhere, a search that answers, all by key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser_kit import DESKTOP, PHONE, grave_faults, shot

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index", "concepts", "plugins", "stories/negatives")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs the extra [docs]")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.parametrize(("device", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_pages_fit_keep_nobody_out_and_ask_nobody(browser: Any, site: Path, device: Any, scheme: str) -> None:
    context = browser.new_context(**device, color_scheme=scheme)
    page, asked = context.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_function("document.querySelector('.md-search').ariaLabel")  # the last that our script does
        assert grave_faults(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        shot(page, f"docs_{name.replace('/', '_')}_{device['viewport']['width']}_{scheme}")
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:", "about:"))] == []
    context.close()


def test_the_search_answers_from_disk(browser: Any, site: Path) -> None:
    page = browser.new_page(**DESKTOP)
    page.set_default_timeout(20_000)
    page.goto((site / "reference" / "python.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("negatives")
    page.locator(".md-search-result__link", has_text="Negatives").first.click()
    page.wait_for_url("**/stories/negatives.html*")
    page.close()
