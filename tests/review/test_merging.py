"""Decisions made elsewhere come in once, whatever their order, and never half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.reviewing import merge_reviews
from autodistill_grounded_sam.reviews import read_all_reviews, read_reviews
from tests.review.review_kit import decide, every_stop, page_of


def test_merging_takes_in_what_is_new_once_and_names_what_is_wrong(out: Path, tmp_path: Path) -> None:
    path = out / "run" / "reviews.jsonl"
    with page_of(out) as server:
        stops = every_stop(server)
        for stop in stops[:4]:
            decide(server, stop, "complete")
    lines = path.read_text().splitlines()
    path.unlink()
    elsewhere = json.loads(lines[0]) | {"digest": "ab"}
    outside = json.loads(next(line for line in lines if '"xyxy": [' in line)) | {"xyxy": [0, 0, 5000, 10]}
    download = tmp_path / "decisions.jsonl"
    download.write_text("\n".join([*lines, json.dumps(elsewhere), json.dumps(outside), '{"image": "cut', *lines[:1]]) + "\n")
    merged = merge_reviews(out, download)
    assert (merged.added, merged.known, merged.elsewhere) == (len(lines), 1, 1)
    assert f"decisions.jsonl:{len(lines) + 2}: the box" in merged.faults[0]
    assert f"decisions.jsonl:{len(lines) + 3} is no review" in merged.faults[1]
    assert path.read_text().splitlines() == lines
    again = merge_reviews(out, download)
    assert (again.added, again.known) == (0, len(lines) + 1)
    assert path.read_text().splitlines() == lines


def test_of_merged_decisions_the_latest_counts_in_whatever_order_they_came(out: Path, tmp_path: Path) -> None:
    path = out / "run" / "reviews.jsonl"
    with page_of(out) as server:
        stop = next(stop for stop in every_stop(server) if stop["labels"])
        decide(server, stop, "rejected", stop["image"]["labels"][0])
        decide(server, stop, "accepted", stop["image"]["labels"][0])
    older, newer = path.read_text().splitlines()
    path.write_text(newer + "\n")
    (tmp_path / "older.jsonl").write_text(older + "\n")
    assert merge_reviews(out, tmp_path / "older.jsonl").added == 1
    assert [review.verdict for review in read_reviews(path)] == ["accepted"]
    assert len(read_all_reviews(path)) == 2


def test_a_file_that_is_not_there(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing.jsonl cannot be read .* a review page downloads"):
        merge_reviews(out, tmp_path / "nothing.jsonl")
