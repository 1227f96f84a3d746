"""A student as an ONNX file: read back by onnxruntime it answers the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.distill.detr_models import MINI, model_to_train, save
from autodistill_grounded_sam.distill.students import exported, is_student, load_student
from autodistill_grounded_sam.errors import ConfigError, WeightsError
from autodistill_grounded_sam.masks import decode_mask
from autodistill_grounded_sam.painting import paint_scene
from autodistill_grounded_sam.types import TrainResult
from tests.distill.detr_kit import NAMES, SMALL

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def written(name: str, folder: Path) -> Path:
    """A student with weights that are random, but all different: of equal scores each runtime would take others first."""
    torch.manual_seed(0)
    detr = model_to_train(name, NAMES, 64, offline=True)
    with torch.no_grad():
        for weight in detr.model.parameters():
            weight += 0.1 * torch.randn_like(weight)
        for _ in range(20):  # batch norms learn what comes, or all cells would be about alike
            detr.model.train()(pixel_values=torch.rand(4, 3, 64, 64))
    detr.model.eval()
    save(folder, detr)
    return folder


@pytest.mark.parametrize("name", MINI)
def test_it_answers_the_same(name: str, tmp_path: Path) -> None:
    result = TrainResult(written(name, tmp_path / "best"), "random weights", {}, "")
    result = exported(result, "onnx")
    assert result.exported == tmp_path / "best.onnx"
    assert [path.name for path in result.exported.parent.iterdir() if path.name.startswith(".")] == []
    assert is_student(result.exported)
    ours, theirs = load_student(result.weights, device="cpu"), load_student(result.exported)
    assert theirs.classes == NAMES
    for seed in range(3):
        image = paint_scene(SMALL, seed).image_rgb
        a, b = (student.predict(image, confidence=0.0) for student in (ours, theirs))
        assert np.abs(a.scores - b.scores).max() < 1e-4
        assert np.abs(a.xyxy - b.xyxy).max() < 1e-4 * 96
        assert a.class_names == b.class_names
        assert (a.rles is None) == (b.rles is None) == ("-seg-" not in name)
        for one, other in zip(a.rles or (), b.rles or (), strict=True):
            assert (decode_mask(one) != decode_mask(other)).mean() < 1e-3


def test_what_it_refuses(tmp_path: Path) -> None:
    weights = written("rt-detr-mini", tmp_path / "best")
    with pytest.raises(ConfigError, match=r"can be exported to onnx, got 'engine'"):
        load_student(weights, device="cpu").export("engine")
    student = load_student(load_student(weights, device="cpu").export("onnx"))
    with pytest.raises(ConfigError, match=r"was written for imgsz 64, got 96; export the student anew"):
        student.predict(np.zeros((72, 96, 3), np.uint8), imgsz=96)
    with pytest.raises(ConfigError, match=r"a student in ONNX cannot be exported again"):
        student.export("onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"none")
    with pytest.raises(WeightsError, match=r"damaged.onnx does not load as ONNX"):
        load_student(tmp_path / "damaged.onnx")


def test_a_file_of_others(tmp_path: Path) -> None:
    torch.onnx.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),), str(tmp_path / "other.onnx"), dynamo=False)
    with pytest.raises(WeightsError, match=r"other.onnx was not written by this tool"):
        load_student(tmp_path / "other.onnx")
