"""Students on transformers, of a few steps: what they leave, how they go on after a kill, what they refuse, and what they see."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.coco_datasets import read_coco
from autodistill_grounded_sam.distill import detr_training
from autodistill_grounded_sam.distill.detr_dataset import read_training_set
from autodistill_grounded_sam.distill.detr_models import MINI, PRETRAINED, model_to_train, save
from autodistill_grounded_sam.distill.detr_recipe import Recipe
from autodistill_grounded_sam.distill.detr_target import DetrTarget
from autodistill_grounded_sam.distill.students import exported, is_student, load_student, predict_folder
from autodistill_grounded_sam.errors import ConfigError, DatasetError, MissingExtraError, WeightsError, WrongPlaceError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.masks import boxes_xyxy, decode_mask
from autodistill_grounded_sam.types import TrainResult
from tests.distill.detr_kit import NAMES, painted_coco

QUICK: Mapping[str, Any] = {"imgsz": 64, "batch": 4, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_coco(tmp_path_factory.mktemp("painted"), train=6, valid=2)


@pytest.fixture(scope="module")
def trained(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return DetrTarget("rf-detr-seg-mini").train(painted, out=tmp_path_factory.mktemp("out"), **QUICK)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_train__result(trained: TrainResult, painted: Path) -> None:
    out = trained.weights.parent
    assert trained.weights == out / "best"
    assert sorted(path.name for path in out.iterdir()) == ["best", "last", "training.json"]
    assert sorted(path.name for path in trained.weights.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert trained.started_from == "random weights, architecture rf-detr-seg-mini"
    assert set(trained.figures) == {"box_AP", "box_AP50", "mask_AP", "mask_AP50"}
    assert trained.command == (
        f"grounded-sam distill {painted} --target rf-detr-seg-mini --out {out} --epochs 1 --imgsz 64 --batch-size 4 --seed 0 "
        "--device cpu"
    )
    card = json.loads((out / "training.json").read_text())
    assert card["figures"] == dict(trained.figures)
    assert card["recipe"]["lr"] == 1e-3


@pytest.mark.parametrize("name", MINI)
def test_train__every_kind_learns_from_boxes_and_is_read_by_transformers(name: str, painted: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection, RfDetrForInstanceSegmentation

    seen: list[tuple[int, int, Mapping[str, float]]] = []
    result = DetrTarget(name).train(painted, out=tmp_path / "out", **QUICK, on_epoch=lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(1, 1)]
    assert np.isfinite(seen[0][2]["loss"])
    kind = RfDetrForInstanceSegmentation if "-seg-" in name else AutoModelForObjectDetection
    model, loading = kind.from_pretrained(result.weights, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert [model.config.id2label[place] for place in range(3)] == NAMES
    assert AutoImageProcessor.from_pretrained(result.weights).size == {"height": 64, "width": 64}


def test_train__goes_on_after_a_kill_to_the_very_same_weights(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "epochs": 3}
    whole = DetrTarget("rf-detr-mini").train(painted, out=tmp_path / "whole", **settings)

    def stop(epoch: int, _epochs: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(detr_training, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        DetrTarget("rf-detr-mini").train(painted, out=tmp_path / "killed", **settings, on_epoch=stop)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["unfinished"]
    assert not is_student(tmp_path / "killed" / "best")
    epochs: list[int] = []
    again = DetrTarget("rf-detr-mini").train(
        painted, out=tmp_path / "killed", **settings, on_epoch=lambda epoch, *_: epochs.append(epoch)
    )
    assert epochs == [2, 3]
    assert again.figures == whole.figures
    for name, value in weights_of(whole.weights.parent / "last").items():
        assert torch.equal(weights_of(again.weights.parent / "last")[name], value), name


def test_train__a_finished_student_is_not_trained_again(trained: TrainResult, painted: Path) -> None:
    out = trained.weights.parent
    before = (out / "training.json").stat().st_mtime_ns
    again = DetrTarget("rf-detr-seg-mini").train(painted, out=out, **QUICK)
    assert again == trained
    assert (out / "training.json").stat().st_mtime_ns == before
    with pytest.raises(WrongPlaceError, match=r"holds a student of another recipe; give another --out, or delete it"):
        DetrTarget("rf-detr-seg-mini").train(painted, out=out, **{**QUICK, "epochs": 2})


def test_train__another_seed_gives_other_weights(trained: TrainResult, painted: Path, tmp_path: Path) -> None:
    other = DetrTarget("rf-detr-seg-mini").train(painted, out=tmp_path / "out", **QUICK, seed=1)
    mine = weights_of(trained.weights)
    assert not all(torch.equal(value, mine[name]) for name, value in weights_of(other.weights).items())


def test_train__without_val_the_last_weights_are_the_best(painted: Path, tmp_path: Path) -> None:
    result = DetrTarget("rt-detr-mini").train(painted, out=tmp_path / "out", **QUICK, val=False)
    assert result.figures == {}
    best, last = weights_of(result.weights), weights_of(result.weights.with_name("last"))
    assert all(torch.equal(best[name], last[name]) for name in last)


# --- where weights come from


def test_pretrained_weights_keep_all_but_the_head(painted: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parent = model_to_train("rf-detr-mini", ["a", "b", "c", "d", "e"], 64, offline=True)
    save(tmp_path / "parent", parent)
    torch.manual_seed(1)
    child = model_to_train(str(tmp_path / "parent"), NAMES, None, offline=True)
    assert child.inputs == parent.inputs
    assert child.started_from == f"pretrained weights {tmp_path / 'parent'}"
    own, theirs = child.model.state_dict(), parent.model.state_dict()
    other = {name for name in theirs if own[name].shape != theirs[name].shape}
    assert {name.rpartition(".")[0].rstrip(".0123456789") for name in other} == {"class_embed", "model.enc_out_class_embed"}
    assert all(torch.equal(own[name], theirs[name]) for name in theirs if name not in other)
    assert own["class_embed.bias"] == pytest.approx(-np.log(99))  # a new head begins by saying that nothing is there
    result = DetrTarget(str(tmp_path / "parent")).train(painted, out=tmp_path / "out", **{**QUICK, "imgsz": None})
    recipe = json.loads((tmp_path / "out" / "training.json").read_text())["recipe"]
    assert (recipe["lr"], recipe["backbone_share"]) == (1e-4, 0.1)
    assert result.started_from == child.started_from


@pytest.mark.parametrize("name", MINI)
def test_the_backbone_learns_at_a_rate_of_its_own(name: str) -> None:
    model = model_to_train(name, NAMES, 64, offline=True).model
    groups = detr_training._groups(model, Recipe(1, 1, 0, lr=1.0, backbone_share=0.1))
    count = {rate: sum(p.numel() for group in groups if group["lr"] == rate for p in group["params"]) for rate in (0.1, 1.0)}
    backbone = next(module for at, module in model.named_modules() if at.endswith(("backbone.backbone", "backbone.model")))
    assert count[0.1] == sum(p.numel() for p in backbone.parameters() if p.requires_grad) > 0
    assert sum(count.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(p.ndim > 1 for group in groups if "weight_decay" not in group for p in group["params"])


def test_a_folder_with_a_config_alone_starts_from_random_weights(tmp_path: Path) -> None:
    save(tmp_path / "parent", model_to_train("d-fine-mini", ["a"], 64, offline=True))
    (tmp_path / "parent" / "model.safetensors").unlink()
    detr = model_to_train(str(tmp_path / "parent"), NAMES, None, offline=True)
    assert detr.started_from == f"random weights, architecture {tmp_path / 'parent'}"
    assert detr.classes == NAMES
    assert not detr.model.config.freeze_backbone_batch_norms


@pytest.mark.parametrize("name", ["rf-detr-nano", "rf-detr-seg-small", "d-fine-s", "rt-detr-r18", "rt-detr-v2-r50"])
def test_pretrained_weights_that_are_not_here(name: str) -> None:
    told = rf"the student '{PRETRAINED[name]}' is not on this machine .* offline\. .*`grounded-sam prefetch {PRETRAINED[name]}`"
    with pytest.raises(WeightsError, match=told):
        model_to_train(name, NAMES, None, offline=True)


def test_the_next_name_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no student is named 'rf-detr-nan'; did you mean rf-detr-nano"):
        model_to_train("rf-detr-nan", NAMES, None, offline=True)


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match=r"holds a 'bert' model; the students here are rf_detr, d_fine"):
        model_to_train(str(tmp_path), NAMES, None, offline=True)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"imgsz": 72}, r"imgsz must be a multiple of 16 for this model, 48 or more, got 72; take 64"),
        ({"imgsz": 32}, r"48 or more, got 32; take 48"),
        ({"epochs": 0}, r"epochs must be 1 or more, got 0; set it with --epochs"),
        ({"batch": 0}, r"batch-size must be 1 or more, got 0; set it with --batch-size"),
        ({"lr0": 0.1}, r"no training setting 'lr0'; did you mean 'lr'\?"),
        ({"mosaic": 1}, r"no training setting 'mosaic'; it has lr, backbone_share, weight_decay"),
        ({"lr": "fast"}, r"setting lr must be like 0.0001, got 'fast'"),
        ({"mirror": 1}, r"setting mirror must be like True, got 1"),
    ],
)
def test_train__wrong_settings(settings: dict[str, Any], told: str, painted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        DetrTarget("rf-detr-mini").train(painted, out=tmp_path / "out", **{**QUICK, **settings})
    assert not (tmp_path / "out").exists()


def edited(painted: Path, folder: Path, split: str, change: Any) -> Path:
    shutil.copytree(painted, folder)
    file = folder / split / "_annotations.coco.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def test_a_dataset_without_masks(painted: Path, tmp_path: Path) -> None:
    def boxes(content: Any) -> None:
        for annotation in content["annotations"]:
            annotation["segmentation"] = []

    folder = edited(painted, tmp_path / "boxes", "train", boxes)
    with pytest.raises(DatasetError, match=r"learns masks, but .*boxes holds boxes \(scene_0.png for one\); take one of boxes"):
        DetrTarget("rf-detr-seg-mini").train(folder, out=tmp_path / "out", **QUICK)
    assert len(read_training_set(folder, masks=False).train) == 6


def test_a_dataset_without_objects(painted: Path, tmp_path: Path) -> None:
    folder = edited(painted, tmp_path / "empty", "train", lambda content: content["annotations"].clear())
    with pytest.raises(DatasetError, match=r"no object to learn from: all images of 'train' are empty"):
        read_training_set(folder, masks=True)


def test_without_an_object_to_be_measured_by_the_last_epoch_counts(painted: Path, tmp_path: Path) -> None:
    folder = edited(painted, tmp_path / "unmeasured", "valid", lambda content: content["annotations"].clear())
    result = DetrTarget("rt-detr-mini").train(folder, out=tmp_path / "out", **{**QUICK, "epochs": 2})
    card = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (result.figures, card["best epoch"], card["history"]) == ({}, 2, [[1, {}], [2, {}]])


def test_a_dataset_without_a_split_or_a_file(painted: Path, tmp_path: Path) -> None:
    shutil.copytree(painted / "train", tmp_path / "half" / "train")
    with pytest.raises(DatasetError, match=r"has no valid images; a student needs both \(--valid 0.2\)"):
        read_training_set(tmp_path / "half", masks=False)
    (tmp_path / "half" / "train" / "scene_3.png").unlink()
    with pytest.raises(DatasetError, match=r"the image scene_3.png is not beside its labels"):
        read_training_set(tmp_path / "half", masks=False)


def test_images_of_another_size_than_their_labels_say(painted: Path, tmp_path: Path) -> None:
    def shrink(content: Any) -> None:
        for image in content["images"]:
            image["width"] = 90
        for annotation in content["annotations"]:
            annotation["segmentation"] = []

    folder = edited(painted, tmp_path / "sizes", "train", shrink)
    with pytest.raises(DatasetError, match=r"the labels say 90x72, the upright image is 96x72"):
        DetrTarget("rf-detr-mini").train(folder, out=tmp_path / "out", **QUICK)


def test_yolo_and_coco_are_read_alike(painted: Path, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for row in read_coco(painted / split / "_annotations.coco.json"):
            assert row.path is not None
            shutil.copy(row.path, tmp_path / split / "images")
            x1, y1, x2, y2 = (row.xyxy / ([96, 72] * 2)).T
            rows = np.stack([row.class_id, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
            np.savetxt(tmp_path / split / "labels" / f"{row.path.stem}.txt", rows, fmt=["%d", *["%.6f"] * 4])
    (tmp_path / "data.yaml").write_text(f"train: train/images\nval: valid/images\nnames: {json.dumps(NAMES)}\n")
    yolo, coco = read_training_set(tmp_path, masks=False), read_training_set(painted, masks=False)
    assert yolo.class_names == coco.class_names
    for one, other in zip((*yolo.train, *yolo.valid), (*coco.train, *coco.valid), strict=True):
        assert (one.name, one.split) == (other.name, other.split)
        assert np.array_equal(one.class_id, other.class_id)
        assert np.allclose(one.xyxy, other.xyxy, atol=1e-3)


# --- prediction


def test_predictions(trained: TrainResult, painted: Path) -> None:
    images = sorted((painted / "valid").glob("*.png"))
    seen = list(predict_folder(trained.weights, images, root=painted, confidence=0.0, device="cpu"))
    assert [one.image for one in seen] == [f"valid/{path.name}" for path in images]
    for one in seen:
        assert (one.width, one.height) == (96, 72)
        assert len(one.scores) == 3 * 30 == len(one.class_names) == len(one.rles or ())  # classes times queries: under 100
        assert (np.diff(one.scores) <= 0).all()
        assert set(one.class_names) <= set(NAMES)
        assert (one.xyxy >= 0).all()
        assert (one.xyxy <= [96, 72, 96, 72]).all()
        assert all(decode_mask(code).shape == (72, 96) for code in one.rles or ())


def test_predict__confidence_and_size(trained: TrainResult, painted: Path) -> None:
    student = load_student(trained.weights, device="cpu")
    assert student.classes == NAMES
    assert student.usual_confidence == 0.5
    image = np.full((72, 96, 3), 128, np.uint8)
    every = student.predict(image, confidence=0.0)
    middle = float(every.scores[10:12].mean())
    assert len(student.predict(image, confidence=middle).scores) == int((every.scores > middle).sum())
    assert not np.array_equal(student.predict(image, confidence=0.0, imgsz=96).scores, every.scores)


def test_what_a_model_answers_is_put_on_the_picture() -> None:
    from autodistill_grounded_sam.distill.detr_answers import Raw, predicted

    logits = np.full((3, 2), -9, np.float32)
    logits[1, 1], logits[2, 0] = 2, 1
    boxes = np.array([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 0.5], [0.9, 0.9, 0.4, 0.4]], np.float32)
    masks = np.full((3, 8, 8), -1.0, np.float32)
    masks[1, 2:6, 0:4] = 1
    masks[2, 6:, 6:] = 1
    seen = predicted(Raw(logits, boxes, masks), np.zeros((80, 160, 3), np.uint8), ["a", "b"], 0.5, "picture")
    assert seen.class_names == ["b", "a"]
    assert seen.scores == pytest.approx([0.8808, 0.7311], abs=1e-4)
    assert seen.xyxy == pytest.approx(np.array([[0, 20, 80, 60], [112, 56, 160, 80]]))  # the second is cut at the edge
    assert seen.rles is not None
    assert boxes_xyxy(seen.rles)[0] == pytest.approx([0, 20, 80, 60], abs=1)


@pytest.mark.parametrize("name", ["rf-detr-mini", "rt-detr-mini"])
def test_pixels_are_those_of_transformers_processor(name: str, painted: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    detr = model_to_train(name, NAMES, 64, offline=True)
    save(tmp_path / "student", detr)
    image = read_image(painted / "train" / "scene_0.png")
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "student")(image, return_tensors="pt")["pixel_values"]
    ours = detr.inputs.normalised(detr.inputs.pixels(image)[None])
    assert float((ours - theirs).abs().max()) < 1.1 / 255 / min(detr.inputs.std)


def test_a_damaged_or_missing_student(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no file .*none.onnx; a student writes it with .*--onnx"):
        load_student(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match=r"'d-fine-mini' has no trained weights to predict with; train it"):
        load_student("d-fine-mini")
    (tmp_path / "config.json").write_text('{"model_type": "rf_detr"}')
    with pytest.raises(WeightsError, match=r"is not a whole student: \*.safetensors missing"):
        load_student(tmp_path)


def test_onnx_that_is_not_installed(trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"the export to ONNX needs .*autodistill-grounded-sam\[onnx\]"):
        exported(trained, "onnx")
    (tmp_path / "student.onnx").touch()
    with pytest.raises(MissingExtraError, match=r"student .*student.onnx needs .*autodistill-grounded-sam\[onnx\]"):
        load_student(tmp_path / "student.onnx")
