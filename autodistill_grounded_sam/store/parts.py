"""One Parquet part: whole batches of sightings, a row an image, scores sparse.

Columns: image_id, file (the bytes of the path in the images folder, only where they are not those of the id: an id is always
printable, a file name need not be), digest, width, height, status, reason, detail, dhash, then lists: xyxy (4 numbers a
candidate), score_at and score (the scores of at least SCORE_FLOOR, at candidate * prompts + prompt), rle (the `counts` of each
mask) and mask_score.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.errors import RecordError, StoreError
from autodistill_grounded_sam.store.files import disk_errors, write_whole
from autodistill_grounded_sam.types import Candidates, ImageRecord, Rle, Sighting, Status

STREAMED_ROWS = 4096
SCORE_FLOOR = np.float32(0.01)  # lower scores are stored as 0: no threshold asks for them, and most of 1,200 prompts score less
_NAME = re.compile(r"g(\d{3,})-w(\d{6,})-b(\d{4,})-b(\d{4,})\.parquet")


@dataclass(frozen=True, order=True)
class PartName:
    """What a part holds, said by its file name: the batches `first` to `last` of one window of one generation."""

    generation: int
    window: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"g{self.generation:03d}-w{self.window:06d}-b{self.first:04d}-b{self.last:04d}.parquet"

    @property
    def batches(self) -> range:
        return range(self.first, self.last + 1)

    @staticmethod
    def parse(name: str) -> PartName | None:
        """The part of this file name, or None if it is no part's."""
        match = _NAME.fullmatch(name)
        return PartName(*(int(number) for number in match.groups())) if match else None


def write_part(path: Path, sightings: Sequence[Sighting]) -> None:
    """Write sightings as one Parquet file that appears whole or not at all; raises StoreError where the disk refuses."""
    import pyarrow as pa

    images = [sighting.image for sighting in sightings]
    seen = [Candidates.none(0) if sighting.candidates is None else sighting.candidates for sighting in sightings]
    for image, candidates in zip(images, seen, strict=True):
        _check_masks(image, candidates)
    sparse = [_sparse(candidates) for candidates in seen]
    table = pa.table(
        {
            "image_id": pa.array([image.id for image in images], pa.string()),
            "file": pa.array([os.fsencode(image.file) if image.file else None for image in images], pa.binary()),
            "digest": pa.array([image.digest for image in images], pa.string()),
            "width": pa.array([image.width for image in images], pa.int32()),
            "height": pa.array([image.height for image in images], pa.int32()),
            "status": pa.array([sighting.status.value for sighting in sightings], pa.string()),
            "reason": pa.array([sighting.reason for sighting in sightings], pa.string()),
            "detail": pa.array([sighting.detail for sighting in sightings], pa.string()),
            "dhash": pa.array([sighting.dhash for sighting in sightings], pa.uint64()),
            "xyxy": pa.array([candidates.xyxy.reshape(-1) for candidates in seen], pa.list_(pa.float32())),
            "score_at": pa.array([at for at, _ in sparse], pa.list_(pa.int32())),
            "score": pa.array([score for _, score in sparse], pa.list_(pa.float32())),
            "rle": pa.array([_counts(candidates) for candidates in seen], pa.list_(pa.string())),
            "mask_score": pa.array([candidates.mask_score for candidates in seen], pa.list_(pa.float32())),
            "agreement": pa.array([candidates.agreement for candidates in seen], pa.list_(pa.float32())),
        }
    )
    _write(path, table)


class Part:
    """The sightings of one part, by the number of their row; `prompts` is their number in the run."""

    def __init__(self, path: Path, prompts: int, images_root: Path) -> None:
        self._rows = _Columns(_read(path))
        self._prompts, self._images_root = prompts, images_root

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Sighting:
        rows = self._rows
        image_id, file = rows.value("image_id", row), rows.value("file", row)
        image = ImageRecord(
            image_id,
            rows.value("digest", row),
            self._images_root,
            rows.value("width", row),
            rows.value("height", row),
            os.fsdecode(file or b""),
        )
        status = Status(rows.value("status", row))
        candidates = _candidates(rows, row, image, self._prompts) if status is Status.SEEN else None
        return Sighting(image, status, candidates, rows.value("reason", row), rows.value("detail", row), rows.value("dhash", row))


