"""Every example runs as a user runs it, at a small size: what stands in capitals at its top is for the user to change, too."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.upload.roboflow_server import KEY, FakeRoboflow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an example in an empty folder, with other constants; what it printed.

    With `variables` of the environment, which libraries read when they are imported, in a process of its own.
    """

    def run(name: str, *, variables: dict[str, str] | None = None, **constants: int) -> str:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        for constant, value in constants.items():
            text, changed = re.subn(rf"^{constant} = \d+$", f"{constant} = {value}", text, flags=re.MULTILINE)
            assert changed == 1, f"{name}.py must set {constant} once"
        script = tmp_path / f"{name}.py"
        script.write_text(text, encoding="utf-8")
        return here(script) if variables is None else execute([script], tmp_path, variables)

    return run


def here(script: Path) -> str:
    """Run a script in this process, which has torch and the rest: `__main__`, `sys.argv` and the folder are its own."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.chdir(script.parent)
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, "argv", [str(script)])
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue()


def execute(words: list[object], folder: Path, variables: dict[str, str]) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("ROBOFLOW_API_KEY", "API_URL")}
    environment |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", **variables}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_label_and_distill(run: Run, tmp_path: Path) -> None:
    said = run("label_and_distill", SCENES=12, EPOCHS=1, UNSEEN=4)
    assert "12 images with the classes ball, star, box" in said
    assert re.search(r"teacher: precision (1\.00|0\.\d\d)", said) and "student: " in said
    assert (tmp_path / "label_and_distill/student.jpg").is_file()


@pytest.mark.slow
def test_drop_in_for_autodistill(run: Run, tmp_path: Path) -> None:
    said = run("drop_in_for_autodistill", SCENES=6)
    assert "6 images labelled, classes ['ball', 'star', 'box']" in said
    labels = [int(number) for number in re.findall(r"box threshold 0\.\d+: (\d+) labels, 0 images looked at again", said)]
    assert labels[0] >= labels[1]
    assert list((tmp_path / "drop_in_for_autodistill/images_labeled").glob("*/labels/confidence-*.txt"))


@pytest.mark.slow
def test_adapt_with_twenty_images(run: Run, tmp_path: Path) -> None:
    said = run("adapt_with_twenty_images", LABELLED=6, STEPS=4, OTHERS=3)
    assert "4 steps; 1 of the 6 images were held out" in said and "\nafter: " in said
    assert (tmp_path / "adapt_with_twenty_images/weights/model.safetensors").is_file()


@pytest.mark.slow
def test_tune_thresholds(run: Run) -> None:
    said = run("tune_thresholds", SCENES=12)
    assert "12 images looked at" in said and said.count("0 images looked at") == 3
    assert re.search(r"^  # .* objects in \d+ images\n  ball:", said, re.MULTILINE)


@pytest.mark.slow
def test_negatives(run: Run) -> None:
    said = run("negatives", SCENES=6)
    right = [float(share) for share in re.findall(r"(\S+) of the labels are right", said)]
    assert len(right) == 3 and right[0] < right[1] <= right[2]
    assert re.search(r"\d+ negative", said)


@pytest.mark.slow
def test_small_objects(run: Run) -> None:
    said = run("small_objects", SCENES=1, WIDTH_PX=400, HEIGHT_PX=300)
    none, auto = (float(found) for found in re.findall(r"of the objects found (\S+)", said))
    assert auto > none


@pytest.mark.slow
def test_video_to_dataset(run: Run) -> None:
    said = run("video_to_dataset", VIDEOS=3, FRAMES=60)
    assert re.search(r"walk_0\.avi: 60 frames, 12 looked at, [1-9]\d* alike, [1-9]\d* taken", said)
    train, valid = (set(re.findall(r"walk_\d", line)) for line in re.findall(r"^(?:train|valid): .*", said, re.MULTILINE))
    assert train and valid and not train & valid and len(train | valid) == 3


@pytest.mark.slow
def test_your_own_plugin(run: Run) -> None:
    said = run("your_own_plugin", SCENES=4)
    assert "SpotDetector keeps the contract" in said and "HastyDetector does not: detect must return one Candidates" in said
    assert re.search(r"[1-9]\d* labels: {'cold': ", said)


@pytest.mark.slow
def test_roboflow_round_trip(run: Run, tmp_path: Path) -> None:
    assert "no ROBOFLOW_API_KEY: nothing is sent" in run("roboflow_round_trip", SCENES=3, variables={})
    server = FakeRoboflow(KEY)
    try:
        login = str(tmp_path / "no-login.json")
        variables = {"API_URL": server.url, "ROBOFLOW_API_KEY": KEY, "ROBOFLOW_CONFIG_DIR": login}
        said = run("roboflow_round_trip", SCENES=3, variables=variables)
    finally:
        server.stop()
    assert "first call: 3 sent, 0 were there before, 3 found there" in said
    assert "second call: 0 sent, 3 were there before, 3 found there" in said
    assert "3 images came down, 3 of them the very files that went up" in said
    assert KEY not in said


@pytest.mark.slow
@pytest.mark.ray
def test_ray_cluster(run: Run) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    said = run("ray_cluster", SCENES=8, variables={})
    assert "8 images looked at by two workers" in said and "all the same: True" in said


@pytest.mark.slow
def test_demo_at_a_small_size(tmp_path: Path) -> None:
    said = execute([EXAMPLES / "demo.py", "--out", tmp_path / "demo", "--scenes", "12", "--epochs", "1"], tmp_path, {})
    assert "teacher (mini) on 40 unseen scenes" in said
    assert "student (YOLOv8n) on the same 40" in said
    assert (tmp_path / "demo/contact_sheet.png").is_file()


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{script.stem}"' in text or f'"{script.name}"' in text for script in EXAMPLES.glob("*.py"))
