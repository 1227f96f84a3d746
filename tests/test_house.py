"""The laws of the house, read from the imports: who may know whom, what stays light, how long a file and a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "autodistill_grounded_sam"
NAME = PACKAGE.name
GROUND = {
    "about", "coco_datasets", "config", "datasets", "drawing", "errors", "example_images", "image_modes", "images", "loading",
    "mask_runs", "masks", "ontology", "ontology_io", "painting", "parquet_images", "places", "plugins", "protocols", "reviews",
    "similar", "tool_datasets", "tool_images", "types", "voc_datasets", "weights", "word_forms",
}  # fmt: skip
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
ARROWS = {("adapt", "detect"), ("adapt", "segment"), ("adapt", "evaluate"), ("tune", "decide"), ("tune", "evaluate"),
          ("check", "evaluate"), ("check", "quality"), ("tag", "detect"), ("distill", "evaluate"),
          ("app", "decide"), ("app", "review"), ("report", "decide"), ("review", "store"), ("review", "decide")}  # fmt: skip
JOINERS = {
    "adapting",
    "benchmarking",
    "contracts",
    "checking",
    "cross_fitting",
    "discovering",
    "frames",
    "pipeline",
    "playing",
    "decisions",
    "importing",
    "uploading",
    "run_setup",
    "measuring",
    "reporting",
    "reviewing",
    "trusting",
    "tuning",
    "cli",
    "cli_about",
    "cli_app",
    "cli_benchmark",
    "cli_datasets",
    "cli_discover",
    "cli_few_labels",
    "cli_look",
    "cli_output",
    "cli_review",
    "grounded_sam",
    "testing",
    "__init__",
}
NO_TORCH = {"check", "decide", "discover", "export", "quality", "store", "report", "review", "tune"} | GROUND - {"loading"}
MODULES = sorted(PACKAGE.rglob("*.py"))
BESIDE = [path for room in ("benchmarks", "tests", "tools") for path in sorted((PACKAGE.parent / room).rglob("*.py"))]


def place_of(path: Path) -> str:
    """The room, or the ground-floor module, that a file belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_places(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith(f"{NAME}.")}
    return {name for name in names if name in ROOMS | GROUND | JOINERS}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_follow_the_arrows(path: Path) -> None:
    place = place_of(path)
    if place in JOINERS:
        assert "cli" not in own_places(path) or place == "cli", "nothing imports cli"
        return
    for other in own_places(path) - {place}:
        allowed = other in GROUND or (place, other) in ARROWS
        assert allowed, f"{place} must not import {other} ({path})"


@pytest.mark.parametrize("path", [p for p in MODULES if place_of(p) in NO_TORCH], ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_the_cheap_half_never_imports_torch(path: Path) -> None:
    heavy = {"torch", "torchvision", "transformers", "ultralytics", "autodistill"}
    assert not heavy & {name.split(".")[0] for name in imports_of(path)}


def test_only_the_door_imports_autodistill() -> None:
    users = {place_of(path) for path in MODULES if any(name.split(".")[0] == "autodistill" for name in imports_of(path))}
    assert users == {"grounded_sam"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_fit_their_screens(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{path}: {node.name} is longer than 60 lines"


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: path.relative_to(PACKAGE.parent).as_posix())
def test_files_beside_the_package_fit_their_screens_too(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_library_never_prints_and_never_asserts() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno} meets input with assert"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"


def test_importing_the_package_is_light_and_quick() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import autodistill_grounded_sam as package; "
        "spent = time.perf_counter() - start; dir(package); "
        "heavy = {'torch', 'autodistill', 'transformers', 'supervision', 'cv2', 'pydantic'} & set(sys.modules); "
        "print(round(spent, 3), sorted(heavy))"
    )
    spent, heavy = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split(" ", 1)
    assert heavy.strip() == "[]"
    assert float(spent) < 0.3
