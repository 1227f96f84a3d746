"""What comes first, what comes together, and what is kept for the next time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.review.queue import Doubts, Front, Queue, doubts_of
from autodistill_grounded_sam.types import Candidates, Labels, State

ONTOLOGY = Ontology((ClassSpec("a", ("a",)), ClassSpec("b", ("b",), box_threshold=0.6)))


def queue(*entries: tuple[int, int, float]) -> Queue:
    """Of (image, label, doubt)."""
    image, label, doubt = zip(*entries, strict=True)
    boxes = np.arange(4 * len(entries), dtype=np.float32).reshape(-1, 4)
    return Queue.of(
        np.array(image, np.int32), np.array(label, np.int32), np.zeros(len(entries), np.int32), boxes, np.float32(doubt)
    )


def stops(found: Queue) -> list[tuple[int, list[int]]]:
    return [(int(found.image[stop]), found.label[found.entries(stop)].tolist()) for stop in range(len(found))]


def test_the_most_doubtful_first_and_those_of_an_image_together_where_they_are_alike() -> None:
    found = queue((0, 0, 0.95), (0, 1, 0.30), (1, 0, 0.97), (2, -1, 0.5), (0, 2, 0.91), (1, 1, 0.96))
    assert stops(found) == [(1, [0, 1]), (0, [0, 2]), (2, [-1]), (0, [1])]


def test_boxes_stay_with_their_labels() -> None:
    found = queue((0, 0, 0.1), (1, 0, 0.9))
    assert found.xyxy[found.entries(0)].tolist() == [[4, 5, 6, 7]]


@pytest.mark.parametrize("size", [1, 7, 40, 500])
def test_the_front_is_the_beginning_of_the_queue_and_makes_no_more_than_it_holds(size: int) -> None:
    rng = np.random.default_rng(size)
    doubt_of = [rng.random(rng.integers(1, 5)).astype(np.float32).round(2) for _ in range(100)]
    front, made = Front[tuple[int, int]](size), list[int]()
    for image, doubt in enumerate(doubt_of):
        front.offer(image, range(len(doubt)), doubt, lambda row, image=image: (made.append(image), (image, row))[1])  # type: ignore[misc]
    whole = queue(*((image, row, float(one)) for image, doubt in enumerate(doubt_of) for row, one in enumerate(doubt)))
    order = [(image, row) for image, rows in stops(whole) for row in rows]
    assert front.entries == order[:size]
    assert size > 40 or len(made) < len(order)


def test_of_an_image_of_many_labels_the_front_makes_no_more_than_it_holds() -> None:
    front, made = Front[int](60), list[int]()
    front.offer(0, range(900), np.full(900, 0.85, np.float32), lambda row: (made.append(row), row)[1])  # type: ignore[func-returns-value]
    assert front.entries == made == list(range(60))


def test_the_front_leaves_out_rows_that_are_not_offered() -> None:
    front = Front[int](3)
    front.offer(0, [1, 3], np.float32([0.91, 0.98]), lambda row: row)
    front.offer(1, [], np.float32([]), lambda row: -1)
    assert front.entries == [3, 1]


def labels(class_id: list[int], score: list[float], margin: list[float]) -> Labels:
    count = len(class_id)
    return Labels(
        State.LABELLED, np.array(class_id, np.int32), np.array(score, np.float32), np.array(margin, np.float32),
        np.zeros((count, 4), np.float32), np.arange(count, dtype=np.int32),
    )  # fmt: skip


def test_doubt_is_nearness_to_the_threshold_of_the_class_or_to_another_class() -> None:
    found = doubts_of(Candidates.none(2), labels([0, 0, 1], [0.40, 0.9, 0.9], [0.4, 0.02, 0.8]), ONTOLOGY, DecideConfig())
    assert found.tolist() == pytest.approx([0.95, 0.98, 0.7])


def test_an_image_without_labels_is_as_doubtful_as_its_best_candidate_is_near() -> None:
    seen = Candidates(np.zeros((2, 4), np.float32), np.array([[0.30, 0.0], [0.0, 0.5]], np.float32))
    assert doubts_of(seen, Labels.nothing(), ONTOLOGY, DecideConfig()).tolist() == pytest.approx([0.95])
    assert doubts_of(Candidates.none(2), Labels.nothing(), ONTOLOGY, DecideConfig()).tolist() == [0]


def test_labels_of_known_trust_come_before_all_others(tmp_path: Path) -> None:
    (tmp_path / "queue.jsonl").write_text(
        "".join(json.dumps({"digest": "d", "class": "a", "xyxy": [0, 0, 0, 0], "trust": trust}) + "\n" for trust in (0.9, 0.25))
    )
    seen, decided = Candidates.none(2), labels([0, 1], [0.40, 0.9], [0.4, 0.8])
    doubts = Doubts.of(ONTOLOGY, DecideConfig(), tmp_path / "queue.jsonl")
    assert doubts("d", seen, decided).tolist() == pytest.approx([0.75, 0.7 * 0.75])  # behind the one of most trust that is known
    assert doubts("other", seen, decided).tolist() == pytest.approx([0.95 * 0.75, 0.7 * 0.75])
    assert Doubts.of(ONTOLOGY, DecideConfig(), tmp_path / "none")("d", seen, decided).tolist() == pytest.approx([0.95, 0.7])


def test_it_is_kept_and_only_that_of_the_same_key_comes_back(tmp_path: Path) -> None:
    path, found = tmp_path / "index.npz", queue((0, 0, 0.9), (1, -1, 0.4))
    assert Queue.load(path, "this") is None
    found.save(path, "this")
    again = Queue.load(path, "this")
    assert again is not None and stops(again) == stops(found)
    assert Queue.load(path, "that") is None
    path.write_bytes(path.read_bytes()[:-40])
    assert Queue.load(path, "this") is None
