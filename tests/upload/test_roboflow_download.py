"""`roboflow:` projects as images to label: brought as they are, resumed, labelled, and sent back to the images that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autodistill_grounded_sam import cli_datasets
from autodistill_grounded_sam.errors import ConfigError, UploadError
from autodistill_grounded_sam.upload.roboflow_download import download_project
from autodistill_grounded_sam.upload.roboflow_upload import upload_dataset


@pytest.fixture
def project(roboflow_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project `cups` with five images, two of one name in different folders."""
    monkeypatch.setenv("ROBOFLOW_API_KEY", roboflow_server.key)
    for place in range(5):
        folder = tmp_path / "data" / "train" / "images" / f"cam{place % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (place, 9, 9)).save(folder / f"cup {place // 2}.png")
    (tmp_path / "data" / "data.yaml").write_text("train: train/images\nval: train/images\nnames: [cup]\n")
    upload_dataset(tmp_path / "data", "cups", ledger=tmp_path / "first.jsonl", backoff=0.001)
    return roboflow_server


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.png")}


def test_download__the_very_files(project: Any, tmp_path: Path) -> None:
    assert download_project("roboflow:cups", tmp_path / "brought", backoff=0.001) == 5
    assert contents(tmp_path / "brought") == contents(tmp_path / "data") and len(contents(tmp_path / "brought")) == 5
    calls = project.calls["original"]
    assert download_project("roboflow:shop/cups", tmp_path / "brought", backoff=0.001) == 5
    assert project.calls["original"] == calls  # all were there


def test_download__that_broke_off_brings_what_is_missing(project: Any, tmp_path: Path) -> None:
    project.failures["original"] = [404, None, 503, "drop", "half"]
    with pytest.raises(UploadError, match=r"1 of 5 images of 'cups' could not be had, the first: cup .*Run again"):
        download_project("roboflow:cups", tmp_path / "brought", backoff=0.001)
    assert len(contents(tmp_path / "brought")) == 4 and not list((tmp_path / "brought").glob("*.partial"))
    assert download_project("roboflow:cups", tmp_path / "brought", backoff=0.001) == 5
    assert contents(tmp_path / "brought") == contents(tmp_path / "data")


def test_download__a_project_that_is_not_there_is_not_made(project: Any, tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"project 'mugs' cannot be opened on Roboflow: .*no such project") as caught:
        download_project("roboflow:mugs", tmp_path / "brought", retries=0)
    assert project.key not in str(caught.value) and "mugs" not in project.projects and not (tmp_path / "brought").exists()


def test_labels_of_a_brought_project__go_to_the_images_that_are_there(project: Any, tmp_path: Path) -> None:
    """The bytes are the same, so Roboflow answers with the image that it has: nothing is doubled."""
    folder, out = cli_datasets.bring("roboflow:cups", tmp_path / "out", offline=False, quiet=True)
    assert (folder, out) == (str(tmp_path / "out_images"), tmp_path / "out")
    back = tmp_path / "back" / "train"
    (back / "labels").mkdir(parents=True)
    Path(folder).rename(back / "images")
    for path in (back / "images").iterdir():
        (back / "labels" / f"{path.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (back.parent / "data.yaml").write_text("train: train/images\nval: train/images\nnames: [cup]\n")
    summary = upload_dataset(back.parent, "cups", ledger=tmp_path / "second.jsonl", backoff=0.001, verify=True)
    assert (summary.uploaded, summary.verified, len(project.images)) == (5, 5, 5)
    assert set(project.annotations) == set(project.images)


def test_bring__folders_pass_and_offline_is_offline() -> None:
    assert cli_datasets.bring("images", None, offline=True, quiet=True) == ("images", None)
    with pytest.raises(ConfigError, match=r"--offline forbids the network, by which the images of roboflow:cups come"):
        cli_datasets.bring("roboflow:cups", None, offline=True, quiet=True)
