"""What of an output folder is ours, and putting a finished dataset in its place: nothing foreign or hand-made is overwritten."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import autodistill_grounded_sam
from autodistill_grounded_sam.errors import ExportError, ImageReadError, WrongPlaceError

# Remembers what of an output folder is ours to replace. A folder that holds anything else is never overwritten.
MARKER = ".grounded-sam-dataset.json"
# Files that trainers leave in a dataset (ultralytics' label cache, images kept as arrays): not a reason to refuse it.
TRAINER_SUFFIXES = (".cache", ".npy")
# Files that a desktop leaves in every folder somebody has looked into: nor are these.
DESKTOP_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
# What people correct by hand. Images are left out of the digest: to read them all again would take as long as the export.
LABEL_SUFFIXES = (".txt", ".json", ".yaml", ".xml", ".md")
# Pictures in these folders are labels too, of the formats that paint them.
MASK_FOLDERS = frozenset(("SegmentationClass", "SegmentationObject", "classes", "objects", "panoptic_train", "panoptic_valid"))
_CHUNK_BYTES = 1 << 20


class _Held(NamedTuple):
    """What an entry of a dataset holds: how many files of ours, and one digest over the names and contents of its label files."""

    files: int
    labels: str


class _Marked(NamedTuple):
    """What a marker says: format ("" unknown), files of each entry, and the digests that its labels may have (none: unknown)."""

    format: str
    files: Mapping[str, int]
    labels: Mapping[str, Sequence[str]]


@contextlib.contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Whatever the disk refuses becomes one ExportError that names the place, and says how much is free where it is full."""
    try:
        yield
    except (ExportError, ImageReadError):
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(f"cannot write the dataset {out}: {error}") from error
        place = next((folder for folder in (out, *out.parents) if folder.exists()), Path())
        free_mb = shutil.disk_usage(place).free / 1e6
        raise ExportError(
            f"the disk of {out} is full ({free_mb:.0f} MB free): make room, or export to another place; "
            "nothing that was seen is lost, and no model is run again"
        ) from error


