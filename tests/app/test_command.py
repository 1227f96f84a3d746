"""`grounded-sam app`: what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, WrongRunError
from autodistill_grounded_sam.playing import material_of, open_app
from tests.app.app_kit import label_folder, playground

APP = [sys.executable, "-m", "autodistill_grounded_sam.cli", "app", "--no-browser", "--json", "--offline", "--device", "cpu"]


def test_without_gradio_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'autodistill-grounded-sam\[app\]'"):
        open_app()


def test_it_starts_with_the_built_in_models_and_with_a_run_with_its_own(tmp_path: Path) -> None:
    material = material_of()
    assert (material.see.detector, material.see.segmenter, material.run) == ("mini", "mini", None)
    out = label_folder(tmp_path, 2, {"red circle": "ball"})
    opened = playground(out).material
    assert opened.see.detector.endswith(":FakeDetector") and opened.ontology.class_names == ("ball",)
    assert playground(out, detector="mini").material.see.detector == "mini"
    with pytest.raises(WrongRunError, match=r"was never asked for 'cup'"):
        material_of(out, ontology={"cup": "cup"})
    with pytest.raises(WrongRunError, match=r"no run in"):
        material_of(tmp_path / "images")


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")
def test_the_command_tells_its_address_and_ends_by_ctrl_c() -> None:
    process = subprocess.Popen(APP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 200 and b"gradio" in answer.read()
        with urllib.request.urlopen(url + "gradio_api/heartbeat/tab", timeout=60) as tab:  # as an open tab holds it
            assert tab.read(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) in (0, 130)
    finally:
        process.kill()
    assert "Traceback" not in process.stderr.read()


def test_a_port_out_of_range_is_told() -> None:
    pytest.importorskip("gradio", reason="needs the extra [app]: pip install 'autodistill-grounded-sam[app]'")
    with pytest.raises(ConfigError, match=r"port 70000 cannot be used: .*0-65535.*give another --port"):
        open_app(port=70_000)
