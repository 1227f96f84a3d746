"""Which student a name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.distill.detr_models import MINI, PRETRAINED
from autodistill_grounded_sam.distill.detr_target import DetrTarget
from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget
from autodistill_grounded_sam.errors import PluginError


@pytest.mark.parametrize("name", [*PRETRAINED, *MINI, "PekingU/rtdetr_v2_r34vd", "./student/best"])
def test_students_of_transformers(name: str) -> None:
    target = plugins.load("targets", name, offline=True)
    assert isinstance(target, DetrTarget)
    assert target.model == name


@pytest.mark.parametrize("name", ["yolov8n-seg.pt", "yolo11n", "yolo11n.yaml", "rtdetr-l.yaml", "runs/best.pt"])
def test_students_of_ultralytics(name: str) -> None:
    assert isinstance(plugins.load("targets", name, offline=True), UltralyticsTarget)


def test_a_folder_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "best").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(plugins.load("targets", "best"), DetrTarget)


def test_a_name_of_nothing() -> None:
    with pytest.raises(PluginError, match=r"no target is named 'rfdetr-nano'; did you mean 'rf-detr-nano'\?"):
        plugins.load("targets", "rfdetr-nano")
