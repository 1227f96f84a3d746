"""`upload` of a run: to Roboflow and to the Hugging Face Hub, against local servers that speak their endpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam.errors import ConfigError, DatasetError, UploadError
from autodistill_grounded_sam.importing import import_dataset
from autodistill_grounded_sam.upload import roboflow_calls
from autodistill_grounded_sam.uploading import upload_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three images with two labels, one image confirmed empty."""
    folder = tmp_path / "people"
    (folder / "train" / "images").mkdir(parents=True)
    (folder / "train" / "labels").mkdir()
    for place, rows in enumerate(["0 0.5 0.5 0.2 0.2\n", "1 0.5 0.5 0.4 0.4\n", ""]):
        noise = np.random.default_rng(place).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(folder / "train" / "images" / f"{place}.png")
        (folder / "train" / "labels" / f"{place}.txt").write_text(rows)
    (folder / "data.yaml").write_text("train: train/images\nval: train/images\nnames: [cup, plate]\n")
    import_dataset(folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roboflow_calls.random, "uniform", lambda *_: 0.001)


# --- Roboflow


@pytest.fixture
def roboflow(roboflow_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ROBOFLOW_API_KEY", roboflow_server.key)
    return roboflow_server


@pytest.mark.parametrize("as_annotations", [False, True])
def test_roboflow__a_run_as_predictions_or_annotations(run: Path, roboflow: Any, as_annotations: bool) -> None:
    report = upload_run(run, "roboflow", "cups", as_annotations=as_annotations, tags=["night"], batch_name="b1")
    assert (report.items, report.labels, report.sent, report.skipped, report.verified) == (3, 2, 3, 0, 3)
    assert {(image["batch"], *image["tags"]) for image in roboflow.images.values()} == {("b1", "night")}
    flags = {annotation["prediction"] for (annotation,) in roboflow.annotations.values()}
    assert flags == {"" if as_annotations else "true"} and len(roboflow.annotations) == 2
    again = upload_run(run, "roboflow", "cups", as_annotations=as_annotations)
    assert (again.sent, again.skipped, again.verified) == (0, 3, 3) and len(roboflow.images) == 3


def test_roboflow__a_dry_run_touches_no_network_and_knows_the_ledger(run: Path, roboflow: Any) -> None:
    before = upload_run(run, "roboflow", "cups", dry_run=True)
    assert (before.items, before.sent, before.skipped, before.dry_run) == (3, 3, 0, True) and not roboflow.calls
    upload_run(run, "roboflow", "cups")
    calls = roboflow.calls.total()
    after = upload_run(run, "roboflow", "cups", dry_run=True)
    assert (after.sent, after.skipped) == (0, 3) and roboflow.calls.total() == calls
    assert upload_run(run, "roboflow", "others", dry_run=True).sent == 3


def test_roboflow__a_run_that_broke_off_goes_on(run: Path, roboflow: Any) -> None:
    roboflow.failures["upload"] = [None, 400, 400]
    with pytest.raises(UploadError, match=r"2 of 3 images failed"):
        upload_run(run, "roboflow", "cups")
    report = upload_run(run, "roboflow", "cups")
    assert (report.sent, report.skipped, report.verified) == (2, 1, 3)


def test_roboflow__what_the_project_lost_is_told(run: Path, roboflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roboflow_calls, "LONGEST_WAIT", 0.001)
    upload_run(run, "roboflow", "cups")
    del roboflow.images[next(iter(roboflow.images))]
    with pytest.raises(UploadError, match=r"1 of 3 images that went up are not in the project's list yet; run again to verify"):
        upload_run(run, "roboflow", "cups")


def test_roboflow__a_yolo_dataset_without_a_run_goes_too(run: Path, roboflow: Any) -> None:
    dataset = run.parent / "people"
    report = upload_run(dataset, "roboflow", "cups")
    assert report.sent == 3 and (dataset / "roboflow.jsonl").is_file()
    with pytest.raises(DatasetError, match=r"is neither a run nor a YOLO dataset with a data\.yaml"):
        upload_run(run.parent, "roboflow", "cups")


# --- the Hugging Face Hub


def test_hub__the_repository_holds_the_very_files(run: Path, hub: Any) -> None:
    report = upload_run(run, "hf", "team/cups")
    names = ("README.md", "data/train-00000-of-00001.parquet")
    assert hub.files == {name: (report.dataset / name).read_bytes() for name in names} and hub.private is True
    assert (report.sent, report.skipped, report.verified) == (2, 0, 2) and report.project.endswith("team/cups")
    again = upload_run(run, "hf", "team/cups")
    assert (again.sent, again.skipped) == (0, 2) and len(hub.commits) == 1


def test_hub__stale_shards_go_and_what_others_put_there_stays(run: Path, hub: Any) -> None:
    hub.files |= {"data/train-00000-of-00009.parquet": b"old", "notes.txt": b"by a person"}
    upload_run(run, "hf", "team/cups", public=True)
    assert sorted(hub.files) == ["README.md", "data/train-00000-of-00001.parquet", "notes.txt"] and hub.private is False


def test_hub__an_upload_that_broke_off_sends_what_is_missing(run: Path, hub: Any) -> None:
    hub.failures = [403]
    with pytest.raises(UploadError, match=r"the upload of .* to team/cups failed: .*Run again to send what is missing"):
        upload_run(run, "hf", "team/cups")
    assert upload_run(run, "hf", "team/cups").verified == 2
    assert len(hub.sent) == 1  # nothing twice


def test_hub__a_file_that_did_not_arrive_is_told(run: Path, hub: Any) -> None:
    hub.lose = "README.md"
    with pytest.raises(UploadError, match=r"1 of 2 files are in team/cups not as they are here, first README\.md; run again"):
        upload_run(run, "hf", "team/cups")


def test_hub__a_dry_run_makes_the_dataset_and_sends_nothing(run: Path, hub: Any) -> None:
    report = upload_run(run, "hf", "team/cups", dry_run=True)
    assert (report.sent, report.labels) == (2, 2) and not hub.files and hub.private is None
    assert json.loads((report.dataset / ".grounded-sam-dataset.json").read_text())["format"] == "hf"


def test_wrong_places(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to must be one of roboflow, hf, got 's3'"):
        upload_run(run, "s3", "cups")
    with pytest.raises(ConfigError, match=r"named owner/name, got 'cups'"):
        upload_run(run, "hf", "cups")
