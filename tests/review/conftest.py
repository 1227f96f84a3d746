"""A labelled folder: made once for a module, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.review.review_kit import label_folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def out(tmp_path: Path, labelled: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "out"))
