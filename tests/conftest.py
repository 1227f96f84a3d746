"""What every test shares: no network, no user caches, and the folder of reference data where it is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("YOLO_OFFLINE", "true")

import pytest
from hypothesis import settings

from tests import browser_kit

# The same examples in every run, so that a change is what turns a test red; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Human-annotated images, odd files and official references; set AGS_SHARED if they are not beside the checkout."""
    folder = Path(os.environ.get("AGS_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"reference folder {folder} is not here (set AGS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def unpack_odd(shared: Path) -> Callable[[Path], Path]:
    """Unpacks the odd files into a new folder, by `tar`: tarfile has had `filter` only since Python 3.10.12 and 3.11.4."""

    def unpack(folder: Path) -> Path:
        folder.mkdir()
        subprocess.run(["tar", "xzf", str(shared / "odd" / "odd.tar.gz"), "-C", str(folder)], check=True)
        return folder

    return unpack


@pytest.fixture(scope="module")  # not longer: playwright lets no second one start in a process, and its loop troubles asyncio.run
def browser() -> Iterator[Any]:
    """Chromium, for tests marked `browser`."""
    yield from browser_kit.chromium()
