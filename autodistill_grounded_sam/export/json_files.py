"""Large JSON files of a dataset, written and read row by row, so that memory stays flat however many labels there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def append_rows(part: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a part: one JSON object a line."""
    with part.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def join_parts(path: Path, head: Mapping[str, Any], parts: Mapping[str, Path]) -> None:
    """Write one JSON object: the head's keys, then a list a part, a row a line. A part without a file is an empty list."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1])
        for name, part in parts.items():
            file.write(f',\n"{name}": [')
            for place, line in enumerate(lines_of(part)):
                file.write(("," if place else "") + "\n" + line)
            file.write("\n]")
        file.write("\n}\n")


def join_list(path: Path, part: Path) -> None:
    """Write one JSON list of a part's rows, a row a line."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for place, line in enumerate(lines_of(part)):
            file.write(("," if place else "") + "\n" + line)
        file.write("\n]\n")


def stream_rows(path: Path, name: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a list in a file of `join_parts` (of `join_list` without a name), one at a time: json.load would hold all."""
    start = f'"{name}": [' if name else "["
    inside = False
    for line in lines_of(path):
        if inside and line.startswith("]"):
            return
        if inside:
            yield json.loads(line.rstrip(","))
        inside = inside or line == start


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file without their ends; none where there is no file."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\n")
