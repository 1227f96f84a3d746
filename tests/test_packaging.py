"""What is shipped: the ontologies and the mini weights are in wheel, sdist and editable installs; every import is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "autodistill_grounded_sam"
YAMLS = sorted(path.relative_to(ROOT / "ontologies").as_posix() for path in (ROOT / "ontologies").rglob("*.yaml"))
MINI = sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "mini").rglob("*") if path.is_file())
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "report" / "templates").iterdir())
LOAD = "from autodistill_grounded_sam.ontology import Ontology; print(len(Ontology.load('coco80').classes))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and an sdist of a copy of the tracked files, so that no build folder is left here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_is_needed(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    assert wheel.name.startswith("autodistill_grounded_sam-1.0.0.dev0")
    names = zipfile.ZipFile(wheel).namelist()  # `build` makes the wheel from the sdist, so this speaks for both
    assert {f"autodistill_grounded_sam/ontologies/{name}" for name in YAMLS} <= set(names)
    assert {f"autodistill_grounded_sam/{name}" for name in [*MINI, *TEMPLATES]} <= set(names)
    assert "autodistill_grounded_sam/py.typed" in names
    assert {f"autodistill_grounded_sam/review/page/review.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert {f"autodistill_grounded_sam/app/page/app.{kind}" for kind in ("css", "js")} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "tools/", "ontologies/", "benchmarks/"))]
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert {f"ontologies/{name}" for name in YAMLS} | {"README.md", "LICENSE", "CHANGELOG.md"} <= files


@pytest.mark.slow
def test_ontologies_are_found_in_an_installed_wheel_and_in_an_editable_install(built: tuple[Path, Path], tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(built[0])]
    subprocess.run(pip, check=True)
    for code_path, cwd in ((tmp_path / "site", tmp_path), (ROOT, tmp_path)):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(code_path)!r}); {LOAD}"],
            cwd=cwd, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "80"


def test_mini_weights_are_small() -> None:
    weights = list((PACKAGE / "mini").rglob("*.safetensors"))
    assert len(weights) == 2
    assert sum(path.stat().st_size for path in weights) <= 10e6
    assert (PACKAGE / "mini" / "recipe.json").is_file()


BROUGHT_BY = {"groundingdino": "rf-groundingdino"}  # of an extra, where it is not installed and of another name


def test_everything_that_is_imported_is_declared() -> None:
    declared = {Requirement(line).name.lower().replace("_", "-") for line in requires("autodistill-grounded-sam") or ()}
    owners = packages_distributions()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - {"autodistill_grounded_sam", "__future__", ""}:
                if top in sys.stdlib_module_names:
                    continue
                found = {
                    owner.lower().replace("_", "-") for owner in owners.get(top, [BROUGHT_BY.get(top, top)])
                }  # ray need not be installed
                assert found & declared, f"{path.name} imports {top} ({found or 'not installed'}), undeclared in setup.py"


def test_version_is_told_once() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r'^__version__ = "1\.0\.0\.dev0"$', text, re.MULTILINE)
