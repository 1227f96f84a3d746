"""Decisions of a person, from the page to the dataset: nothing is lost, everything can be taken back, and it is applied."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import ExportConfig
from autodistill_grounded_sam.errors import WrongRunError
from autodistill_grounded_sam.reporting import write_report
from autodistill_grounded_sam.review.server import ReviewServer
from autodistill_grounded_sam.reviewing import open_review
from autodistill_grounded_sam.reviews import read_reviews
from tests.review.review_kit import (
    ONTOLOGY,
    answer_of,
    ask,
    dataset_of,
    decide,
    every_stop,
    label_folder,
    page_of,
    redecided,
)


@pytest.fixture
def server(out: Path) -> Iterator[ReviewServer]:
    with page_of(out) as server:
        yield server


def with_labels(stops: list[dict[str, Any]], count: int = 1) -> dict[str, Any]:
    return next(stop for stop in stops if len(stop["image"]["labels"]) >= count)


def of_image(server: ReviewServer, number: int) -> dict[str, Any]:
    return next(stop["image"] for stop in every_stop(server) if stop["image"]["number"] == number)


def near(first: list[float], second: list[float], tolerance: float = 0.02) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) < tolerance


def test_every_label_is_in_the_queue_once_and_the_most_doubtful_first(server: ReviewServer, out: Path) -> None:
    stops = every_stop(server)
    judged = [(stop["image"]["id"], number) for stop in stops for number in stop["labels"]]
    labels = [(image.id, place) for image, own in pipeline.decided_labels(out)[1] for place in range(len(own))]
    assert sorted(judged) == sorted(labels)
    empty = {stop["image"]["id"] for stop in stops if not stop["labels"]}
    assert empty == {image.id for image, own in pipeline.decided_labels(out)[1] if not len(own)}
    scores = [stop["image"]["labels"][stop["labels"][0]]["score"] for stop in stops if stop["labels"]]
    assert sum(scores[:5]) < sum(scores[-5:])
    assert ask(server, "about")["total"] == len(judged) + len(empty)


def test_the_queue_of_quality_comes_first(out: Path) -> None:
    with page_of(out) as server:
        last = [stop for stop in every_stop(server) if stop["labels"]][-1]
    label = last["image"]["labels"][last["labels"][-1]]
    digest = next(image.digest for image, _ in pipeline.decided_labels(out)[1] if image.id == last["image"]["id"])
    row = {"image": last["image"]["id"], "digest": digest, "xyxy": label["xyxy"], "class": label["class"], "trust": 0.1}
    (out / "run" / "review_queue.jsonl").write_text(json.dumps(row) + "\n")
    with page_of(out) as server:
        first = every_stop(server)[0]
    assert (first["image"]["id"], first["labels"]) == (last["image"]["id"], [label["number"]])


def test_decisions_are_in_the_dataset(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server), 3)
    image, (right, wrong, other) = stop["image"]["id"], stop["image"]["labels"][:3]
    swapped = {"circle": "square", "square": "circle"}[other["class"]]
    decide(server, stop, "accepted", right)
    decide(server, stop, "rejected", wrong)
    decide(server, stop, "corrected", other, to_class=swapped)
    decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})
    found = redecided(out)[image]
    assert ("square", [2, 3, 20, 25]) in found
    assert any(name == right["class"] and near(box, right["xyxy"]) for name, box in found)
    assert any(name == swapped and near(box, other["xyxy"]) for name, box in found)
    assert not any(name == wrong["class"] and near(box, wrong["xyxy"]) for name, box in found)


def test_they_survive_other_thresholds(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server), 2)
    accepted, rejected = stop["image"]["labels"][:2]
    decide(server, stop, "accepted", accepted)
    decide(server, stop, "rejected", rejected)
    decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})
    strict = redecided(out, box_threshold=0.99)[stop["image"]["id"]]
    assert len(strict) == 2 and ("square", [2, 3, 20, 25]) in strict
    loose = redecided(out, box_threshold=0.1, text_threshold=0.1)[stop["image"]["id"]]
    assert not any(name == rejected["class"] and near(box, rejected["xyxy"]) for name, box in loose)


def test_complete_and_empty_images(server: ReviewServer, out: Path) -> None:
    stops = every_stop(server)
    full, gone = [stop for stop in stops if len(stop["image"]["labels"]) >= 2][:2]
    assert full["image"]["id"] != gone["image"]["id"]
    assert decide(server, full, "complete")["image"]["verdict"] == "complete"
    emptied = decide(server, gone, "empty")["image"]
    assert (emptied["verdict"], emptied["state"]) == ("empty", "empty")
    loose = redecided(out, box_threshold=0.05, text_threshold=0.05)
    assert len(loose[full["image"]["id"]]) == len(full["image"]["labels"])
    assert loose[gone["image"]["id"]] == []
    rows = {row["source"]: row for split in ("train", "valid") for row in coco(out, split)["images"]}
    assert rows[gone["image"]["id"]]["confirmed"] is True
    assert sum("confirmed" in row for row in rows.values()) == 2  # what a person never looked at is not confirmed


def test_formats_that_have_a_place_for_it_tell_what_was_confirmed_from_what_nobody_saw(server: ReviewServer, out: Path) -> None:
    stops = every_stop(server)
    decide(server, full := with_labels(stops), "complete")
    decide(server, bare := next(stop for stop in stops if not stop["labels"]), "empty")
    config, _ = pipeline.last_settings(out)
    formats = ("labelme", "hf", "webdataset")
    pipeline.redecide(out, config, export=ExportConfig(formats=formats))
    for name in formats:
        assert set(confirmed_in(out / name)) == {(stop["image"]["id"], bool(stop["labels"])) for stop in (full, bare)}


def confirmed_in(dataset: Path) -> Iterator[tuple[str, bool]]:
    """The confirmed images of a dataset, and whether they hold an object."""
    for file in dataset.rglob("scene*.json"):
        content = json.loads(file.read_text())
        if content["flags"].get("confirmed"):
            yield content["imagePath"], bool(content["shapes"])
    rows = [row for file in dataset.rglob("*.parquet") for row in pq.read_table(file).to_pylist()]
    for name in dataset.rglob("*.tar"):
        with tarfile.open(name) as tar:
            rows += [json.load(tar.extractfile(entry) or io.BytesIO()) for entry in tar if entry.name.endswith(".json")]
    yield from ((row["source"], bool(row["objects"]["id"])) for row in rows if row["confirmed"])


def coco(out: Path, split: str) -> Any:
    return json.loads((out / split / "_annotations.coco.json").read_text())


def test_an_object_found_in_an_empty_image_opens_it_again(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server))
    decide(server, stop, "empty")
    image = decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})["image"]
    assert (image["verdict"], image["state"]) == ("complete", "labelled")
    assert redecided(out)[stop["image"]["id"]] == [("square", [2, 3, 20, 25])]


def test_what_is_drawn_gets_the_mask_of_the_runs_segmenter(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server))
    box = [10, 10, 50, 40]
    drawn = decide(server, stop, "added", xyxy=box, **{"class": "circle"})["image"]["labels"][-1]
    assert drawn["path"] == ""
    answer = ask(server, "mask", {"image": stop["image"]["number"], "xyxy": box, "class": "circle"})
    assert answer["masked"] and answer["image"]["labels"][-1]["path"].startswith("M")
    label = stop["image"]["labels"][0]
    decide(server, stop, "corrected", label, to_xyxy=[20, 20, 40, 60])
    ask(server, "mask", {"image": stop["image"]["number"], "xyxy": label["key"], "class": label["key_class"]})
    assert len(redecided(out)[stop["image"]["id"]]) >= 2
    areas = {tuple(row["bbox"]): row["area"] for split in ("train", "valid") for row in coco(out, split)["annotations"]}
    for x, y, w, h in ((10, 10, 40, 30), (20, 20, 20, 40)):
        assert areas[x, y, w, h] == pytest.approx(3.14 / 4 * w * h, rel=0.1)  # the fake segmenter's ellipse


def test_segmenters_that_were_joined_mask_a_drawn_box_together(out: Path) -> None:
    run = out / "run" / "run.json"
    info = json.loads(run.read_text())
    info["identity"]["segmenter"]["name"] = "ellipse+ellipse"
    info["identity"]["segmenter"]["sha256"] = "of both"
    run.write_text(json.dumps(info))
    with page_of(out) as server:
        stop = with_labels(every_stop(server))
        decide(server, stop, "added", xyxy=[2, 3, 22, 23], **{"class": "square"})
        body = {"image": stop["image"]["number"], "xyxy": [2, 3, 22, 23], "class": "square"}
        assert ask(server, "mask", body)["masked"]


def test_where_no_segmenter_can_be_loaded_a_box_stays_a_box(out: Path) -> None:
    run = out / "run" / "run.json"
    info = json.loads(run.read_text())
    info["identity"]["segmenter"]["name"] = "autodistill_grounded_sam.testing:GoneSegmenter of some package"
    run.write_text(json.dumps(info))
    with page_of(out) as server:
        stop = with_labels(every_stop(server))
        decide(server, stop, "added", xyxy=[2, 3, 22, 23], **{"class": "square"})
        body = {"image": stop["image"]["number"], "xyxy": [2, 3, 22, 23], "class": "square"}
        status, content, _ = answer_of(server.url + "mask", body)
        assert status >= 400 and "GoneSegmenter" in json.loads(content)["error"]
    assert ("square", [2, 3, 22, 23]) in redecided(out)[stop["image"]["id"]]
    assert 400 in [row["area"] for split in ("train", "valid") for row in coco(out, split)["annotations"]]


def test_a_picture_that_was_replaced_is_neither_shown_nor_masked(tmp_path: Path) -> None:
    wide = tmp_path / "images" / "wide.png"
    wide.parent.mkdir()
    Image.new("RGB", (1700, 60), "red").save(wide)
    out = label_folder(tmp_path)
    with page_of(out) as server:
        stop = next(stop for stop in every_stop(server) if stop["image"]["id"] == "wide.png")
        decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})
        Image.new("RGB", (1650, 70), "blue").save(wide)
        number = stop["image"]["number"]
        asked = {"picture?image={}&side=1600": None, "mask": {"image": number, "xyxy": [2, 3, 20, 25], "class": "square"}}
        for path, body in asked.items():
            status, content, _ = answer_of(server.url + path.format(number), body)
            assert status == 500 and b"not the one that was labelled" in content
    assert redecided(out)["scene_0000.png"] is not None  # a mask of another size would stop every later decision


def test_images_that_are_gone(out: Path, tmp_path: Path) -> None:
    run = out / "run" / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "images": str(tmp_path / "gone")}))
    with pytest.raises(WrongRunError, match=r"gone is not there any more; say where it is now"):
        open_review(out)


def test_undo_takes_back_step_by_step_to_the_very_labels_of_before(server: ReviewServer, out: Path) -> None:
    before = dataset_of(out)
    stops = every_stop(server)
    stop = with_labels(stops, 2)
    first, second = stop["image"]["labels"][:2]
    decide(server, stop, "accepted", first)
    decide(server, stop, "rejected", first)
    decide(server, stop, "corrected", second, to_xyxy=[1, 1, 30, 30])
    decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})
    decide(server, stop, "empty")
    for left in (4, 3, 2):
        answer = ask(server, "undo", {})
        assert (answer["stop"], answer["undo"]) == (stop["stop"], left)
    verdicts = {str(label["key"]): label["verdict"] for label in answer["image"]["labels"]}
    assert (verdicts[str(first["key"])], verdicts[str(second["key"])]) == ("rejected", None)
    assert ask(server, "undo", {})["undo"] == 1
    assert ask(server, "undo", {})["undo"] == 0
    assert ask(server, "undo", {})["stop"] is None
    assert redecided(out) == before
    assert ask(server, "about")["left"] == ask(server, "about")["total"]


def test_undo_of_what_opened_an_empty_image_leaves_it_as_it_was(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server), 2)
    emptied = decide(server, stop, "empty")["image"]
    decide(server, stop, "added", xyxy=[2, 3, 20, 25], **{"class": "square"})
    assert ask(server, "undo", {})["image"] == emptied


def test_what_was_decided_is_not_asked_again(out: Path) -> None:
    with page_of(out) as server:
        about, stop = ask(server, "about"), every_stop(server)[0]
        decide(server, stop, "complete")
        left = ask(server, "about")["left"]
        assert left < about["left"]
        assert stop["stop"] not in [one["stop"] for one in ask(server, "stops?after=-1&count=8")["stops"]]
    with page_of(out) as server:
        assert ask(server, "about")["left"] == left


def test_a_label_for_which_another_object_was_put_is_not_asked_about(out: Path) -> None:
    with page_of(out) as server:
        stop, circle, square = next(
            (stop, circle, square)
            for stop in every_stop(server)
            for circle in stop["image"]["labels"]
            for square in stop["image"]["labels"]
            if (circle["class"], square["class"]) == ("circle", "square")
        )
        left = ask(server, "about")["left"]
        decide(server, stop, "corrected", circle, to_class="square", to_xyxy=square["xyxy"])
        assert ask(server, "about")["left"] == left - 2
        asked = {(one["image"]["number"], number) for one in left_stops(server) for number in one["labels"]}
        assert not asked & {(stop["image"]["number"], one["number"]) for one in (circle, square)}
    page = write_report(out).path.read_text("utf-8")
    assert json.dumps(square["xyxy"])[1:-1] not in page.replace("&#34;", '"')


def left_stops(server: ReviewServer) -> list[dict[str, Any]]:
    stops: list[dict[str, Any]] = []
    while found := ask(server, f"stops?after={stops[-1]['stop'] if stops else -1}&count=8")["stops"]:
        stops += found
    return stops


def test_an_image_that_was_closed_is_asked_about_for_a_class_that_came_later(out: Path) -> None:
    config, _ = pipeline.last_settings(out)
    pipeline.redecide(out, config, {"red circle": "circle"})
    with page_of(out) as server:
        for number in sorted({stop["image"]["number"] for stop in every_stop(server)}):
            decide(server, {"stop": 0, "image": {"number": number}}, "complete")
        assert ask(server, "about")["left"] == 0
    pipeline.redecide(out, config, ONTOLOGY)
    with page_of(out) as server:
        stops = left_stops(server)
        labels = [stop["image"]["labels"][number] for stop in stops for number in stop["labels"]]
        asked = [label["class"] for label in labels if label["verdict"] is None]
        empty = [stop for stop in stops if not stop["labels"]]
        assert set(asked) == {"square"} and len(asked) + len(empty) == ask(server, "about")["left"]


def test_twins_of_the_same_bytes_are_decided_together(tmp_path: Path) -> None:
    out = label_folder(tmp_path)
    stop_id = pipeline.decided_labels(out)[1]
    image = next(image for image, labels in stop_id if len(labels))
    twin = tmp_path / "images" / "twin.png"
    twin.write_bytes((tmp_path / "images" / image.id).read_bytes())
    out = label_folder(tmp_path)
    with page_of(out) as server:
        stop = next(stop for stop in every_stop(server) if stop["image"]["id"] == "twin.png")
        decide(server, stop, "empty")
    found = redecided(out)
    assert (found["twin.png"], found[image.id]) == ([], [])


def test_a_dataset_of_before_is_told_to_be_old(server: ReviewServer, out: Path) -> None:
    config, export = pipeline.last_settings(out)
    assert not any("earlier decision" in note for note in pipeline.redecide(out, config).notes)
    decide(server, with_labels(every_stop(server)), "empty")
    notes = " ".join(pipeline.redecide(out, config).notes)
    assert "earlier decision" in notes and "1 empty" in notes
    again = pipeline.redecide(out, config, export=export).notes
    assert [note for note in again if "earlier decision" in note] == [note for note in again if "report.html is of" in note]


def test_reviews_of_an_image_that_changed_say_nothing(server: ReviewServer, out: Path) -> None:
    stop = with_labels(every_stop(server))
    decide(server, stop, "empty")
    path = out / "run" / "reviews.jsonl"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    config, _ = pipeline.last_settings(out)
    assert "of images that changed or are gone say nothing" in " ".join(pipeline.redecide(out, config).notes)
    assert len(redecided(out)[stop["image"]["id"]]) == len(stop["image"]["labels"])


def test_a_decision_that_was_answered_outlives_kill_9(out: Path) -> None:
    command = [sys.executable, "-m", "autodistill_grounded_sam.cli", "review", str(out), "--no-browser", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        (stop,) = json.loads(answer_of(f"{url}stops?after=-1&count=1")[1])["stops"]
        body = {"stop": stop["stop"], "image": stop["image"]["number"], "decision": {"verdict": "empty"}}
        assert answer_of(url + "decide", body)[0] == 200
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert next(review.verdict for review in read_reviews(out / "run" / "reviews.jsonl")) == "empty"
    assert redecided(out)[stop["image"]["id"]] == []


def test_half_a_line_of_a_killed_page_is_no_decision_and_harms_none(out: Path) -> None:
    path = out / "run" / "reviews.jsonl"
    with page_of(out) as server:
        stop = with_labels(every_stop(server))
        decide(server, stop, "empty")
    path.write_bytes(path.read_bytes() + b'{"image": "scene_0')
    with page_of(out) as server:
        other = next(one for one in every_stop(server) if one["image"]["number"] != stop["image"]["number"])
        decide(server, other, "empty")
    found = redecided(out)
    assert (found[stop["image"]["id"]], found[other["image"]["id"]]) == ([], [])
