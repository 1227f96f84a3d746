"""A dataset that lacks a class, through the command line: opened, completed by a model, exported, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodistill_grounded_sam.datasets import dataset_class_names, read_dataset
from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset
from tests.cli_kit import tool

NAMES = ["red circle", "blue square", "green star"]
PAIRS = tuple((name.split()[0], name.split()[1]) for name in NAMES)
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(2, 4), pairs=PAIRS)


@pytest.mark.slow
def test_open_complete_and_export_a_dataset_without_its_stars(tmp_path: Path) -> None:
    truth = paint_dataset(tmp_path, 12, SETTINGS, 84_000, NAMES)
    content = json.loads(truth.read_text())
    star = next(one["id"] for one in content["categories"] if one["name"] == "green star")
    content["categories"] = [one for one in content["categories"] if one["id"] != star]
    stars = sum(one["category_id"] == star for one in content["annotations"])
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != star]
    partial = tmp_path / "partial.json"
    partial.write_text(json.dumps(content))

    opened = tool("import", partial, "--images", tmp_path / "images", "--out", tmp_path / "opened")
    assert opened["labels"] == len(content["annotations"]) and set(opened["per_class"]) == set(NAMES[:2])

    ontology = json.dumps({"green star": "green star"})
    tool("label", tmp_path / "images", "--ontology", ontology, "--detector", "mini", "--segmenter", "mini", "--device", "cpu",
         "--offline", "--out", tmp_path / "found")  # fmt: skip
    completed = tool(
        "import", partial, "--images", tmp_path / "images", "--add", tmp_path / "found", "--out", tmp_path / "completed"
    )
    assert completed["labels"] - completed["per_class"]["green star"] == opened["labels"]  # labels of people stay as they were
    assert completed["per_class"]["green star"] >= 0.6 * stars > 0

    for format_ in ("voc", "cvat", "labelme", "yolo-seg"):
        out = tmp_path / format_
        written = tool("export", tmp_path / "completed", "--format", format_, "--out", out)
        rows = list(read_dataset(out))
        assert len(rows) == 12 and sum(len(row.class_id) for row in rows) == written["labels"] == completed["labels"]
        assert set(dataset_class_names(out)) == set(NAMES)
    figures = tool("evaluate", tmp_path / "completed", "--truth", truth)
    assert figures["operating_point"]["precision"] > 0.9 and figures["operating_point"]["recall"] > 0.9

    planned = tool("upload", tmp_path / "completed", "--to", "hf", "--project", "me/shapes", "--dry-run")
    assert planned["labels"] == completed["labels"] and planned["dry_run"]
