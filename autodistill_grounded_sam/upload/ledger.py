"""The ledger of an upload: an append-only JSONL file, one row for every step that a server confirmed or refused for good."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from autodistill_grounded_sam.errors import UploadError

Status = Literal["image", "done", "failed"]  # image: it is up, its labels are not yet; done: both are


@dataclass(frozen=True)
class LedgerRow:
    """One step: `digest` is the sha256 of the image file, `labels` that of its label text, `remote_id` the server's image id.

    `is_prediction` says of labels how they went up; `error` of a step that is done, why the server kept others.
    """

    project: str
    digest: str
    name: str
    status: Status
    remote_id: str = ""
    labels: str = ""
    error: str = ""
    is_prediction: bool = False


class Ledger:
    """What went up, by image digest, for one project. Every row is on the disk before `add` returns; threads may share it."""

    def __init__(self, path: Path, project: str) -> None:
        self.path = path
        self._project = project
        self._lock = threading.Lock()
        self._rows: dict[str, LedgerRow] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_unfinished_row(path)
        for row in read_ledger(path):
            if row.project == project and (row.status != "failed" or row.digest not in self._rows):
                self._rows[row.digest] = row

    def find(self, digest: str) -> LedgerRow | None:
        """The last row of an image that still holds: a later failure does not undo what the server has."""
        return self._rows.get(digest)

    def add(self, digest: str, name: str, status: Status, **more: Any) -> None:
        """Append a row, whole or not at all; `more` are further fields of it."""
        row = LedgerRow(self._project, digest, name, status, **more)
        line = json.dumps({key: value for key, value in asdict(row).items() if value}) + "\n"
        with self._lock:
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode())
                os.fsync(file.fileno())
            if status != "failed" or digest not in self._rows:
                self._rows[digest] = row


def read_ledger(path: Path) -> list[LedgerRow]:
    """All rows of a ledger, of every project; none where there is no file."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(LedgerRow(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UploadError(f"{path}:{number} is no row of an upload ledger; mend or remove the line") from error
    return rows


def _cut_unfinished_row(path: Path) -> None:
    """Take away the row that a killed run did not finish: its step is simply done again."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
