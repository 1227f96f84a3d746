"""What a page asks a person about: the beginning of the review page's queue, as lines that `--merge` takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.report.asking import MOST_MASK_BYTES, SHOWN, questions
from autodistill_grounded_sam.report.gallery import Shot
from autodistill_grounded_sam.report.pictures import Picture
from autodistill_grounded_sam.report.samples import Example, Shape
from autodistill_grounded_sam.reporting import write_report
from autodistill_grounded_sam.reviewing import merge_reviews
from autodistill_grounded_sam.types import ImageRecord, Rle
from tests.report.report_kit import Element, Page
from tests.review.review_kit import every_stop, label_folder, page_of

WHEN = {"time": "2026-11-26T12:00:00Z"}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folder(tmp_path_factory.mktemp("home"), 30)


@pytest.fixture
def out(tmp_path: Path, labelled: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "out"))


def page_of_report(out: Path, **settings: Any) -> Element:
    return Page(write_report(out, out / "page.html", **settings).path.read_text("utf-8")).root


def asked_on(page: Element) -> list[dict[str, Any]]:
    return [json.loads(one.attributes["data-line"]) for one in page.all("figure") if "data-line" in one.attributes]


def test_the_first_labels_of_the_review_page_in_its_order(out: Path) -> None:
    with page_of(out) as server:
        stops = every_stop(server)
    order = [(stop["image"]["id"], number) for stop in stops for number in stop["labels"] or [None]]
    keys = {
        (stop["image"]["id"], one["number"]): (one["key"], one["key_class"]) for stop in stops for one in stop["image"]["labels"]
    }
    lines = asked_on(page_of_report(out))
    assert len(lines) == SHOWN < len(order)
    assert [(line["image"], line["xyxy"], line["class"]) for line in lines] == [
        (image, *keys.get((image, number), (None, None))) for image, number in order[:SHOWN]
    ]


def test_a_line_is_a_decision_but_for_its_time(out: Path, tmp_path: Path) -> None:
    lines = asked_on(page_of_report(out))
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps({**line, **WHEN}) + "\n" for line in lines))
    merged = merge_reviews(out, tmp_path / "reviews.jsonl")
    assert (merged.added, merged.elsewhere, merged.faults) == (SHOWN, 0, ())
    assert {line["verdict"] for line in lines} == {"accepted", "empty"}
    assert all(("mask" in line) == (line["verdict"] == "accepted") for line in lines)


def test_what_was_decided_is_told_and_not_asked_again(out: Path, tmp_path: Path) -> None:
    lines = asked_on(page_of_report(out))
    label, image = (next(line for line in lines if line["verdict"] == verdict) for verdict in ("accepted", "empty"))
    closed = next(line for line in lines if line["image"] not in (label["image"], image["image"]))
    done = [label, image, {**image, "image": closed["image"], "digest": closed["digest"], "verdict": "complete"}]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps({**line, **WHEN}) + "\n" for line in done))
    merge_reviews(out, tmp_path / "reviews.jsonl")
    page = page_of_report(out)
    (section,) = page.all("section", id="review")
    assert "3 decisions of a person are in the dataset already" in section.words
    (note,) = [one.words for one in page.all("li") if "reviews applied" in one.words]
    assert note.endswith("reviews applied: 1 accepted, 1 complete, 1 empty")
    again = asked_on(page)
    assert len(again) == SHOWN and label not in again
    assert not {image["digest"], closed["digest"]} & {line["digest"] for line in again}


def test_twins_of_the_same_bytes_are_asked_about_once(tmp_path: Path) -> None:
    label_folder(tmp_path, 6)
    for image in sorted((tmp_path / "images").iterdir()):
        shutil.copy(image, image.with_name(f"twin_{image.name}"))
    lines = asked_on(page_of_report(label_folder(tmp_path, 6)))
    assert lines and len({json.dumps([line["digest"], line["xyxy"], line["class"]]) for line in lines}) == len(lines)


def test_lines_stay_small_whatever_the_ontology_and_the_masks(tmp_path: Path) -> None:
    image = ImageRecord("a.png", "0" * 64, tmp_path / "a.png", 4000, 3000)
    picture = Picture("", 1, 1, (0, 0, 1, 1), (0, 0, 1, 1), "", "", "")
    masks = ["1" * length for length in (MOST_MASK_BYTES, MOST_MASK_BYTES + 1)]
    shapes = [None, *(Shape((0, 0, 9, 9), Rle(size=[3000, 4000], counts=counts)) for counts in masks)]
    examples = [Example(image, shape, class_id=7) for shape in shapes]
    asked = questions(examples, [Shot(picture, "", "", ())] * 3, [f"class {number}" for number in range(1200)])
    empty, largest, larger = (json.loads(one.line) for one in asked)
    assert len(asked[0].line) < 300 and empty["verdict"] == "empty"
    assert largest["mask"]["counts"] == masks[0] and "mask" not in larger and larger["class"] == "class 7"


def test_of_what_cannot_be_seen_nothing_is_asked(out: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    page = page_of_report(out, images=tmp_path / "nothing")
    assert not page.all("section", id="review")
    assert not [one for one in page.all("a") if one.attributes["href"] == "#review"]
