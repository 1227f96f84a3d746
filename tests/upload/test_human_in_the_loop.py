"""`label(human_in_the_loop=True)`: labels go up for review through the door, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam import GroundedSAM
from autodistill_grounded_sam.errors import UploadError
from autodistill_grounded_sam.testing import paint_folder


@pytest.fixture
def model() -> GroundedSAM:
    fake = "autodistill_grounded_sam.testing:Fake"
    return GroundedSAM({"red circle": "ball"}, detector=f"{fake}Detector", segmenter=f"{fake}Segmenter", box_threshold=0.2)


def test_labels_go_up_as_predictions_and_only_once(
    roboflow_server: Any, model: GroundedSAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", roboflow_server.key)
    paint_folder(tmp_path / "images", 6)
    settings = {"human_in_the_loop": True, "roboflow_project": "cups", "roboflow_tags": ["night"]}
    model.label(str(tmp_path / "images"), **settings)
    assert len(roboflow_server.images) == 6
    assert {tuple(image["tags"]) for image in roboflow_server.images.values()} == {("night",)}
    assert {row["prediction"] for rows in roboflow_server.annotations.values() for row in rows} == {"true"}
    model.label(str(tmp_path / "images"), **settings)
    assert len(roboflow_server.images) == 6
    assert roboflow_server.calls["upload"] == 6
    ledger = (tmp_path / "images_labeled/run/roboflow.jsonl").read_text()
    assert roboflow_server.key not in ledger


def test_without_a_key_the_labels_are_kept(
    roboflow_server: Any, model: GroundedSAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    paint_folder(tmp_path / "images", 3)
    with pytest.raises((UploadError, ValueError), match="ROBOFLOW_API_KEY"):
        model.label(str(tmp_path / "images"), human_in_the_loop=True)
    assert (tmp_path / "images_labeled/data.yaml").is_file()
