"""The run folder: written part by part, resumed from the names of its parts, read back in the order of image ids.

    run.json                identity, generations, and what a person wants to know later
    images.parquet          the folder as it was last listed: image_id and digest
    candidates/g*.parquet   the parts
    failed.jsonl            every image set aside
    lock                    held by the process that writes

A generation is one plan: the images that no earlier generation has settled, cut into windows and batches. While the folder,
batch size and part size stay as they are, a run resumes its last generation; when one changes, the rest becomes a new one.
Settled is what was seen, or failed for a reason that lies in the file itself; what failed for a passing reason (`PASSING`)
is looked at again by every later run: once the last generation is complete, such images become the next one.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

from autodistill_grounded_sam.errors import StoreError, WrongRunError
from autodistill_grounded_sam.places import place
from autodistill_grounded_sam.store.files import PARTIAL_SUFFIX, disk_errors, write_json, write_whole
from autodistill_grounded_sam.store.identity import Identity, check_identity
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.store.parts import (
    PartName,
    count_rows,
    read_columns,
    read_part,
    stream_columns,
    write_images,
    write_part,
)
from autodistill_grounded_sam.types import ImageRecord, Sighting, Status

logger = logging.getLogger(__name__)
Row = TypeVar("Row")

STORE_VERSION = 1
# Reasons of `images` and of the worker that the same bytes need not meet again: a disk, a right or a memory may be mended.
PASSING = frozenset({"missing", "broken_link", "permission_denied", "io_error", "changed", "out_of_memory"})


class FailedLine(NamedTuple):
    """One line of failed.jsonl."""

    id: str
    reason: str
    detail: str


class Folder(NamedTuple):
    """An images folder as it is now: what can be looked at, and what could not even be listed."""

    root: Path
    images: Sequence[ImageRecord]
    failed: Sequence[FailedLine] = ()


class Store:
    """A run folder to read from; safe while another process writes to it.

    `folder` is the run folder or the output folder around it. Raises StoreError if there is no run, or not a readable one.
    """

    def __init__(self, folder: Path) -> None:
        self.run = find_run(folder)
        self.info: dict[str, Any] = read_run_json(self.run)

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.info["identity"]["prompts"])

    def seen(self, images_root: Path | None = None) -> Iterator[tuple[ImageRecord, int]]:
        """Every image of the folder that was seen, in the order of ids, with its dhash: all that a split needs."""
        root, columns = images_root or self.images_root, ("image_id", "digest", "width", "height", "dhash", "status")

        def read(part: PartName) -> Iterator[tuple[ImageRecord, int]]:
            for image_id, digest, width, height, dhash, status in read_columns(self.run / "candidates" / str(part), columns):
                if status == Status.SEEN.value:
                    yield ImageRecord(image_id, digest, root, width, height), dhash

        return self.current(read, lambda row: (row[0].id, row[0].digest))

    @property
    def images_root(self) -> Path:
        """The images folder as it was when the images were looked at."""
        return place(self.info["images"])

    @property
    def learnt_from(self) -> frozenset[str]:
        """Digests of the images that the detector of this run was adapted to."""
        return frozenset(self.info.get("learnt_from", ()))

    def digests(self) -> dict[str, str]:
        """The folder as it was last listed: digest by image id."""
        return dict(read_columns(self.run / "images.parquet", ("image_id", "digest")))

    def sightings(self, images_root: Path | None = None) -> Iterator[Sighting]:
        """Every image of the folder that was looked at, in the order of ids, a window of each generation in memory at a time.

        `images_root` says where the images folder is now, if it moved. A file that was changed or taken away does not appear.
        """
        root, prompts = images_root or self.images_root, len(self.prompts)

        def read(part: PartName) -> Iterator[Sighting]:
            return read_part(self.run / "candidates" / str(part), prompts, root)

        return self.current(read, lambda sighting: (sighting.image.id, sighting.image.digest))

    def failed(self) -> list[FailedLine]:
        path = self.run / "failed.jsonl"
        try:
            with disk_errors(path):
                lines = path.read_text("utf-8").splitlines() if path.exists() else []
            return [FailedLine(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}); run `label` again: it writes this file anew") from error

    def not_looked_at(self) -> int:
        """How many images of the folder as it was last listed were never looked at: more than 0 after an interrupted run."""

        def read(part: PartName) -> Iterable[tuple[str, str]]:
            return cast(Iterable[tuple[str, str]], read_columns(self.run / "candidates" / str(part), ("image_id", "digest")))

        return count_rows(self.run / "images.parquet") - sum(1 for _ in self.current(read, lambda row: row))

    def current(self, read: Callable[[PartName], Iterable[Row]], known_by: Callable[[Row], tuple[str, str]]) -> Iterator[Row]:
        """The rows of the folder as it was last listed, in the order of ids; of an image that was looked at twice the newest.
        A row is known by its id and digest.

        The list is read beside the rows, which come in its order: a table of all digests would be half the memory of an export.
        """

        def generation(number: int) -> Iterator[Row]:
            mine = (part for part in parts if part.generation == number)
            for _, window in groupby(mine, key=lambda part: part.window):
                yield from sorted((row for part in window for row in read(part)), key=known_by)

        parts = list_parts(self.run)
        newest_first = [generation(number) for number in sorted({part.generation for part in parts}, reverse=True)]
        listed = stream_columns(self.run / "images.parquet", ("image_id", "digest"))
        now, last_id = next(listed, None), ""
        for row in heapq.merge(*newest_first, key=lambda row: known_by(row)[0]):
            known = known_by(row)
            while now is not None and now[0] < known[0]:
                now = next(listed, None)
            if known == now and known[0] != last_id:
                last_id = known[0]
                yield row


class StoreWriter:
    """A run folder to write to, in a with-block that holds its lock; what was added is on disk when the block ends.

    `todo` are the images of this generation, to be planned with `batch_size` and `part_images`; `done` are its
    (window, batch) pairs that need not be looked at again. A part is closed when its window is whole or has waited for
    `part_seconds`: workers of a cluster fill many windows at a time, and parts of whatever came last would be crumbs.
    A run folder that holds no part yet begins anew, whatever it was meant for before.
    Raises StoreError if another process writes, if the run is of another identity, and where the disk refuses.
    """

    def __init__(
        self,
        run: Path,
        identity: Identity,
        folder: Folder,
        *,
        batch_size: int,
        part_images: int,
        part_seconds: float,
    ) -> None:
        self._run = run
        self._identity = identity
        self._images = sorted(folder.images, key=lambda image: image.id)
        self._failed = folder.failed
        self._part_seconds = part_seconds
        self._pending: dict[int, dict[int, list[Sighting]]] = {}  # batches by number, by window, the longest waiting first
        self._pending_since: dict[int, float] = {}
        self._counted: Counter[int] = Counter()  # images of each window that are on disk or pending
        self._lock = RunLock(run)
        self.info: dict[str, Any] = {
            "version": STORE_VERSION,
            "identity": dict(identity),
            "images": str(folder.root.absolute()),
            "generations": [],
        }
        self._plan = {"folder": _folder_digest(self._images), "batch_size": batch_size, "part_images": part_images}
        self.batch_size, self.part_images = batch_size, part_images
        self.todo: tuple[ImageRecord, ...] = ()
        self.done: frozenset[tuple[int, int]] = frozenset()
        self.finished = False

    def __enter__(self) -> StoreWriter:
        self._lock.__enter__()
        try:
            with disk_errors(self._run):
                self._open()
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with disk_errors(self._run):
                for window in list(self._pending):
                    self._write_window(window)
                self._write_failed()
        except StoreError:
            if error is None:  # a full disk must not hide what went wrong before it
                raise
            logger.exception("the last part could not be written")
        finally:
            self._lock.__exit__(kind, error, trace)

    def add(self, window: int, batch: int, sightings: Sequence[Sighting]) -> None:
        """Take in one whole batch, in any order of batches; closes a part when its window is whole or old enough."""
        self._pending_since.setdefault(window, time.monotonic())
        self._pending.setdefault(window, {})[batch] = list(sightings)
        self._counted[window] += len(sightings)
        if self._counted[window] >= min(self.part_images, len(self.todo) - window * self.part_images):
            self._write_window(window)
        for waiting, since in list(self._pending_since.items()):
            if time.monotonic() - since < self._part_seconds:
                break
            self._write_window(waiting)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Write facts for people (versions, timings, command) into run.json; none of them ever changes a dataset."""
        self.info = {**self.info, **facts}
        write_json(self._run / "run.json", self.info)

    def _open(self) -> None:
        with disk_errors(self._run / "candidates"):
            (self._run / "candidates").mkdir(exist_ok=True)
        parts = _remove_leftovers(self._run)
        old = read_run_json(self._run) if (self._run / "run.json").exists() else None
        if parts and old is None:
            raise StoreError(f"{self._run} holds candidates but no run.json that says what they are of; give another --out")
        if parts and old is not None:  # without a part nothing was seen yet, and the run is not bound to what it was meant for
            check_identity(self._run, old["identity"], self._identity)
            self.info = {**old, "images": self.info["images"]}
        generations = self.info["generations"]
        plan = self._resume(parts, len(generations) - 1)
        if not generations or generations[-1] != plan or (self.finished and self._unsettled(parts)):
            write_images(self._run / "images.parquet", self._images)  # before run.json: a kill between them only comes here again
            generations = [*generations, self._resume(parts, len(generations))]
        self.note({"generations": generations})
        self._write_failed()

    def _resume(self, parts: Sequence[PartName], number: int) -> dict[str, Any]:
        """Go on with generation `number`: all that no earlier one has settled, less the batches that are on disk; its plan.

        The plan holds a digest of `todo`: were a part of an earlier generation deleted, the batches would be others.
        """
        self.todo = self._unsettled([part for part in parts if part.generation < number])
        mine = [part for part in parts if part.generation == number]
        self.done = frozenset((part.window, batch) for part in mine for batch in part.batches)
        self._counted.clear()
        for part in mine:
            self._counted[part.window] += count_rows(self._run / "candidates" / str(part))
        self.finished = self._counted.total() == len(self.todo)
        return {**self._plan, "todo": _folder_digest(self.todo)}

    def _unsettled(self, parts: Sequence[PartName]) -> tuple[ImageRecord, ...]:
        settled = _settled(self._run, parts)
        return tuple(image for image in self._images if (image.id, image.digest) not in settled)

    def _write_window(self, window: int) -> None:
        """Write what is pending of a window, a part for each unbroken run of batches."""
        generation, pending = len(self.info["generations"]) - 1, self._pending[window]
        for _, run in groupby(enumerate(sorted(pending)), key=lambda item: item[1] - item[0]):
            batches = [batch for _, batch in run]
            rows = [sighting for batch in batches for sighting in pending[batch]]
            write_part(self._run / "candidates" / str(PartName(generation, window, batches[0], batches[-1])), rows)
            for batch in batches:
                del pending[batch]
        del self._pending[window], self._pending_since[window]

    def _write_failed(self) -> None:
        digests = {image.id: image.digest for image in self._images}
        failed = {line.id: line for line in self._failed}
        for part in list_parts(self._run):  # of later generations later, so that they have the last word
            columns = ("image_id", "digest", "status", "reason", "detail")
            for image_id, digest, status, reason, detail in read_columns(self._run / "candidates" / str(part), columns):
                if digests.get(image_id) == digest:
                    failed.pop(image_id, None)
                    if status == Status.FAILED.value:
                        failed[image_id] = FailedLine(image_id, reason, detail)
        lines = [json.dumps(failed[key]._asdict(), ensure_ascii=False) + "\n" for key in sorted(failed)]
        write_whole(self._run / "failed.jsonl", "".join(lines).encode())


