"""Where images lie: a folder, a URL that fsspec knows (`s3://bucket/images`, `gs://...`, `memory://...`), or Parquet.

All have pathlib's verbs (`/`, `open`, `stat`, `relative_to`), and so are typed as the Path that they stand in for.
universal_pathlib gives them to URLs, `parquet_images` to the rows of Parquet files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from autodistill_grounded_sam.errors import MissingExtraError, NoImagesError
from autodistill_grounded_sam.parquet_images import SUFFIX, ParquetImages, ParquetRow


def place(source: Any) -> Path:
    """The path of a string, URL or path; raises MissingExtraError for a URL where universal_pathlib is missing."""
    if isinstance(source, ParquetImages | ParquetRow):
        return cast(Path, source)
    if not is_remote(source):
        path = Path(source)
        return cast(Path, ParquetImages(path)) if path.suffix == SUFFIX else path
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingExtraError(f"reading images from {source}", "cloud") from error
    return cast(Path, UPath(source))


def is_remote(source: Any) -> bool:
    """Whether it is no file or folder of this machine."""
    return isinstance(source, ParquetImages | ParquetRow) or "://" in str(source)


def is_parquet(source: Any) -> bool:
    return isinstance(source, ParquetImages)


def walk(folder: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, from any place: (parent, sub-folders, files); sub-folders taken out of the list are not gone into."""
    if not is_remote(folder):
        for parent, subfolders, files in os.walk(folder, onerror=onerror):
            yield Path(parent), subfolders, files
        return
    root = cast(Any, folder)
    if is_parquet(folder):
        yield folder, [], list(root.rows)
        return
    try:
        for parent, subfolders, files in root.fs.walk(root.path, on_error="raise"):
            relative = PurePosixPath(parent).relative_to(PurePosixPath(root.path)).as_posix()
            yield folder if relative == "." else folder / relative, subfolders, files
    except Exception as error:  # each store has errors of its own
        raise NoImagesError(f"{folder} cannot be listed: {type(error).__name__}: {error}") from error
