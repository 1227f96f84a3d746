"""Names: built-ins, entry points, pkg.module:Class, weights; and what is said when a name does not work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.errors import MissingExtraError, PluginError
from autodistill_grounded_sam.testing import FakeDetector, FakeSegmenter


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs distributions made of one module and some entry points, as pip would leave them on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution: str, role: str, **points: str) -> None:
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{name.replace('_', '-')} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[autodistill_grounded_sam.{role}]\n{lines}")

    def module(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)

    install.module = module  # type: ignore[attr-defined]
    return install


def test_a_third_party_detector_is_built_without_arguments(installed: Any) -> None:
    installed("their-models", "detectors", their_fake="autodistill_grounded_sam.testing:FakeDetector")
    assert isinstance(plugins.load("detectors", "their-fake", device="cuda", offline=True), FakeDetector)
    (plugin,) = [plugin for plugin in plugins.list_plugins("detectors") if plugin.name == "their-fake"]
    assert (plugin.distribution, plugin.built_in, plugin.problem()) == ("their-models", False, "")


def test_a_dotted_name_works_directly() -> None:
    assert isinstance(plugins.load("segmenters", "autodistill_grounded_sam.testing:FakeSegmenter", device="cpu"), FakeSegmenter)


def test_a_dotted_name_of_ours_is_built_without_arguments_too() -> None:
    assert not plugins.find("detectors", "autodistill_grounded_sam.detect.grounding_dino:GroundingDino").built_in


def test_listing_imports_nothing_and_a_broken_plugin_breaks_only_itself(installed: Any) -> None:
    installed("broken-models", "detectors", broken="broken_models:Detector", gone="no_such_module:Detector")
    installed.module("broken_models", "raise RuntimeError('compiled for another python')")
    listed = {plugin.name: plugin for plugin in plugins.list_plugins("detectors")}
    assert "broken_models" not in sys.modules
    problem = listed["broken"].problem()
    assert problem == (
        "detector 'broken' (broken_models:Detector, broken-models) does not load: RuntimeError: compiled for another python"
    )
    assert "ModuleNotFoundError: No module named 'no_such_module'" in listed["gone"].problem()
    assert isinstance(plugins.load("detectors", "autodistill_grounded_sam.testing:FakeDetector"), FakeDetector)
    with pytest.raises(PluginError, match=r"detector 'broken' .* does not load"):
        plugins.load("detectors", "broken")


def test_a_clash_names_both_distributions(installed: Any) -> None:
    installed("one-models", "detectors", same="autodistill_grounded_sam.testing:FakeDetector")
    installed("two-models", "detectors", same="autodistill_grounded_sam.testing:FakeDetector", mini="two:Mini")
    with pytest.raises(PluginError, match=r"detector 'same' is claimed by (one-models and two-models|two-models and one-models)"):
        plugins.load("detectors", "same")
    with pytest.raises(PluginError, match=r"'mini' is claimed by autodistill-grounded-sam and two-models; uninstall one of them"):
        plugins.load("detectors", "mini")


@pytest.mark.parametrize(
    ("role", "name", "said"),
    [
        ("detectors", "mimi", r"no detector is named 'mimi'; did you mean 'mini'\? \(known: mini.*hub id.*pkg.module:Class"),
        ("taggers", "minni", r"no tagger is named 'minni'; did you mean 'mini'\? \(known: mini"),
        ("detectors", "os.path:join", r"detector 'os.path:join' must be a class, but os.path:join is a function"),
        ("detectors", "pathlib:NoSuch", r"does not load: AttributeError"),
        (
            "detectors",
            "collections:Counter",
            r"detector 'collections:Counter' \(collections:Counter\) lacks the method detect of Detector",
        ),
        ("detectors", "pathlib:Path.home", r"no detector is named"),
        ("detectors", "datetime:date", r"could not be built without arguments: TypeError"),
        ("writers", "yolo", r"no role is named 'writers'; the roles are detectors, segmenters, taggers, formats, targets"),
    ],
)
def test_names_that_do_not_work(role: str, name: str, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        plugins.load(role, name)


def test_other_names_are_names_of_weights(tmp_path: Path) -> None:
    for name in ("IDEA-Research/grounding-dino-tiny", "google/owlv2-base-patch16-ensemble", str(tmp_path), "weights.pth"):
        assert plugins.find("detectors", name).target.endswith("choosing:DetectorOfWeights")
        assert plugins.find("detectors", name).built_in
    assert all(plugins.find(role, "mini").has_weights for role in ("detectors", "segmenters"))


def test_every_built_in_loads() -> None:
    for role in plugins.BUILT_IN:
        for plugin in plugins.list_plugins(role):
            if plugin.built_in:
                assert plugin.problem() == "", plugin


def test_a_missing_extra_is_said_as_such(installed: Any) -> None:
    installed.module(
        "extra_models",
        "from autodistill_grounded_sam.errors import MissingExtraError\n"
        "class Detector:\n    def __init__(self):\n        raise MissingExtraError('detector x', 'yolo')\n",
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'autodistill-grounded-sam\[yolo\]'"):
        plugins.load("detectors", "extra_models:Detector")


def test_importing_and_listing_is_cheap() -> None:
    code = (
        "import sys; from autodistill_grounded_sam import plugins; [plugins.list_plugins(role) for role in plugins.BUILT_IN]; "
        "assert not {'torch', 'transformers', 'ultralytics', 'pyarrow', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
