"""The stories as notebooks: `python -m tools.notebooks [NAME...]` makes docs/stories/NAME.ipynb of examples/NAME.py and runs it.

A script is cut into cells at its `# %%` lines; `# %% [markdown]` begins a text of comments. Each notebook runs in an empty
folder. What its cells print and show is kept; what goes to stderr (progress, rates) is not: it differs from run to run. With
`--texts` nothing runs: where only texts were changed, the notebook keeps what its cells put out. Needs the extra [docs].
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS, NOTEBOOKS = ROOT / "examples", ROOT / "docs" / "stories"
TEXT = "# %% [markdown]\n"
_SECONDS = 3600  # a cell may take, on a machine that is busy
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def stories() -> list[str]:
    """The names of the scripts in cells, sorted."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py") if path.read_text(encoding="utf-8").startswith(TEXT))


def cells_of(script: str) -> list[tuple[str, str]]:
    """("code" or "markdown", source) of each cell of a script in percent format."""
    cells = []
    for piece in re.split(r"^(?=# %%)", script, flags=re.MULTILINE):
        head, _, body = piece.partition("\n")
        if head == TEXT.strip():
            cells.append(("markdown", "\n".join(re.sub("^# ?", "", line) for line in body.strip().splitlines())))
        elif body.strip():
            cells.append(("code", body.strip()))
    return cells


def execute(name: str) -> Any:
    """The notebook of a story, with what its cells put out; raises nbclient's CellExecutionError where one fails."""
    from nbclient import NotebookClient

    notebook = _blank(name)
    with tempfile.TemporaryDirectory() as folder, _world(name) as variables:
        client = NotebookClient(notebook, timeout=_SECONDS, record_timing=False, resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, **variables})
    for cell in _code(notebook):
        cell.outputs = [_plain(output) for output in cell.outputs if _is_kept(output)]
    notebook.metadata = _METADATA  # the kernel adds its own version
    return notebook


def with_new_texts(name: str) -> Any:
    """The notebook as it was executed, with the texts that its script has now; raises ValueError where the code is another."""
    import nbformat

    notebook, executed = _blank(name), nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    if [cell.source for cell in _code(notebook)] != [cell.source for cell in _code(executed)]:
        raise ValueError(f"the code of {name} was changed: run it without --texts")
    for cell, before in zip(_code(notebook), _code(executed), strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return notebook


def _blank(name: str) -> Any:
    import nbformat.v4 as v4

    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell}
    script = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    cells = [make[kind](source, id=f"cell-{number}") for number, (kind, source) in enumerate(cells_of(script))]
    return v4.new_notebook(cells=cells, metadata=_METADATA)


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@contextlib.contextmanager
def _world(name: str) -> Iterator[Mapping[str, str]]:
    """The environment variables that a story runs with: this checkout, one thread, no network; for Roboflow the tests' server."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    common = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if name != "roboflow_round_trip":
        yield common
        return
    from tests.upload.roboflow_server import KEY, FakeRoboflow

    server = FakeRoboflow(KEY)
    try:
        yield {**common, "API_URL": server.url, "ROBOFLOW_API_KEY": KEY}
    finally:
        server.stop()


def _is_kept(output: Any) -> bool:
    return bool(output.output_type == "execute_result" or output.get("name") == "stdout")


def _plain(output: Any) -> Any:
    """A picture as JPEG alone: Pillow offers the same one as PNG as well, ten times as large."""
    if "image/jpeg" in output.get("data", {}):
        output.data.pop("image/png", None)
    return output


def main() -> None:
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a script in examples/ (all that are in cells)")
    parser.add_argument("--texts", action="store_true", help="run nothing: take over texts alone")
    args = parser.parse_args()
    NOTEBOOKS.mkdir(parents=True, exist_ok=True)
    for name in args.names or stories():
        path = NOTEBOOKS / f"{name}.ipynb"
        notebook = with_new_texts(name) if args.texts else execute(name)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
