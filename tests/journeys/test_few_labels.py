"""From words that do not work to labels that can be trained on, with a few labelled images and the mini models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset
from tests.cli_kit import said, tool

MINI = ("--detector", "mini", "--segmenter", "mini", "--device", "cpu", "--offline")
NAMES = ["red circle", "blue square", "green star"]
CLASSES = ["ball", "box", "badge"]
PAIRS = (("red", "circle"), ("blue", "square"), ("green", "star"), ("red", "square"), ("blue", "circle"))
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(2, 4), pairs=PAIRS)
LABELLED = 30  # of 50 images


def paint(folder: Path) -> tuple[Path, Path]:
    """50 scenes; the truth of all, and that of the first 30."""
    truth = paint_dataset(folder, 50, SETTINGS, 82_000, NAMES)
    content = json.loads(truth.read_text())
    content["categories"] = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
    truth.write_text(json.dumps(content))
    content["images"] = content["images"][:LABELLED]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] <= LABELLED]
    (folder / "some.json").write_text(json.dumps(content))
    return truth, folder / "some.json"


@pytest.mark.slow
def test_tune_label_measure_and_hold_back_what_is_doubtful(tmp_path: Path) -> None:
    truth, some = paint(tmp_path)
    poor = tmp_path / "poor.yaml"
    poor.write_text(
        "version: 1\nclasses:\n"
        "  ball: {prompts: [orange circle], box_threshold: 0.3}\n"
        "  box: {prompts: [blue square], box_threshold: 0.93}\n"
        "  badge: [green star, green ring]\n"
        "negatives: [red square]\n"
    )
    words = ("--word", "ball=red circle", "--word", "ball=purple moon")
    tuned = tool(
        "tune", tmp_path / "images", "--truth", some, "--ontology", poor, *words, *MINI, "--out", tmp_path / "tuned.yaml"
    )
    ball, box, badge = tuned["choices"]
    assert (ball["words"], ball["verdict"]) == (["red circle"], "changed")
    assert (box["words"], box["verdict"]) == (["blue square"], "changed")
    assert box["threshold"] < 0.9
    assert badge["verdict"] in ("kept", "refused")
    found = {}
    for name, ontology in (("before", poor), ("after", tmp_path / "tuned.yaml")):
        out = tmp_path / name
        tool("label", tmp_path / "images", "--ontology", ontology, *MINI, "--out", out, "--format", "yolo")
        found[name] = tool("evaluate", out, "--truth", truth)["operating_point"]["f1"]
    assert found["after"] > 0.9 > 0.7 > found["before"]

    out = tmp_path / "after"
    quality = tool("quality", out, "--truth", some, "--trust", "0.8")
    exact = tool("evaluate", out, "--truth", truth)["operating_point"]
    precision, missed = quality["overall"]["precision"], quality["overall"]["missed"]
    assert precision["low"] <= exact["precision"] <= precision["high"]
    assert missed["low"] <= 1 - exact["recall"] <= missed["high"]
    decided = tool("decide", out, "--trust", "0.8", "--format", "yolo")
    assert decided["images"]["review"] == quality["trusted"]["waiting"]
    assert sum(decided["datasets"][0]["images"].values()) == quality["trusted"]["images"]
    again = tool("evaluate", out / "data.yaml", "--truth", truth)["operating_point"]
    assert again["precision"] >= exact["precision"]


def test_for_people_it_says_what_to_do_next(tmp_path: Path) -> None:
    """The same on instant models: the words on the screen."""
    fake = "autodistill_grounded_sam.testing:Fake"
    models = ("--detector", f"{fake}Detector", "--segmenter", f"{fake}Segmenter")
    _, some = paint(tmp_path)
    words = json.dumps(dict(zip(NAMES, CLASSES, strict=True)))
    said("label", tmp_path / "images", "--ontology", words, *models, "--out", tmp_path / "out")
    shown = said("tune", tmp_path / "out", "--truth", some)
    assert f"tuned on {LABELLED} labelled images:" in shown
    assert f"next: grounded-sam decide {tmp_path / 'out'} --ontology {tmp_path / 'out/run/tuned.yaml'}" in shown
    said("decide", tmp_path / "out", "--ontology", tmp_path / "out/run/tuned.yaml", "--duplicate-iou", "0.6")
    assert json.loads((tmp_path / "out/run/decide.json").read_text())["decide"]["duplicate_iou"] == 0.6
    shown = said("quality", tmp_path / "out", "--truth", some, "--trust", "0.8")
    assert "labels against 30 of 50 images, with 90 % intervals" in shown
    assert "images wait for review" in shown
    assert "review_queue.jsonl" in shown
    said("tune", tmp_path / "out", "--truth", some, "--word", "ball", codes=(2,))
