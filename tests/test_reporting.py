"""The page of a run, from the command line and after `label`: when it is written, when not, and what it is told beside labels."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam import cli, pipeline, reporting
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, DatasetError, WrongPlaceError, WrongRunError
from autodistill_grounded_sam.reporting import write_report
from autodistill_grounded_sam.testing import paint_folder
from autodistill_grounded_sam.trusting import assess
from tests.report.report_kit import SETTINGS, Page, label_all_sorts
from tests.run_kit import FAKE, files
from tests.test_trusting import ONTOLOGY, write_truth

CONFIG = LabelConfig(see=SeeConfig(**FAKE), run=RunConfig(batch_size=8, device="cpu"), export=ExportConfig(formats=("yolo",)))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_all_sorts(tmp_path_factory.mktemp("home"))


def words_of(path: Path) -> str:
    return Page(path.read_text("utf-8")).root.words


def label(tmp_path: Path, config: LabelConfig = CONFIG, images: int = 6) -> pipeline.RunSummary:
    if not (tmp_path / "images").exists():
        paint_folder(tmp_path / "images", images, settings=SETTINGS)
    return pipeline.label(tmp_path / "images", ONTOLOGY, tmp_path / "out", config)


def test_label_writes_a_report_unless_told_not_to(tmp_path: Path) -> None:
    silent = label(tmp_path, CONFIG.model_copy(update={"run": RunConfig(report=False)}))
    assert silent.report is None and not (tmp_path / "out" / "report.html").exists()
    told = label(tmp_path)
    assert told.report == tmp_path / "out" / "report.html" and told.report.is_file()
    assert "report" in told.stages and not told.notes


def test_a_label_never_fails_for_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = files(label(tmp_path).out)

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(reporting, "render", broken)
    summary = label(tmp_path)
    assert summary.report is None and files(summary.out) == dataset
    command = f"grounded-sam report {tmp_path / 'out'}"
    assert summary.notes == [f"no report was written: a fault of ours; `{command}` tries again"]


def test_a_page_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    label(tmp_path, CONFIG.model_copy(update={"run": RunConfig(report=False)}))
    theirs = tmp_path / "out" / "report.html"
    theirs.write_text("<html>mine</html>")
    summary = label(tmp_path)
    assert theirs.read_text() == "<html>mine</html>"
    assert "was not written by this tool: move it away, or give another --out" in summary.notes[0]
    with pytest.raises(WrongPlaceError, match="not written by this tool"):
        write_report(tmp_path / "out", tmp_path / "images")  # a folder


def test_the_report_is_of_the_last_decision(tmp_path: Path) -> None:
    label(tmp_path)
    before = words_of(tmp_path / "out" / "report.html")
    summary = pipeline.redecide(tmp_path / "out", DecideConfig(box_threshold=0.9))
    old = f"{tmp_path / 'out' / 'report.html'} is of an earlier decision; `grounded-sam report {tmp_path / 'out'}` writes it anew"
    assert old in summary.notes
    report = write_report(tmp_path / "out")
    assert report.labels == summary.labels
    after = words_of(report.path)
    assert "the dataset on disk (yolo) is of an earlier decision" in after and "earlier decision" not in before
    assert old not in after and old not in pipeline.redecide(tmp_path / "out").notes
    assert old in label(tmp_path, CONFIG.model_copy(update={"run": RunConfig(report=False)})).notes
    assert old not in label(tmp_path).notes
    (tmp_path / "out" / "report.html").write_text("somebody else's")
    assert old not in pipeline.redecide(tmp_path / "out", DecideConfig(box_threshold=0.9)).notes


def test_command_line(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["grounded-sam", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    code, told, _ = say(out, "--out", tmp_path / "page.html", "--json")
    facts = json.loads(told)
    assert code == 0 and facts["bytes"] == (tmp_path / "page.html").stat().st_size and facts["images"] == 42
    code, told, _ = say(out)
    assert code == 0 and f"report: {out / 'report.html'} (" in told and "MB, opens in any browser" in told
    code, _, told = say(tmp_path)
    assert code == 2 and "no run in" in told
    code, _, told = say(out, "--evaluation", "file.json")
    assert code == 2 and "--evaluation takes NAME=FILE, got file.json" in told


def test_quality_and_trust_are_told_where_they_were_measured(tmp_path: Path) -> None:
    label(tmp_path, images=40)
    without = words_of(write_report(tmp_path / "out").path)
    assert "Nobody knows yet how many labels are right" in without and "lowest trust" not in without
    assess(tmp_path / "out", write_truth(tmp_path, 20), trust=0.6)
    measured = words_of(write_report(tmp_path / "out").path)
    assert "Measured on 20 labelled images of 40, with 90 % intervals" in measured
    assert "At trust 0.6," in measured and "lowest trust" in measured and "of the objects have no label" in measured
    pipeline.redecide(tmp_path / "out", DecideConfig(box_threshold=0.5))
    old = words_of(write_report(tmp_path / "out").path)
    assert "Of an earlier decision." in old and "run quality again" in old and "lowest trust" not in old


def test_images_that_wait_for_review_are_shown(tmp_path: Path) -> None:
    label(tmp_path, images=40)
    assess(tmp_path / "out", write_truth(tmp_path, 20))
    summary = pipeline.redecide(tmp_path / "out", DecideConfig(trust=0.6))
    assert summary.images["review"] > 0
    told = words_of(write_report(tmp_path / "out").path)
    assert f"Waiting for review {summary.images['review']} image" in told


def test_students_and_evaluations(out: Path, tmp_path: Path) -> None:
    student = tmp_path / "my <b>student</b>".replace("/", "_")
    (student / "ultralytics").mkdir(parents=True)
    (student / "ultralytics" / "results.csv").write_text(
        "epoch,   metrics/mAP50(B),metrics/mAP50-95(B)\n1,0.2,0.1\n2,0.5,0.3\n3,0.71,0.52\n"
    )
    figures = {"box": {"AP50": 0.9}, "per_class": {"square & co": {"AP50": 0.8}, "never": {"AP50": None}}}
    (tmp_path / "teacher.json").write_text(json.dumps(figures))
    figures["box"] = {"AP50": 0.75}
    (tmp_path / "student.json").write_text(json.dumps(figures))
    judged = [("teacher", tmp_path / "teacher.json"), ("student", tmp_path / "student.json")]
    report = write_report(out, tmp_path / "page.html", students=[student], evaluations=judged)
    page = Page(report.path.read_text("utf-8")).root
    (section,) = page.all("section", id="students")
    assert student.name in section.words and "box mAP50 0.71" in section.words
    rows = [row.words for row in section.all("tr")]
    assert rows == ["Class teacher student", "all classes 0.90 0.75", "square & co 0.80 0.80"]
    other = tmp_path / "rf-detr"
    other.mkdir()
    history = [[epoch, {"box_AP": 0.1 * epoch, "box_AP50": 0.12 * epoch}] for epoch in (1, 2, 4, 7)]
    (other / "training.json").write_text(json.dumps({"history": history, "figures": history[-1][1]}))
    write_report(out, tmp_path / "page.html", students=[student, other])
    (section,) = Page((tmp_path / "page.html").read_text("utf-8")).root.all("section", id="students")
    assert "rf-detr" in section.words and "box mAP50 0.84" in section.words and "1 4 7" in section.words
    with pytest.raises(ConfigError, match="holds no student of `distill`"):
        write_report(out, tmp_path / "page.html", students=[tmp_path])
    (tmp_path / "wrong.json").write_text("[]")
    with pytest.raises(DatasetError, match="is no evaluation"):
        write_report(out, tmp_path / "page.html", evaluations=[("x", tmp_path / "wrong.json")])


@pytest.mark.parametrize("masks", ["none", "kept"])
def test_runs_without_masks_of_all_have_a_report(tmp_path: Path, masks: Any) -> None:
    config = CONFIG.model_copy(update={"see": SeeConfig(**FAKE, masks=masks)})
    summary = label(tmp_path, config)
    assert summary.report is not None
    page = Page(summary.report.read_text("utf-8")).root
    assert ("no masks" in page.words) == (masks == "none")
    assert page.all("path", class_="own")


def test_images_that_are_changed_since_are_not_shown_as_if_they_were_the_same(out: Path, tmp_path: Path) -> None:
    moved = tmp_path / "images"
    shutil.copytree(out.parent / "images", moved)
    for path in moved.rglob("*.png"):
        if path.name != "broken.png":
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    page = Page(write_report(out, tmp_path / "page.html", images=moved).path.read_text("utf-8")).root
    assert not page.all("image")


def test_a_folder_without_a_decision_is_refused(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "run" / "decide.json").unlink()
    with pytest.raises(WrongRunError, match="nothing was decided"):
        write_report(tmp_path / "out")
