"""The command line: what each command prints, its one JSON object, and its exit codes. Whole stories are in `journeys`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam import __version__, cli
from autodistill_grounded_sam.errors import ExportError, StoreError, UploadError
from autodistill_grounded_sam.ontology_io import shipped_summary
from autodistill_grounded_sam.testing import paint_folder

ONTOLOGY = '{"red circle": "ball", "blue square": "box"}'
FAKE = (
    "--detector", "autodistill_grounded_sam.testing:FakeDetector",
    "--segmenter", "autodistill_grounded_sam.testing:FakeSegmenter",
)  # fmt: skip


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type a command; what it said and its exit code."""

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["grounded-sam", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return Said(int(stop.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    paint_folder(tmp_path / "images", 6)
    return tmp_path / "images"


@pytest.fixture
def run(say: Any, images: Path, tmp_path: Path) -> Path:
    assert say("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "out", "--json").code == 0
    return tmp_path / "out"


def test_label_shows_people_a_table_and_programs_one_object(say: Any, images: Path) -> None:
    shown = say("label", images, "--ontology", ONTOLOGY, *FAKE)
    assert shown.code == 0
    assert "ball" in shown.out
    assert "6 looked at in this run" in shown.out
    assert "yolo-seg:" in shown.out and "masks read back with IoU" in shown.out
    assert "6/6 images" in shown.err and "images/s" in shown.err and "s left" in shown.err
    silent = say("label", images, "--ontology", ONTOLOGY, *FAKE, "--json")
    facts = silent.json  # nothing else is on stdout, or this would not parse
    assert silent.err == ""
    assert {"out", "run", "images", "labels", "per_class", "looked_at", "failed", "datasets", "stages"} <= set(facts)
    assert facts["looked_at"] == 0
    assert facts["out"] == str(images.with_name("images_labeled"))


def test_label_settings_reach_the_run(say: Any, images: Path, tmp_path: Path) -> None:
    said = say(
        "label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "o", "--box-threshold", "0.5", "--batch-size", "3",
        "--device", "cpu", "--format", "yolo", "--format", "coco", "--valid", "0.5", "--seed", "3", "--offline", "--json",
    )  # fmt: skip
    assert said.code == 0
    assert [dataset["format"] for dataset in said.json["datasets"]] == ["yolo", "coco"]
    info = json.loads((tmp_path / "o/run/run.json").read_text())
    assert info["generations"][0]["batch_size"] == 3
    decided = json.loads((tmp_path / "o/run/decide.json").read_text())
    assert decided["decide"]["box_threshold"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("label nowhere --ontology fruit", "the image folder nowhere does not exist"),
        ("label {images} --ontology friut", "did you mean 'fruit'?"),
        ("label {images} --ontology fruit --box-threshold 2", r"box_threshold: Input should be less than or equal to 1, got 2.0"),
        ("label {images} --ontology fruit --batch-size many", "batch_size"),
        ("label {images} --ontology fruit --detector miny --offline", "no detector is named 'miny'; did you mean 'mini'?"),
        ("label {images} --ontology fruit --masks some", "masks"),
        ("label {images} --ontology fruit --format yolov9", "yolov9"),
        ("label {empty} --ontology fruit", "no image"),
        ("label {images}", "say what to look for with --ontology, or --auto to find out what is there"),
        ("decide {images}", "no run in"),
        ("export {images} --out x", "no run in"),
        ("evaluate {images} --truth nowhere.json", "holds no labels; expected a folder that `label` made"),
        ("distill {images} --out x --target yolov8n-seg.yaml", "data.yaml"),
        ("distill {images} --out x --set epochs", "--set takes NAME=VALUE, got 'epochs'"),
        ("predict nowhere.png --ontology fruit --detector mini --segmenter mini", "nowhere.png"),
        ("nonsense", "No such command 'nonsense'"),
    ],
)
def test_wrong_use_is_one_message_and_code_2(say: Any, images: Path, tmp_path: Path, words: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    said = say(*shlex.split(words.format(images=images, empty=tmp_path / "empty")))
    assert message in " ".join(said.err.split())
    assert said.code in (1, 2)
    assert said.out == ""
    assert "Traceback" not in said.err


def test_exit_code_3_where_some_were_set_aside(say: Any, images: Path) -> None:
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    said = say("label", images, "--ontology", ONTOLOGY, *FAKE)
    assert said.code == 3
    assert "1 image was set aside" in said.err and "failed.jsonl" in said.err
    machine = say("label", images, "--ontology", ONTOLOGY, *FAKE, "--json")
    assert machine.code == 3
    assert machine.json["failed"][0]["id"] == "broken.jpg"


@pytest.mark.parametrize(("error", "code"), [(StoreError("x"), 1), (ExportError("x"), 1), (UploadError("x"), 1)])
def test_faults_are_code_1(say: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("autodistill_grounded_sam.pipeline.last_settings", fail)
    assert say("decide", "run").code == code


def test_ctrl_c_says_how_to_go_on(say: Any, monkeypatch: pytest.MonkeyPatch, images: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autodistill_grounded_sam.pipeline.label", interrupt)
    said = say("label", images, "--ontology", ONTOLOGY)
    assert said.code == 130
    assert "run the same command again to go on" in said.err


def test_decide_and_export(say: Any, run: Path, tmp_path: Path) -> None:
    low = say("decide", run, "--box-threshold", "0.3", "--json").json
    high = say("decide", run / "run", "--box-threshold", "0.9", "--json").json
    assert high["labels"] < low["labels"]
    assert low["datasets"] == []
    written = say("decide", run, "--box-threshold", "0.3", "--format", "coco", "--json").json
    assert written["datasets"][0]["labels"] == low["labels"]
    exported = say("export", run, "--format", "yolo", "--out", tmp_path / "yolo", "--json").json
    assert exported["labels"] == low["labels"]
    assert "yolo:" in say("export", run, "--format", "yolo", "--out", tmp_path / "again").out


def test_evaluate_labels(say: Any, run: Path, tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "scene_0000.png", "width": 256, "height": 192}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "ball"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    facts = say("evaluate", run, "--truth", tmp_path / "truth.json", "--json").json
    assert set(facts["box"]) >= {"AP", "AP50", "AP75"}
    assert facts["mask"] is None
    assert set(facts["operating_point"]) >= {"precision", "recall", "f1"}
    assert "ball" in facts["per_class"]
    assert "precision" in say("evaluate", run, "--truth", tmp_path / "truth.json").out


def test_predict_writes_a_picture(say: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = say("predict", images / "scene_0003.png", "--ontology", ONTOLOGY, *FAKE, "--box-threshold", "0.1")
    picture = Path("scene_0003_labeled.png")  # where one stands: among the images it would be labelled next time
    assert np.asarray(Image.open(picture)).shape[2] == 3
    assert str(picture) in said.out
    facts = say("predict", images / "scene_0003.png", "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "p.png", "--json").json
    assert facts["picture"] == str(tmp_path / "p.png")
    assert all(set(row) >= {"class", "score", "margin", "xyxy"} for row in facts["labels"])


def test_lists(say: Any) -> None:
    names = [row["name"] for row in say("ontologies", "--json").json["ontologies"]]
    assert names == [row.name for row in shipped_summary()]
    assert len(names) >= 10
    assert "painted_shapes" in say("ontologies").out
    plugins = say("plugins", "--json").json["plugins"]
    assert {"detectors", "segmenters", "formats", "targets"} <= {row["role"] for row in plugins}
    assert all(row["problem"] is None for row in plugins)
    assert "yolo-seg" in say("plugins").out


def test_doctor(say: Any) -> None:
    facts = say("doctor", "--json").json
    assert "cpu" in json.dumps(facts)
    assert "mini" in say("doctor").out


def test_prefetch_offline_says_what_is_missing(say: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "mini" in say("prefetch", "mini").out
    said = say("prefetch", "nobody/nothing", "--json")
    assert said.code == 2
    assert "nobody/nothing" in said.err


def test_version_and_help(say: Any) -> None:
    assert say("--version").out.strip() == __version__
    assert "label" in say("--help").out
    for command in ("label", "decide", "export", "evaluate", "distill", "predict"):
        assert "--json" in say(command, "--help").out


def test_what_is_left_out_stays_as_it_was_used_last(say: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    words = ("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", out)
    first = say(*words, "--box-threshold", "0.5", "--text-threshold", "0.45", "--valid", "0.5", "--seed", "7", "--json").json
    again = say("decide", out, "--format", "yolo-seg", "--json").json
    assert again["labels"] == first["labels"]
    assert again["datasets"][0]["images"] == first["datasets"][0]["images"]
    exported = say("export", out, "--format", "coco", "--out", tmp_path / "coco", "--json").json
    assert exported["images"] == first["datasets"][0]["images"]
    say("decide", out, "--box-threshold", "0.7", "--json")
    assert json.loads((out / "run/decide.json").read_text())["decide"]["text_threshold"] == 0.45


def test_decide_tells_that_the_dataset_is_older(say: Any, run: Path) -> None:
    notes = say("decide", run, "--box-threshold", "0.9", "--json").json["notes"]
    assert any("the dataset on disk (yolo-seg) is of an earlier decision" in note for note in notes)
    assert "labels decided of" in say("decide", run).out
    written = say("decide", run, "--format", "yolo-seg", "--json").json
    assert written["notes"] == [f"{run / 'report.html'} is of an earlier decision; `grounded-sam report {run}` writes it anew"]
    low = say("decide", run, "--box-threshold", "0.05", "--json").json["notes"]
    assert any("labels must reach text_threshold 0.25 too" in note for note in low)
    floor = say("decide", run, "--box-threshold", "0.05", "--text-threshold", "0.05", "--json").json["notes"]
    assert any("nothing below 0.1 was stored" in note for note in floor)


def test_another_format_never_replaces_the_first(say: Any, run: Path) -> None:
    facts = say("decide", run, "--format", "coco", "--format", "coco", "--json").json
    assert [dataset["path"] for dataset in facts["datasets"]] == [str(run / "coco")]
    assert (run / "data.yaml").is_file()


@pytest.mark.parametrize("inside", ["train/images", "valid/images"])
def test_the_images_of_a_dataset_are_not_labelled_into_it(say: Any, run: Path, inside: str) -> None:
    before = sorted(run.rglob("*.png"))
    said = say("label", run / inside, "--ontology", ONTOLOGY, *FAKE, "--out", run)
    assert said.code == 2
    assert "must not lie in the dataset" in said.err
    assert sorted(run.rglob("*.png")) == before


def test_a_folder_of_other_images_does_not_replace_a_dataset(say: Any, run: Path, tmp_path: Path) -> None:
    paint_folder(tmp_path / "other", 3, seed=900)
    said = say("label", tmp_path / "other", "--ontology", ONTOLOGY, *FAKE, "--out", run)
    assert said.code == 2
    assert "none of them is in" in said.err
    assert len(list(run.glob("*/images/*"))) == 6


def test_what_a_writer_would_refuse_is_refused_before_looking(
    say: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("AGS_FAKE_LOG", str(log))
    (tmp_path / "foreign" / "train").mkdir(parents=True)
    (tmp_path / "foreign" / "train" / "mine.txt").write_text("mine")
    said = say("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "foreign")
    assert said.code == 2
    assert "was not written by this tool" in said.err
    said = say("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "boxes", "--masks", "none")
    assert said.code == 2
    assert "--format yolo" in said.err
    said = say("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "zero", "--batch-size", "0")
    assert said.code == 2
    assert "batch_size" in said.err
    assert not log.exists()


def test_lowering_the_threshold_of_a_run_with_masks_of_kept_ones_is_told(say: Any, images: Path, tmp_path: Path) -> None:
    words = ("label", images, "--ontology", ONTOLOGY, *FAKE, "--out", tmp_path / "o", "--masks", "kept", "--box-threshold", "0.7")
    assert say(*words, "--json").json["notes"] == []
    notes = say("decide", tmp_path / "o", "--box-threshold", "0.3", "--json").json["notes"]
    assert any("have no mask, since the run made masks of kept ones only" in note for note in notes)


def test_an_unfinished_run_is_told(say: Any, run: Path, images: Path, tmp_path: Path) -> None:
    """More images were listed than looked at, as after a Ctrl-C."""
    from autodistill_grounded_sam.images import scan
    from autodistill_grounded_sam.store.parts import write_images

    paint_folder(images / "more", 4, seed=50)
    write_images(run / "run" / "images.parquet", scan(images).images)
    assert any("4 images were not looked at yet" in note for note in say("decide", run, "--json").json["notes"])
    notes = say("export", run, "--format", "coco", "--out", tmp_path / "coco", "--json").json["notes"]
    assert any("4 images of the folder were not looked at yet" in note for note in notes)


def test_distill_and_evaluate_a_student_of_transformers(say: Any, run: Path, tmp_path: Path) -> None:
    words = ("distill", run, "--target", "rt-detr-mini", "--epochs", "1", "--imgsz", "64", "--device", "cpu")
    told = say(*words, "--out", tmp_path / "student")
    assert told.code == 0
    assert re.search(r"epoch 1/1: loss \d+\.\d+, box_AP 0\.\d+", told.err)
    trained = say(*words, "--out", tmp_path / "student", "--json").json  # there already, so it is only told again
    assert trained["weights"] == str(tmp_path / "student" / "best")
    assert trained["started_from"] == "random weights, architecture rt-detr-mini"
    assert trained["exported"] is None
    found = say("evaluate", trained["weights"], "--truth", run, "--json").json
    assert 0 <= found["box"]["AP"] <= 1
    assert "at confidence 0.5, its kind's default" in found["notes"][0]
    refused = say(*words, "--out", tmp_path / "student", "--set", "lr=0.01")
    assert refused.code == 2
    assert "holds a student of another recipe" in refused.err


def test_interrupted_distill_does_not_promise_to_go_on(say: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autodistill_grounded_sam.distill.ultralytics_target.UltralyticsTarget.train", interrupt)
    said = say("distill", run, "--out", run / "student", "--target", "yolov8n-seg.yaml")
    assert said.code == 130
    assert "training starts anew" in said.err


def test_frames_of_videos_good_and_bad(say: Any, tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for seed in range(4):
        film.write(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8))
    film.release()
    told = say("frames", tmp_path / "walk.avi", "--out", tmp_path / "frames", "--every", "2")
    assert told.code == 0
    assert "walk.avi: 4 frames, 2 looked at, 0 alike, 2 taken" in told.err
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    both = say("frames", tmp_path / "walk.avi", tmp_path / "bad.mp4", "--out", tmp_path / "frames", "--every", "2", "--json")
    assert both.code == 3
    assert (both.json["taken"], both.json["failed"]) == (2, 1)
    assert [video["video"] for video in both.json["videos"] if video["fault"]] == ["bad.mp4"]
