"""The upload against a local server, through the real `roboflow` package: counts, review state, retries, resume, secrecy."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.errors import ConfigError, DatasetError, UploadError
from autodistill_grounded_sam.upload import roboflow_upload
from autodistill_grounded_sam.upload.roboflow_calls import scrubbed
from autodistill_grounded_sam.upload.roboflow_upload import UploadSummary, upload_dataset

BOX = "0 0.5 0.5 0.2 0.2\n"
POLYGON = "1 0.1 0.1 0.5 0.1 0.5 0.5\n"


def write_dataset(folder: Path, images: int = 5, *, text: str = BOX) -> Path:
    from PIL import Image

    for number in range(images):
        split = "valid" if number % 5 == 4 else "train"
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / split / "images" / f"cup {number}.png")
        (folder / split / "labels" / f"cup {number}.txt").write_text(text)
    (folder / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [cup, plate]\n")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset")


def upload(server: Any, dataset: Path, **settings: Any) -> UploadSummary:
    quick = {"ledger": dataset.parent / "upload.jsonl", "backoff": 0.001, "api_key": server.key}
    return upload_dataset(dataset, settings.pop("project", "cups"), **{**quick, **settings})


def rows(dataset: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (dataset.parent / "upload.jsonl").read_text().splitlines()]


def test_upload__every_image_with_its_labels_as_predictions(roboflow_server: Any, dataset: Path) -> None:
    summary = upload(roboflow_server, dataset, tags=["mini", "a&b"], batch_name="night run #2")
    assert (summary.uploaded, summary.skipped, summary.failed, summary.project) == (5, 0, 0, "shop/cups")
    images = sorted(roboflow_server.images.values(), key=lambda image: str(image["name"]))
    assert [(image["name"], image["split"]) for image in images] == [
        (f"cup {number}.png", "valid" if number == 4 else "train") for number in range(5)
    ]
    assert {(image["batch"], *image["tags"]) for image in images} == {("night run #2", "mini", "a&b")}
    assert set(roboflow_server.annotations) == set(roboflow_server.images)
    for image_id, (annotation,) in roboflow_server.annotations.items():
        assert annotation["prediction"] == "true"
        assert annotation["jobName"] == "night run #2"
        assert annotation["name"] == roboflow_server.images[image_id]["name"].replace("png", "txt")
        assert annotation["annotationFile"] == BOX.strip()
        assert annotation["labelmap"] == {"0": "cup", "1": "plate"}


def test_upload__as_ground_truth_only_when_asked(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset, as_predictions=False)
    assert {annotation["prediction"] for (annotation,) in roboflow_server.annotations.values()} == {""}


def test_upload__a_hash_in_a_name_does_not_lose_the_review_state(roboflow_server: Any, dataset: Path) -> None:
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (dataset / "train" / kind / f"cup 0.{suffix}").rename(dataset / "train" / kind / f"ü&a#1.{suffix}")
    upload(roboflow_server, dataset)
    named = {annotation["name"]: annotation["prediction"] for (annotation,) in roboflow_server.annotations.values()}
    assert named["ü&a#1.txt"] == "true"


def test_upload__empty_and_unlabelled_images_go_up_without_labels(roboflow_server: Any, dataset: Path) -> None:
    (dataset / "train" / "labels" / "cup 0.txt").write_text("")
    (dataset / "train" / "labels" / "cup 1.txt").unlink()
    assert upload(roboflow_server, dataset).uploaded == 5
    assert len(roboflow_server.images) == 5
    assert len(roboflow_server.annotations) == 3
    assert upload(roboflow_server, dataset).skipped == 5


def test_upload__a_second_run_sends_nothing(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset)
    before = dict(roboflow_server.calls)
    assert (summary := upload(roboflow_server, dataset)).skipped == 5
    assert summary.uploaded == 0
    assert roboflow_server.calls["upload"] == before["upload"] == 5
    assert roboflow_server.calls["annotate"] == before["annotate"] == 5


def test_upload__changed_labels_replace_the_old_ones_alone(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset)
    (dataset / "train" / "labels" / "cup 0.txt").write_text(BOX + BOX)
    assert (summary := upload(roboflow_server, dataset)).uploaded == 1
    assert summary.skipped == 4
    assert roboflow_server.calls["upload"] == 5
    last = max(roboflow_server.annotations.values(), key=len)[-1]
    assert (last["overwrite"], last["prediction"]) == ("true", "true")
    (dataset / "train" / "labels" / "cup 0.txt").write_text("")


def test_upload__an_image_twice_is_one_there__and_its_labels_do_not_change_at_every_run(
    roboflow_server: Any, dataset: Path
) -> None:
    copy = dataset / "train" / "images" / "a copy.png"
    copy.write_bytes((dataset / "train" / "images" / "cup 0.png").read_bytes())
    (dataset / "train" / "labels" / "a copy.txt").write_text(POLYGON)
    first, again = upload(roboflow_server, dataset, verify=True), upload(roboflow_server, dataset, verify=True)
    assert (first.uploaded, first.verified, again.uploaded, again.skipped) == (5, 5, 0, 5)
    assert "1 image(s) are the very bytes of another" in first.notes[0] and len(roboflow_server.images) == 5
    assert [len(own) for own in roboflow_server.annotations.values()] == [1] * 5


def test_upload__labels_that_an_image_has_there_stay_and_it_is_told(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset, as_predictions=False)
    (dataset.parent / "upload.jsonl").unlink()  # as if others had annotated them
    for label in (dataset / "train" / "labels").glob("*.txt"):
        label.write_text(POLYGON)
    for summary in (upload(roboflow_server, dataset, as_predictions=False), upload(roboflow_server, dataset)):
        assert "5 image(s) had labels there already" in summary.notes[0]
    assert {annotation["annotationFile"] for (annotation,) in roboflow_server.annotations.values()} == {BOX.strip()}


def test_upload__predictions_do_not_become_annotations_and_it_is_told(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset)
    summary = upload(roboflow_server, dataset, as_predictions=False)
    assert summary.skipped == 5 and "5 image(s) went up before as predictions and stay such" in summary.notes[0]


def test_upload__without_a_ledger_the_server_knows_the_images(roboflow_server: Any, dataset: Path) -> None:
    upload(roboflow_server, dataset)
    (dataset.parent / "upload.jsonl").unlink()
    assert upload(roboflow_server, dataset).uploaded == 5
    assert len(roboflow_server.images) == 5  # it answered "duplicate"
    assert {len(annotations) for annotations in roboflow_server.annotations.values()} == {1}  # and "already annotated"


@pytest.mark.parametrize("failure", [500, 503, 429, 408, "drop", "slow"])
@pytest.mark.parametrize("kind", ["upload", "annotate", "workspace", "GET other"])
def test_upload__passing_faults_are_tried_again(roboflow_server: Any, dataset: Path, kind: str, failure: Any) -> None:
    roboflow_server.failures[kind] = [failure, None, failure]
    assert upload(roboflow_server, dataset).uploaded == 5
    assert len(roboflow_server.images) == 5
    assert {len(annotations) for annotations in roboflow_server.annotations.values()} == {1}
    assert len(roboflow_server.annotations) == 5
    assert roboflow_server.calls["projects"] == 0  # a fault is not mistaken for a project that does not exist


def test_upload__waits_longer_each_time_with_jitter(
    roboflow_server: Any, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roboflow_server.failures["GET other"] = [500] * 4
    with caplog.at_level(logging.INFO, logger="autodistill_grounded_sam"):
        upload(roboflow_server, dataset, backoff=0.02)
    waits = [record.args[-1] for record in caplog.records if "again in" in record.msg and isinstance(record.args, tuple)]
    assert len(waits) == 4
    assert all(0.5 * 0.02 * 2**i <= wait <= 0.02 * 2**i for i, wait in enumerate(waits))
    assert "try 1 of 6 failed (" in caplog.text


def test_upload__labels_that_failed_are_sent_alone_later(roboflow_server: Any, dataset: Path) -> None:
    roboflow_server.failures["annotate"] = [400]
    with pytest.raises(
        UploadError,
        match=r"1 of 5 images failed \(4 uploaded, 0 were up before\); the first: train/images/cup 0\.png: planned 400 for",
    ):
        upload(roboflow_server, dataset, workers=1)
    assert [row["status"] for row in rows(dataset)].count("failed") == 1
    assert roboflow_server.calls["annotate"] == 5  # 400 is final
    assert (summary := upload(roboflow_server, dataset)).uploaded == 1
    assert summary.skipped == 4
    assert roboflow_server.calls["upload"] == 5
    assert len(roboflow_server.annotations) == 5


def test_upload__gives_up_after_its_retries(roboflow_server: Any, dataset: Path) -> None:
    roboflow_server.failures["upload"] = [500] * 100
    with pytest.raises(UploadError, match=r"5 of 5 images failed \(0 uploaded"):
        upload(roboflow_server, dataset, retries=2)
    assert roboflow_server.calls["upload"] == 15
    roboflow_server.failures.clear()
    assert upload(roboflow_server, dataset).uploaded == 5


def test_upload__a_key_that_loses_its_rights_stops_the_run(roboflow_server: Any, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "many", 40)
    roboflow_server.failures["upload"] = [None, 403, *[403] * 100]
    with pytest.raises(UploadError, match=r"39 of 40 images failed \(1 uploaded"):
        upload(roboflow_server, dataset, workers=1)
    assert roboflow_server.calls["upload"] == 2


@pytest.mark.parametrize(("text", "kind"), [(BOX, "object-detection"), (POLYGON, "instance-segmentation")])
def test_upload__creates_a_missing_project_once(
    roboflow_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, kind: str
) -> None:
    dataset = write_dataset(tmp_path / "d", 2, text=text)
    with caplog.at_level(logging.INFO, logger="autodistill_grounded_sam"):
        assert upload(roboflow_server, dataset, project="My New Cups").project == "shop/my-new-cups-x1"
    assert f"creating project My New Cups ({kind}, licence Private)" in caplog.text
    assert upload(roboflow_server, dataset, project="My New Cups").skipped == 2  # found again by its name
    assert upload(roboflow_server, dataset, project="my-new-cups-x1").skipped == 2
    assert roboflow_server.calls["projects"] == 1


def test_upload__wrong_key(roboflow_server: Any, dataset: Path) -> None:
    with pytest.raises(UploadError, match=r"project 'cups' cannot be opened on Roboflow: .*key \['\*\*\*'\] is not known"):
        upload(roboflow_server, dataset, api_key="wRoNgKey42")


def test_upload__no_key(roboflow_server: Any, dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Roboflow API key: give api_key, set ROBOFLOW_API_KEY, or run `roboflow login`"):
        upload(roboflow_server, dataset, api_key=None)


def test_upload__key_from_the_environment(roboflow_server: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", roboflow_server.key)
    assert upload(roboflow_server, dataset, api_key=None).uploaded == 5


def test_upload__nothing_to_upload(roboflow_server: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no YOLO dataset at .*nothing/data\.yaml: expected a folder"):
        upload(roboflow_server, tmp_path / "nothing" / "data.yaml")
    (tmp_path / "data.yaml").write_text("names: [cup]\n")
    with pytest.raises(DatasetError, match=r"has no images to upload: looked in train/images, valid/images, test/images"):
        upload(roboflow_server, tmp_path)
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    with pytest.raises(DatasetError, match=r"data\.yaml must hold a list or mapping `names`, got None"):
        upload(roboflow_server, tmp_path)


@pytest.mark.parametrize("failures", [{}, {"annotate": [500] * 99}, {"upload": ["drop"] * 99}, {"workspace": ["drop"] * 99}])
def test_upload__the_key_is_nowhere(
    roboflow_server: Any,
    dataset: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    failures: dict[str, Any],
) -> None:
    roboflow_server.failures.update(failures)
    told = ""
    with caplog.at_level(logging.DEBUG):  # urllib3 logs every address at this level
        try:
            upload(roboflow_server, dataset, retries=1)
        except UploadError as error:
            told = "".join(traceback.format_exception(error))
            assert error.__context__ is None
    assert bool(told) == bool(failures)
    assert "urllib3" in caplog.text
    ledger = dataset.parent / "upload.jsonl"
    captured = capfd.readouterr()
    everything = [told, caplog.text, ledger.read_text() if ledger.exists() else "", captured.err, captured.out]
    assert not [text for text in everything if roboflow_server.key in text]
    assert captured.out == ""
    record = logging.LogRecord("urllib3.connectionpool", logging.DEBUG, "", 0, "%s", (roboflow_server.key,), None)
    assert logging.getLogger("urllib3.connectionpool").filter(record)
    assert record.getMessage() == roboflow_server.key  # the filter is gone again


def test_scrubbed() -> None:
    text = scrubbed("a k+y/1 b k%2By%2F1 c /x?api_key=other&name=n", "k+y/1")
    assert text == "a *** b *** c /x?api_key=***&name=n"


CHILD = """
import sys
from pathlib import Path
from autodistill_grounded_sam.upload.roboflow_upload import upload_dataset
upload_dataset(Path(sys.argv[1]), "cups", ledger=Path(sys.argv[2]), workers=2)
"""


@pytest.mark.slow
def test_upload__killed_and_resumed(roboflow_server: Any, tmp_path: Path) -> None:
    """A process of its own is killed with -9 in the middle; the next run sends what is missing, and nothing twice."""
    dataset = write_dataset(tmp_path / "dataset", 30)
    ledger = tmp_path / "upload.jsonl"
    roboflow_server.delay = 0.05
    environment = {**os.environ, "ROBOFLOW_API_KEY": roboflow_server.key, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(dataset), str(ledger)], env=environment)
    deadline = time.monotonic() + 60
    while len(roboflow_server.annotations) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.3)  # the server works off what it had in hand
    reached = roboflow_server.calls["upload"]
    assert 8 <= reached < 30
    roboflow_server.delay = 0.0
    summary = upload(roboflow_server, dataset)
    assert summary.skipped >= 6
    assert summary.uploaded + summary.skipped == 30
    assert len(roboflow_server.images) == 30
    assert {len(annotations) for annotations in roboflow_server.annotations.values()} == {1}
    assert len(roboflow_server.annotations) == 30
    assert roboflow_server.calls["upload"] <= 30 + 2  # only what was under way in its two threads
    assert upload(roboflow_server, dataset).skipped == 30


def test_upload__only_the_project_that_was_asked_for(roboflow_server: Any, dataset: Path) -> None:
    roboflow_server.projects["plates"] = "plates"
    upload(roboflow_server, dataset)
    assert upload(roboflow_server, dataset, project="plates").uploaded == 5


def test_import__is_cheap() -> None:
    code = f"import sys, {roboflow_upload.__name__}; print('roboflow' in sys.modules, 'requests' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split() == ["False", "False"]
