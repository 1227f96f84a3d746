"""The file of reviews: what is written is read back, the last word counts, and a bad line is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.reviews import Review, append_reviews, read_reviews

ONE = Review("cam1/é.jpg", "ab12", (1.0, 2.5, 30.0, 40.0), "bottle", "accepted", "2026-11-24T16:00:00Z")


def test_written_and_read_back(tmp_path: Path) -> None:
    other = replace(ONE, xyxy=(5.0, 5.0, 9.0, 9.0), verdict="rejected")
    append_reviews(tmp_path / "reviews.jsonl", [ONE])
    append_reviews(tmp_path / "reviews.jsonl", [other])
    assert read_reviews(tmp_path / "reviews.jsonl") == [ONE, other]


def test_the_last_word_about_a_label_counts(tmp_path: Path) -> None:
    changed = replace(ONE, verdict="rejected", time="2026-11-25T09:00:00Z")
    of_other_bytes = replace(ONE, digest="cd34")
    append_reviews(tmp_path / "reviews.jsonl", [ONE, of_other_bytes, changed])
    assert read_reviews(tmp_path / "reviews.jsonl") == [changed, of_other_bytes]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text(ONE.line() + ONE.line()[:25], encoding="utf-8")
    assert read_reviews(path) == [ONE]


def test_what_is_written_after_a_kill_stands_on_its_own_line(tmp_path: Path) -> None:
    path, other = tmp_path / "reviews.jsonl", replace(ONE, image="b.jpg", digest="cd34")
    path.write_bytes((ONE.line() + ONE.line()[:17]).encode()[:-1])  # cut within the two bytes of é
    assert read_reviews(path) == [ONE]
    append_reviews(path, [other])
    assert read_reviews(path) == [ONE, other]


def test_line_ends_of_unicode_are_part_of_a_name(tmp_path: Path) -> None:
    odd = replace(ONE, image="cam1/a\u2028b\x85c.jpg")
    append_reviews(tmp_path / "reviews.jsonl", [odd])
    assert read_reviews(tmp_path / "reviews.jsonl") == [odd]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_bytes(ONE.line().encode("utf-16"))
    with pytest.raises(DatasetError, match=r"reviews.jsonl is not UTF-8 text .* write a JSON object a line"):
        read_reviews(tmp_path / "reviews.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", r"reviews.jsonl:2 is no review: Expecting value"),
        ('{"image": "x"}', r"reviews.jsonl:2 is no review: it lacks 'xyxy'; a line holds image, digest, xyxy"),
        (
            ONE.line().replace("[1.0, 2.5, 30.0, 40.0]", "[1, 2]"),
            r"reviews.jsonl:2 is no review: a box is x1, y1, x2, y2 in pixels, got \[1, 2\]; a line holds image, digest, xyxy",
        ),
        (
            ONE.line().replace("accepted", "fine"),
            r"reviews.jsonl:2: verdict must be one of accepted, .*empty, got 'fine'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text(ONE.line() + line.rstrip("\n") + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_reviews(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match=r"there are no reviews in .*reviews.jsonl: No such file or directory; `grounded-sam review RUN`",
    ):
        read_reviews(tmp_path / "reviews.jsonl")
