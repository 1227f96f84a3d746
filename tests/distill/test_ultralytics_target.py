"""A real student of a few steps: what it leaves, what it says, and that ultralytics keeps to itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.distill import ultralytics_setup
from autodistill_grounded_sam.distill.students import predict_folder
from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsStudent, UltralyticsTarget
from autodistill_grounded_sam.errors import ConfigError, DatasetError, MissingExtraError, WeightsError
from autodistill_grounded_sam.masks import boxes_xyxy, decode_mask
from autodistill_grounded_sam.painting import SHAPES, PainterSettings, Scene, paint_scene
from autodistill_grounded_sam.types import RgbImage, TrainResult

PAINTER = PainterSettings(width=96, height=72, objects=(1, 3))
QUICK = {"imgsz": 64, "batch": 4, "epochs": 1, "device": "cpu"}


def write_scene(scene: Scene, image: Path, label: Path, *, polygons: bool) -> None:
    from PIL import Image

    Image.fromarray(scene.image_rgb).save(image)
    rows = []
    for thing in scene.objects:
        x1, y1, x2, y2 = np.array(thing.xyxy) / ([PAINTER.width, PAINTER.height] * 2)
        values = [x1, y1, x2, y1, x2, y2, x1, y2] if polygons else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        rows.append(" ".join([str(SHAPES.index(thing.shape)), *(f"{value:.4f}" for value in values)]))
    label.write_text("\n".join(rows))


def paint_dataset(folder: Path, *, polygons: bool) -> Path:
    for number in range(6):
        split = "valid" if number > 3 else "train"
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        image, label = folder / split / "images" / f"{number}.png", folder / split / "labels" / f"{number}.txt"
        write_scene(paint_scene(PAINTER, number), image, label, polygons=polygons)
    (folder / "data.yaml").write_text(f"train: train/images\nval: valid/images\nnames: {json.dumps(SHAPES)}\n")
    return folder


def read(path: Path) -> RgbImage:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def polygons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_dataset(tmp_path_factory.mktemp("polygons"), polygons=True)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_dataset(tmp_path_factory.mktemp("boxes"), polygons=False)


@pytest.fixture(scope="module")
def trained(polygons: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return UltralyticsTarget("yolov8n-seg.pt", offline=True).train(polygons, out=tmp_path_factory.mktemp("out"), **QUICK)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_train__result(trained: TrainResult, polygons: Path) -> None:
    assert trained.weights.name == "best.pt"
    assert trained.weights.stat().st_size > 1e6
    assert trained.started_from == "random weights, architecture yolov8n-seg.yaml (offline)"
    kinds = {f"{kind}_{name}" for kind in ("box", "mask") for name in ("precision", "recall", "mAP50", "mAP50_95")}
    assert set(trained.figures) == kinds
    assert all(0 <= value <= 1 for value in trained.figures.values())
    assert trained.command.startswith(f"grounded-sam distill {polygons} --target yolov8n-seg.pt --out {trained.weights.parent} ")
    assert "--epochs 1 --imgsz 64 --batch-size 4 --seed 0 --device cpu" in trained.command


def test_train__leaves_the_dataset_as_it_was(trained: TrainResult, polygons: Path) -> None:
    assert not [name for name in files_below(polygons) if name.endswith(".cache")]
    assert len(files_below(polygons)) == 13


@pytest.mark.slow
def test_train__box_model_learns_from_polygons_and_reports_epochs(polygons: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, bool]] = []
    result = UltralyticsTarget("yolov8n.yaml").train(
        polygons,
        out=tmp_path / "out",
        on_epoch=lambda epoch, epochs, figures: seen.append((epoch, epochs, "box_mAP50" in figures)),
        **{**QUICK, "mosaic": 0.0},
    )
    assert result.started_from == "random weights, architecture yolov8n.yaml"
    assert not [name for name in result.figures if name.startswith("mask")]
    assert (1, 1, True) in seen
    assert result.command.endswith("--set mosaic=0.0")


@pytest.mark.slow
def test_train__goes_on_from_a_local_file(trained: TrainResult, polygons: Path, tmp_path: Path) -> None:
    result = UltralyticsTarget(str(trained.weights)).train(polygons, out=tmp_path, **QUICK)
    assert result.started_from == f"pretrained weights {trained.weights}"


def test_train__boxes_cannot_teach_masks(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"'yolov8n-seg\.yaml' learns masks, but the dataset holds boxes \(.*\.txt\); take 'yolov8n\.yaml'"
    ):
        UltralyticsTarget("yolov8n-seg.yaml").train(boxes, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("yolov8n-sag.yaml", {}, r"'yolov8n-sag\.yaml' is no model that ultralytics knows; did you mean yolov8n-seg"),
        ("resnet", {}, r"target 'resnet' is no model that ultralytics knows; examples: yolov8n-seg\.pt"),
        ("yolov8n-pose.yaml", {}, r"is a model for 'pose'; expected one for boxes \(yolov8n\) or masks"),
        ("yolov8n.yaml", {"patiense": 3}, r"ultralytics has no training setting 'patiense'; did you mean patience"),
        ("yolov8n.yaml", {"project": "x"}, r"setting 'project' is filled in by train\(\) itself"),
        ("yolov8n.yaml", {"lr0": "high"}, r"wrong training setting: 'lr0=high'"),
        ("yolov8n.yaml", {"epochs": 0}, r"epochs must be 1 or more, got 0; set it with --epochs"),
        ("yolov8n.yaml", {"imgsz": 31}, r"imgsz must be 32 or more, got 31; set it with --imgsz"),
        ("yolov8n.yaml", {"batch": -1}, r"batch must be 1 or more, got -1; set it with --batch-size"),
        ("yolov8n.yaml", {"device": "cuda:99"}, r"ultralytics does not start with these settings: Invalid CUDA 'device=.*99'"),
        (
            "yolov8n.yaml",
            {"optimizer": "Adma"},
            r"(wrong training setting|ultralytics does not start with these settings): .*Adma",
        ),
    ],
)
def test_train__wrong_settings(polygons: Path, tmp_path: Path, model: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UltralyticsTarget(model, offline=True).train(polygons, out=tmp_path, **{**QUICK, **settings})


def test_train__error_of_a_running_training__is_no_wrong_setting(
    polygons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.engine.trainer import BaseTrainer

    def fail(self: BaseTrainer) -> None:
        self.run_callbacks("on_train_start")
        raise ValueError("a fault of the code")

    monkeypatch.setattr(BaseTrainer, "_do_train", fail)
    with pytest.raises(ValueError, match="a fault of the code") as caught:
        UltralyticsTarget("yolov8n.yaml", offline=True).train(polygons, out=tmp_path, **QUICK)
    assert not isinstance(caught.value, ConfigError)


def test_train__weights_that_are_not_there(polygons: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights .*gone\.pt do not exist; give a \.pt file, or a name"):
        UltralyticsTarget(str(tmp_path / "gone.pt")).train(polygons, out=tmp_path, **QUICK)


def test_train__damaged_weights(polygons: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(WeightsError, match=r"bad\.pt does not load as an ultralytics checkpoint"):
        UltralyticsTarget(str(tmp_path / "bad.pt")).train(polygons, out=tmp_path, **QUICK)


def test_train__a_checkpoint_that_would_run_code_is_refused(polygons: Path, tmp_path: Path) -> None:
    import torch

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match="does not load as an ultralytics checkpoint"):
        UltralyticsTarget(str(tmp_path / "bomb.pt")).train(polygons, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "ran").exists()


def test_train__without_ultralytics(monkeypatch: pytest.MonkeyPatch, polygons: Path, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(MissingExtraError, match=r"target 'yolov8n' needs .* pip install 'autodistill-grounded-sam\[yolo\]'"):
        UltralyticsTarget("yolov8n").train(polygons, out=tmp_path, **QUICK)


def test_pretrained__says_why_it_starts_from_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ultralytics_setup, "_reachable", lambda host: False)
    with ultralytics_setup.quiet_ultralytics("x"):
        model, started_from = ultralytics_setup.build_model("yolov8n", offline=False)
    assert started_from == "random weights, architecture yolov8n.yaml (github.com cannot be reached)"
    assert "no pretrained weights for yolov8n (github.com cannot be reached): it starts from random weights" in caplog.text
    assert model.task == "detect"


@pytest.mark.parametrize(
    ("argument", "variables", "expected"),
    [
        (None, {}, False),
        (None, {"YOLO_OFFLINE": "True"}, True),
        (None, {"HF_HUB_OFFLINE": "1"}, True),
        (False, {"HF_HUB_OFFLINE": "1"}, False),
        (True, {}, True),
    ],
)
def test_stays_offline(monkeypatch: pytest.MonkeyPatch, argument: bool | None, variables: dict[str, str], expected: bool) -> None:
    for name in ("YOLO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ultralytics_setup.stays_offline(argument) is expected


def test_predict__records_fit_the_image(trained: TrainResult, polygons: Path) -> None:
    images = sorted((polygons / "valid" / "images").iterdir())
    predictions = list(predict_folder(trained.weights, images, root=polygons, confidence=0.0, device="cpu"))
    assert [prediction.image for prediction in predictions] == ["valid/images/4.png", "valid/images/5.png"]
    for prediction in predictions:
        n = len(prediction.scores)
        assert 0 < n <= 100
        assert (prediction.width, prediction.height) == (96, 72)
        assert prediction.xyxy.shape == (n, 4)
        assert prediction.xyxy.dtype == np.float32
        assert (prediction.xyxy >= 0).all()
        assert (prediction.xyxy <= [96, 72, 96, 72]).all()
        assert (np.diff(prediction.scores) <= 0).all()
        assert set(prediction.class_names) <= set(SHAPES)
        assert prediction.rles is not None
        assert len(prediction.rles) == n
        assert {tuple(rle["size"]) for rle in prediction.rles} == {(72, 96)}
        outside = boxes_xyxy(prediction.rles)[:, :2] - prediction.xyxy[:, :2]
        assert (outside >= -1.01).all() or (boxes_xyxy(prediction.rles).sum(1) == 0).any()


def test_predict__masks_of_a_large_picture_come_back_at_its_size(
    trained: TrainResult, polygons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autodistill_grounded_sam.distill import ultralytics_target

    image = np.kron(read(polygons / "train" / "images" / "0.png"), np.ones((4, 4, 1), np.uint8))
    student = UltralyticsStudent(trained.weights, device="cpu")
    whole = student.predict(image, confidence=0.0)
    monkeypatch.setattr(ultralytics_target, "_MAX_MASK_PIXELS", 96 * 72)
    shrunken = student.predict(image, confidence=0.0)
    assert (shrunken.width, shrunken.height) == (384, 288)
    assert whole.rles and shrunken.rles
    assert decode_mask(shrunken.rles[0]).shape == (288, 384)
    n = min(len(whole.scores), len(shrunken.scores), 5)
    np.testing.assert_allclose(whole.xyxy[:n], shrunken.xyxy[:n], atol=24)


def test_predict__colours_arrive_as_rgb(trained: TrainResult, polygons: Path) -> None:
    """ultralytics takes arrays as BGR and files as they are: both ways must see the same picture."""
    path = polygons / "train" / "images" / "0.png"
    ours = UltralyticsStudent(trained.weights, device="cpu").predict(read(path), confidence=0.0)
    with ultralytics_setup.quiet_ultralytics("x"):
        from ultralytics import YOLO

        theirs = YOLO(str(trained.weights)).predict(
            str(path), conf=0.0, max_det=100, retina_masks=True, device="cpu", verbose=False
        )[0]
    np.testing.assert_allclose(ours.scores, theirs.boxes.conf.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.xyxy, theirs.boxes.xyxy.numpy(), atol=0.01)


def test_predict__without_weights() -> None:
    with pytest.raises(WeightsError, match=r"'yolov8n\.pt' has no trained weights to predict with: random weights.*\(offline\)"):
        UltralyticsStudent("yolov8n.pt", offline=True)


ALONE = """
import os, sys, json
from pathlib import Path
from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget
before = dict(os.environ)
import torch
threads = torch.get_num_threads()
UltralyticsTarget("yolov8n.pt").train(Path(sys.argv[1]), out=Path(sys.argv[2]), epochs=1, imgsz=64, batch=4, device="cpu")
assert torch.get_num_threads() == threads
changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
print(json.dumps(sorted(changed)))
"""


@pytest.mark.slow
def test_train__writes_only_below_out_and_says_nothing(polygons: Path, tmp_path: Path) -> None:
    """In a process of its own, with an empty home and working folder, and no environment variable set for ultralytics."""
    home, work, out = tmp_path / "home", tmp_path / "work", tmp_path / "out"
    home.mkdir()
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "HF_", "XDG_"))}
    environment = {
        **kept,
        "HOME": str(home),
        "MPLCONFIGDIR": str(tmp_path / "mpl"),
        "TMPDIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(polygons), str(out)],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    changed = json.loads(run.stdout)  # nothing else on stdout
    assert not [name for name in changed if name.startswith(("YOLO_", "ULTRALYTICS", "OMP_", "CUBLAS"))]
    assert "no pretrained weights for yolov8n.pt (offline)" in run.stderr
    assert files_below(work) == set()
    assert files_below(home) == set()
    assert {name.partition("/")[0] for name in files_below(out)} == {"best.pt", "data.yaml", "ultralytics"}
