"""The detector that runs a folder is chosen by the architecture in its config.json; each one keeps the contract of the seam."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.detect.choosing import DetectorOfWeights
from autodistill_grounded_sam.detect.grounding_dino import GroundingDino
from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.testing import check_detector
from autodistill_grounded_sam.weights import known_models
from tests.detect.tiny_models import BUILDERS, IMAGES

PROMPTS = ("red cat", "dog", "t-shirt")


@pytest.mark.parametrize("mm", [False, True])
def test_grounding_dino_of_either_kind(make_grounding_dino: Callable[..., Path], mm: bool) -> None:
    detector = plugins.load("detectors", str(make_grounding_dino(mm=mm)), device="cpu", offline=True, floor=0.0)
    assert type(detector) is GroundingDino
    assert detector._model.config.model_type == ("mm-grounding-dino" if mm else "grounding-dino")
    check_detector(detector, PROMPTS)


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_kind_runs_in_a_lower_precision_and_says_nothing_while_it_loads(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.detect.florence.MOST_TOKENS", 20)
    folder = BUILDERS[kind](tmp_path)
    capfd.readouterr()
    detector = plugins.load("detectors", str(folder), floor=0.0, precision="bfloat16")
    assert capfd.readouterr().err == ""
    for found in detector.detect(IMAGES[:2], PROMPTS):
        assert found.scores.dtype == found.xyxy.dtype == np.float32


def test_an_architecture_that_is_no_detector_is_refused(make_grounding_dino: Callable[..., Path]) -> None:
    folder = make_grounding_dino()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match=r"holds a 'bert' model; the detectors here run .*mm-grounding-dino, .*owlv2"):
        DetectorOfWeights(str(folder))
    (folder / "config.json").write_text("not json")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        DetectorOfWeights(str(folder))


@pytest.mark.parametrize("name", [model.name for model in known_models() if model.role == "detector" and model.name != "mini"])
def test_weights_that_are_not_here_are_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"the detector '{name}' is not on this machine .* `grounded-sam prefetch {name}`"):
        plugins.load("detectors", name, offline=True)
