"""Where images lie: a local path, or a URL that fsspec knows (`s3://bucket/images`, `gs://...`, `memory://...`).

Both have pathlib's verbs (`/`, `open`, `stat`, `relative_to`); universal_pathlib gives them to URLs. What it returns is typed as
the Path that it stands in for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from autodistill_grounded_sam.errors import MissingExtraError


def place(source: Any) -> Path:
    """The path of a string, URL or path; raises MissingExtraError for a URL where universal_pathlib is missing."""
    if not is_remote(source):
        return Path(source)
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingExtraError(f"reading images from {source}", "cloud") from error
    return cast(Path, UPath(source))


def is_remote(source: Any) -> bool:
    return "://" in str(source)


def walk(folder: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, from any place: (parent, sub-folders, files); sub-folders taken out of the list are not gone into."""
    if not is_remote(folder):
        for parent, subfolders, files in os.walk(folder, onerror=onerror):
            yield Path(parent), subfolders, files
        return
    root = cast(Any, folder)
    for parent, subfolders, files in root.fs.walk(root.path, on_error=onerror):
        relative = PurePosixPath(parent).relative_to(PurePosixPath(root.path)).as_posix()
        yield folder if relative == "." else folder / relative, subfolders, files