def read_part(path: Path, prompts: int, images_root: Path) -> Iterator[Sighting]:
    """The sightings of one part, in the order of its rows."""
    part = Part(path, prompts, images_root)
    return (part[row] for row in range(len(part)))


def read_columns(path: Path, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """Some plain columns of a part, a tuple a row, without reading what was seen."""
    table = _read(path, columns)
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def stream_columns(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """As `read_columns`, with some thousands of rows in memory at a time."""
    import pyarrow.parquet as pq

    with _damage(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(STREAMED_ROWS, columns=list(columns)):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def count_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    with _damage(path):
        return int(pq.read_metadata(path).num_rows)


def write_images(path: Path, images: Sequence[ImageRecord]) -> None:
    """Write the folder's list: image_id and digest of every readable image."""
    import pyarrow as pa

    columns = {"image_id": [image.id for image in images], "digest": [image.digest for image in images]}
    _write(path, pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns])))


class _Columns:
    """A table as numpy arrays and plain lists: lists of lists are cut by their offsets, which is what makes reading quick."""

    def __init__(self, table: Any) -> None:
        import pyarrow as pa

        self._rows = table.num_rows
        self._plain: dict[str, list[Any]] = {}
        self._lists: dict[str, tuple[npt.NDArray[Any], Any, npt.NDArray[np.bool_]]] = {}
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            if not pa.types.is_list(column.type):
                self._plain[name] = column.to_pylist()
                continue
            values = column.values.to_pylist() if pa.types.is_string(column.type.value_type) else column.values.to_numpy()
            self._lists[name] = (column.offsets.to_numpy(), values, column.is_valid().to_numpy(zero_copy_only=False))

    def __len__(self) -> int:
        return int(self._rows)

    def value(self, name: str, row: int) -> Any:
        return self._plain[name][row]

    def items(self, name: str, row: int) -> Any:
        """The list of a row: an array (list of str for strings), or None where there is none, or in an older store no column."""
        if name not in self._lists:
            return None
        offsets, values, valid = self._lists[name]
        return values[offsets[row] : offsets[row + 1]] if valid[row] else None


def _candidates(rows: _Columns, row: int, image: ImageRecord, prompts: int) -> Candidates:
    xyxy = rows.items("xyxy", row).reshape(-1, 4)
    scores = np.zeros((len(xyxy), prompts), np.float32)
    scores.reshape(-1)[rows.items("score_at", row)] = rows.items("score", row)
    counts = rows.items("rle", row)
    rle = None if counts is None else tuple(Rle(size=[image.height, image.width], counts=code) for code in counts)
    return Candidates(xyxy, scores, rle, rows.items("mask_score", row), rows.items("agreement", row))


def _sparse(candidates: Candidates) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    flat = candidates.scores.reshape(-1)
    at = np.flatnonzero(flat >= SCORE_FLOOR)
    return at.astype(np.int32), flat[at]


def _counts(candidates: Candidates) -> list[str] | None:
    return None if candidates.rle is None else [code["counts"] for code in candidates.rle]


def _check_masks(image: ImageRecord, candidates: Candidates) -> None:
    for code in candidates.rle or ():
        if list(code["size"]) != [image.height, image.width]:
            raise RecordError(
                f"the masks of {image.id!r} must be of size [{image.height}, {image.width}] (height, width), got {code['size']}"
            )


def _write(path: Path, table: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes())


def _read(path: Path, columns: Sequence[str] | None = None) -> Any:
    import pyarrow.parquet as pq

    with _damage(path), pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say of a Parquet file that does not read which one it is, and what to do."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's word; pyarrow gives damage no number
            with disk_errors(path):
                raise
        raise StoreError(
            f"{path} is damaged ({error}); delete this one file and run `label` again: only its images are looked at once more"
        ) from error