def require_folder(out: Path) -> None:
    """Raise ExportError where `out` cannot be a folder that this process may write into. Makes nothing."""
    place = next((path for path in (out, *out.parents) if path.exists()), Path())
    if not place.is_dir():
        raise WrongPlaceError(f"{place} is a file; a dataset needs a folder: give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise WrongPlaceError(f"cannot write the dataset {out}: no permission to write into {place}; give another --out")


def require_ours(out: Path, name: str, entries: Sequence[str]) -> None:
    """Raise ExportError unless a dataset of format `name` with these entries may take the place of what `out` holds."""
    marked = _marked(out)
    there = [entry for entry in dict.fromkeys([*entries, *marked.files]) if (out / entry).exists()]
    if marked.format not in ("", name) and any(entry in marked.files for entry in there):
        raise WrongPlaceError(
            f"{out} holds a dataset of format {marked.format}, which a {name} dataset would take away: give another --out, "
            f"or export the same run to another folder with `export --format {name} --out ...`"
        )
    for entry in there:
        if entry not in marked.files:
            raise WrongPlaceError(
                f"{out / entry} is already there and was not written by this tool: move it away, or give another --out; "
                "it is not overwritten"
            )
        held = _held(out / entry)
        added = held.files - marked.files[entry]
        if added > 0:
            raise WrongPlaceError(
                f"{out / entry} holds {added} file(s) more than were written there: move what was added elsewhere, or give "
                "another --out; it is not overwritten"
            )
        known = marked.labels.get(entry)
        if known and held.labels not in known:
            raise WrongPlaceError(
                f"labels in {out / entry} were changed by hand since they were written: move {out / entry} away to keep them, "
                "or give another --out; they are not overwritten"
            )


def put_in_place(partial: Path, out: Path, name: str, entries: Sequence[str]) -> None:
    """Move the finished entries from `partial` to `out`, in place of the old ones; undone as a whole if a move fails."""
    require_ours(out, name, entries)  # once more: labels may have been corrected while this dataset was being made
    old = _marked(out)
    marker = (out / MARKER).read_bytes() if (out / MARKER).exists() else None
    new = {entry: _held(partial / entry) for entry in entries}
    away = partial / "replaced"
    away.mkdir()
    moves = [(out / entry, away / entry) for entry in old.files if (out / entry).exists()]
    moves += [(partial / entry, out / entry) for entry in new]
    done: list[tuple[Path, Path]] = []
    # Both are ours, should this be killed half-way, and whichever is there must not count as added to or changed.
    _write_marker(partial, out, _both(name, old, new))
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
        files = {entry: held.files for entry, held in new.items()}
        _write_marker(partial, out, _Marked(name, files, {entry: [held.labels] for entry, held in new.items()}))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        if marker is None:
            (out / MARKER).unlink()
        else:
            (out / MARKER).write_bytes(marker)
        raise


def take_away(out: Path, name: str, entries: Sequence[str]) -> None:
    """Remove the dataset that an earlier export wrote into `out`, if there is one; what `require_ours` refuses stays."""
    marked = _marked(out)
    if not marked.files:
        return
    require_ours(out, name, entries)
    for entry in marked.files:
        if (out / entry).is_dir():
            shutil.rmtree(out / entry)
        else:
            (out / entry).unlink(missing_ok=True)
    (out / MARKER).unlink()
    with contextlib.suppress(OSError):  # it holds something else
        out.rmdir()


def _file_digest(path: str) -> bytes:
    """The sha256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path each would cost more than to read a label file
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


def _both(name: str, old: _Marked, new: Mapping[str, _Held]) -> _Marked:
    """What holds for the old dataset as well as for the new. Labels of an old marker without digests stay unknown."""
    files = dict(old.files)
    labels = {entry: list(digests) for entry, digests in old.labels.items()}
    for entry, held in new.items():
        if entry not in old.files or entry in labels:
            labels[entry] = [*labels.get(entry, []), held.labels]
        files[entry] = max(files.get(entry, 0), held.files)
    return _Marked(name, files, labels)


def _write_marker(partial: Path, out: Path, marked: _Marked) -> None:
    content = {
        "note": "written by autodistill-grounded-sam, which replaces these entries (no others) when it exports here again, "
        "unless their labels were changed by hand",
        "version": autodistill_grounded_sam.__version__,
        "format": marked.format,
        "entries": marked.files,
        "labels": marked.labels,
    }
    whole = partial / MARKER
    whole.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    whole.replace(out / MARKER)


def _marked(out: Path) -> _Marked:
    try:
        content: dict[str, Any] = json.loads((out / MARKER).read_text(encoding="utf-8"))
        entries, labels = content["entries"], content.get("labels", {})
        files = {str(entry): int(count) for entry, count in entries.items() if Path(entry).name == entry != ".."}
        digests = {entry: [str(digest) for digest in labels[entry]] for entry in files if entry in labels}
        return _Marked(str(content.get("format", "")), files, digests)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Marked("", {}, {})  # no marker, or none of ours: then nothing here is ours to replace


def _held(entry: Path) -> _Held:
    whole = entry.is_file()
    root, count, labels, digest = entry.parent if whole else entry, 0, [], hashlib.sha256()
    for name in [entry.name] if whole else _names(str(entry), ""):
        count += 1
        if name.endswith(LABEL_SUFFIXES) or not MASK_FOLDERS.isdisjoint((entry.name, *name.split("/")[:-1])):
            labels.append(name)
    for name in sorted(labels):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + _file_digest(f"{root}/{name}"))
    return _Held(count, digest.hexdigest())


def _names(folder: str, within: str) -> Iterator[str]:
    """The files below a folder by their POSIX path in it, but those left by others; strings, as there may be millions."""
    with os.scandir(folder) as entries:
        for found in entries:
            if found.is_dir(follow_symlinks=False):
                yield from _names(found.path, f"{within}{found.name}/")
            elif found.is_file() and not _is_left_by_others(found.name):
                yield within + found.name


def _is_left_by_others(name: str) -> bool:
    return name.endswith(TRAINER_SUFFIXES) or name in DESKTOP_FILES