def find_run(folder: Path) -> Path:
    """The run folder: `folder` itself or `folder/run`; raises StoreError if neither holds a run.json."""
    for run in (folder, folder / "run"):
        with disk_errors(run):
            if (run / "run.json").is_file():
                return run
    raise WrongRunError(f"no run in {folder}: expected {folder / 'run' / 'run.json'} (or run.json); `label` makes one")


def read_run_json(run: Path) -> dict[str, Any]:
    info = read_json(run / "run.json")
    version = info.get("version")
    if version != STORE_VERSION:
        raise StoreError(
            f"{run / 'run.json'} is of version {version}, but this program knows version {STORE_VERSION}; "
            "use the program that wrote it"
        )
    missing = [key for key in ("identity", "images", "generations") if key not in info]
    if missing:
        raise StoreError(
            f"{run / 'run.json'} is damaged (without {', '.join(missing)}); put a copy of it back, or give another --out"
        )
    return info


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the run folder; raises StoreError if the file cannot be read or holds something else."""
    try:
        with disk_errors(path):
            text = path.read_text("utf-8")
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); put a copy of it back, or give another --out") from error


def recorded_batch_size(run: Path) -> int | None:
    """The batch size that a run was begun with, so that `auto` means the same on every resume; None while no part is there."""
    with disk_errors(run):
        if not (run / "run.json").exists() or not (run / "candidates").exists() or not list_parts(run):
            return None
    generations = read_run_json(run)["generations"]
    return int(generations[-1]["batch_size"]) if generations else None


def list_parts(run: Path) -> list[PartName]:
    """The whole parts of a run, sorted by generation, window and batch."""
    with disk_errors(run / "candidates"):
        names = [PartName.parse(path.name) for path in (run / "candidates").iterdir()]
    return sorted(name for name in names if name is not None)


def _remove_leftovers(run: Path) -> list[PartName]:
    """Take away half-written files, and parts whose batches another part holds already; the parts that stay."""
    for partial in [*run.glob(f"*{PARTIAL_SUFFIX}"), *(run / "candidates").glob(f"*{PARTIAL_SUFFIX}")]:
        partial.unlink()
    kept: list[PartName] = []
    for part in list_parts(run):
        before = kept[-1] if kept else None
        same_window = before is not None and (before.generation, before.window) == (part.generation, part.window)
        if before is not None and same_window and part.first <= before.last:
            logger.warning("part %s holds batches of part %s once more and is taken away", part, before)
            (run / "candidates" / str(part)).unlink()
        else:
            kept.append(part)
    return kept


def _settled(run: Path, parts: Sequence[PartName]) -> set[tuple[str, str]]:
    """(id, digest) of what these parts saw, or found to be no usable image; not of what failed for a passing reason."""
    columns = ("image_id", "digest", "status", "reason")
    return {
        (image_id, digest)
        for part in parts
        for image_id, digest, status, reason in read_columns(run / "candidates" / str(part), columns)
        if status == Status.SEEN.value or reason not in PASSING
    }


def _folder_digest(images: Sequence[ImageRecord]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.id}\0{image.digest}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
