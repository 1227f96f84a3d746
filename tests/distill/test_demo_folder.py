"""The demo empties a folder only if an earlier demo made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


def make_folder(out: Path) -> None:
    namespace: dict[str, object] = {"__name__": "demo"}
    exec(compile(DEMO.read_text(encoding="utf-8"), str(DEMO), "exec"), namespace)
    namespace["make_folder"](out)  # type: ignore[operator]


@pytest.mark.parametrize("there", [False, True])
def test_demo__new_and_empty_folders_are_used(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "a" / "demo"
    if there:
        out.mkdir(parents=True)
    make_folder(out)
    assert [path.name for path in out.iterdir()] == [".demo"]


def test_demo__empties_its_own_folder_and_follows_no_link(tmp_path: Path) -> None:
    out, precious = tmp_path / "demo", tmp_path / "precious"
    make_folder(out)
    (out / "scenes").mkdir()
    (out / "scenes/a.png").write_bytes(b"x")
    precious.mkdir()
    (precious / "mine").write_text("x")
    (out / "link").symlink_to(precious)
    make_folder(out)
    assert [path.name for path in out.iterdir()] == [".demo"]
    assert (precious / "mine").exists()


def test_demo__a_folder_of_others_is_kept_and_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.jpg").write_bytes(b"x")
    (tmp_path / "file").write_text("x")
    words = [sys.executable, str(DEMO), "--scenes", "1", "--out"]
    done = subprocess.run([*words, str(tmp_path / "photos")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "photos holds files that no demo made: give another --out, or delete it yourself; it is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine.jpg"]
    with pytest.raises(FileExistsError, match="file is a file: give another --out"):
        make_folder(tmp_path / "file")
