"""Packages of other tools and of models' authors that some tests need; `make peers` installs them beside ours."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def peer(module: str) -> Any:
    """The module, or the end of the test: skipped where its package is not, failed in `make peers`, which promises it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        end = pytest.fail if os.environ.get("AGS_PEERS") else pytest.skip
        end(f"{module} cannot be imported ({error}); `make peers` installs it and runs this test")
