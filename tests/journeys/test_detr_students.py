"""The proof: students on transformers learn painted scenes from random weights, and are then what a user deploys."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from autodistill_grounded_sam.distill.detr_models import Detr, Inputs, save, trained_model
from autodistill_grounded_sam.distill.detr_training import loss_of
from autodistill_grounded_sam.painting import PainterSettings, paint_dataset
from tests.cli_kit import tool
from tests.distill.detr_kit import NAMES, PAIRS, painted_coco

SCENES = PainterSettings(
    width=128, height=128, objects=(1, 4), size=(0.2, 0.5), pairs=PAIRS, clutter=(0, 1), backgrounds=("plain", "gradient")
)
LENGTH = ("--epochs", "5", "--imgsz", "128", "--batch-size", "8", "--device", "cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 scenes to learn from, 40 to choose by, and in `other/` 100 that neither training nor choice has seen."""
    folder = painted_coco(tmp_path_factory.mktemp("scenes"), train=400, valid=40, settings=SCENES)
    paint_dataset(folder / "other", 100, SCENES, 900_000, NAMES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rf-detr-mini", "rf-detr-seg-mini", "d-fine-mini", "rt-detr-mini"])
def test_it_learns(name: str, scenes: Path, tmp_path: Path) -> None:
    words = ("distill", scenes, "--target", name, *LENGTH, "--out", tmp_path / "out")
    trained = tool(*words)
    truth = scenes / "other" / "truth.json"
    found = tool("evaluate", trained["weights"], "--truth", truth)
    print(name, found["box"], found["mask"])
    assert found["box"]["AP50"] >= 0.3
    assert (found["mask"] is not None) == ("-seg-" in name)
    if find_spec("onnx") and find_spec("onnxruntime"):
        file = tool(*words, "--onnx")["exported"]  # trained already, so it is only written
        assert tool("evaluate", file, "--truth", truth)["box"] == pytest.approx(found["box"], abs=1e-3)


@pytest.mark.slow
def test_the_full_size_of_rf_detr_nano(tmp_path: Path) -> None:
    """The architecture of the released weights (rfdetr 1.11's settings), random: one step at 384 px, saved, loaded, the same."""
    from transformers import RfDetrConfig, RfDetrForObjectDetection
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

    torch.manual_seed(0)
    backbone = RfDetrDinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=384, patch_size=16, num_windows=2,
        out_indices=[3, 6, 9, 12],
    )  # fmt: skip
    config = RfDetrConfig(backbone_config=backbone, decoder_layers=2, decoder_n_points=2, id2label={0: "a", 1: "b"})
    model = RfDetrForObjectDetection(config)
    target = {"class_labels": torch.tensor([0, 1]), "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.4], [0.6, 0.7, 0.5, 0.2]])}
    loss = loss_of(model.train(), torch.randn(1, 3, 384, 384), [target])
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert 25e6 < sum(weight.numel() for weight in model.parameters()) < 35e6
    detr = Detr(model.eval(), Inputs(384, (0.5,) * 3, (0.25,) * 3, smooth=False), "random weights")
    save(tmp_path / "nano", detr)
    again = trained_model(str(tmp_path / "nano"), offline=True)
    assert again.inputs == detr.inputs
    pixels = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(pixels).logits, model(pixels).logits)
