"""The table of docs/plugins.md, from `grounded-sam plugins --json`: `python -m tools.plugins_table` writes it anew.

What other distributions add on this machine is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
BEGIN, END = "<!-- the table: python -m tools.plugins_table -->\n", "<!-- end of the table -->\n"


def page_with(rows: Sequence[Mapping[str, Any]], text: str) -> str:
    """The page `text` with the table of these rows of `plugins --json`."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = ["| name | kind | checkpoints | licence | needs | proven here, and how |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["from"] == "autodistill-grounded-sam":
            checkpoints = "<br>".join(f"`{name}`" if "/" in name else name for name in row["checkpoints"] if name != row["name"])
            cells = (row["name"], row["role"][:-1], checkpoints, row["licence"], row["needs"], row["proven"])
            line = "| " + " | ".join(cell or "" for cell in cells) + " |"
            lines.append(re.sub(r"`docs/(\w+)\.md`", r"[\1](\1.md)", line))  # a place in the repository, there; a link, here
    return before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after


def main() -> None:
    command = [sys.executable, "-m", "autodistill_grounded_sam.cli", "plugins", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    PAGE.write_text(page_with(json.loads(said)["plugins"], PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
