"""Images that lie in Parquet, as Hugging Face datasets keep them: `train.parquet` or `data/*.parquet`, a row an image.

A row's image is a struct of `bytes` and `path`, or plain bytes; the column is `image`, or the only one of that kind. Its id is
that path, or else the text in the column `image_id`, `id`, `file_name` or `path`, or else its number; ids have to be unique.
"""

from __future__ import annotations

import io
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from os import stat_result
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from autodistill_grounded_sam.errors import ImageReadError, NoImagesError

SUFFIX = ".parquet"
_ID_COLUMNS = ("image_id", "id", "file_name", "path")
_GROUPS_HELD = 2  # row groups in memory: images are read in order, one group after the other
_reading = threading.Lock()  # one thread reads a group, the others wait for it instead of reading it once more


class ParquetRow:
    """One image: what `images` asks of a path."""

    def __init__(self, image_id: str, file: str, group: int, row: int, column: str) -> None:
        self._id, self._at = image_id, (file, group, row, column)

    def __str__(self) -> str:
        return f"{self._at[0]}/{self._id}"

    @property
    def name(self) -> str:
        return PurePosixPath(self._id).name

    def relative_to(self, _root: Any) -> PurePosixPath:
        return PurePosixPath(self._id)

    def stat(self) -> stat_result:
        return stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, len(self._bytes()), 0, 0, 0))

    def open(self, _mode: str = "rb") -> BinaryIO:
        return io.BytesIO(self._bytes())

    def is_symlink(self) -> bool:
        return False

    def _bytes(self) -> bytes:
        file, group, row, column = self._at
        with _reading:
            data = _group(file, group, column)[row].as_py()
        data = data.get("bytes") if isinstance(data, dict) else data
        if not data:
            raise ImageReadError("empty_file", "the row holds no bytes of an image")
        return bytes(data)


class ParquetImages:
    """A Parquet file, or a pattern of such (`data/*.parquet`), that stands for an images folder."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def __str__(self) -> str:
        return str(self._source)

    def __truediv__(self, image_id: str) -> ParquetRow:
        try:
            return self.rows[str(image_id)]
        except KeyError:
            raise ImageReadError("missing", f"{self._source} has no row {image_id!r} any more") from None

    def is_dir(self) -> bool:
        return bool(_files(self._source))

    def absolute(self) -> ParquetImages:
        return ParquetImages(self._source.absolute())

    @property
    def rows(self) -> dict[str, ParquetRow]:
        """Every image by its id, in the order of files and rows; raises NoImagesError where there is none, or ids repeat."""
        files = _files(self._source)
        return _index(self._source, tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=2)  # one for all records of a folder, however often they were pickled
def _index(source: Path, files: tuple[tuple[Path, int], ...]) -> dict[str, ParquetRow]:
    found = [row for file, _ in files for row in _rows(file, alone=file == source)]
    counts = Counter(image_id for image_id, _ in found)
    twice = [image_id for image_id, count in counts.items() if count > 1]
    if twice:
        raise NoImagesError(f"{source} holds {len(twice)} ids more than once, {twice[0]!r} for one: ids must be unique")
    if not found:
        raise NoImagesError(f"{source} holds no row")
    return dict(found)


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(source.parent.glob(source.name))


def _rows(file: Path, *, alone: bool) -> Iterator[tuple[str, ParquetRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            column = _image_column(schema, file)
            name = next((one for one in _ID_COLUMNS if one in schema.names and pa.types.is_string(schema.field(one).type)), None)
            paths = f"{column}.path" if pa.types.is_struct(schema.field(column).type) else None
            number = 0
            for group in range(parquet.num_row_groups):
                told = parquet.read_row_group(group, columns=[paths or name]) if paths or name else None
                ids = _ids(told, column, name, paths, parquet.metadata.row_group(group).num_rows)
                for row, image_id in enumerate(ids):
                    own = image_id or f"{number:09d}"
                    own = own if alone else f"{file.stem}/{own}"
                    yield own, ParquetRow(own, str(file), group, row, column)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise NoImagesError(f"{file} cannot be read as Parquet: {error}") from error


def _ids(told: Any, column: str, name: str | None, paths: str | None, count: int) -> list[str | None]:
    if told is None:
        return [None] * count
    if paths:
        return [image["path"] if image else None for image in told.column(column).to_pylist()]
    return told.column(name).to_pylist()  # type: ignore[no-any-return]


def _image_column(schema: Any, file: Path) -> str:
    import pyarrow as pa

    def holds_images(field: Any) -> bool:
        kind = field.type
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    columns = [field.name for field in schema if holds_images(field)]
    if "image" in columns:
        return "image"
    if len(columns) == 1:
        return str(columns[0])
    raise NoImagesError(
        f"{file} must hold images in a column `image` (bytes, or a struct of bytes and path), or in one such column; "
        f"it has {', '.join(map(repr, schema.names))}"
    )


@lru_cache(maxsize=_GROUPS_HELD)
def _group(file: str, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        return parquet.read_row_group(group, columns=[column]).column(column).combine_chunks()
