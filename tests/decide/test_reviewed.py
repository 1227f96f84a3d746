"""What a person said is applied to whatever was decided: it survives other thresholds, and nothing rejected comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autodistill_grounded_sam.decide.reviewed import apply_reviews, match_reviews
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.masks import decode_mask, encode_mask
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.reviews import Review
from autodistill_grounded_sam.types import REASONS, Labels, Reason, State

ONTOLOGY = Ontology(tuple(ClassSpec(name, (name,)) for name in ("ball", "box", "badge")), exclusive=(("ball", "box"),))
SIZE = 100, 80
A, B, C = (10.0, 10.0, 30.0, 30.0), (40.0, 10.0, 60.0, 30.0), (70.0, 50.0, 90.0, 70.0)


def mask_of(box: tuple[float, ...]):
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    x1, y1, x2, y2 = map(int, box)
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


def labels(*rows: tuple[str, tuple[float, ...]], masks: bool = True, trust: list[float] | None = None) -> Labels:
    """Labels of these classes and boxes, scores falling from 0.9; `trust` makes those below 0.5 wait for review."""
    count = len(rows)
    score = np.array([0.9 - 0.1 * place for place in range(count)], np.float32)
    doubtful = trust is not None and min(trust, default=1) < 0.5
    state = State.REVIEW if doubtful else State.LABELLED if rows else State.EMPTY
    return Labels(
        state,
        np.array([ONTOLOGY.class_names.index(name) for name, _ in rows], np.int32),
        score,
        score,
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.arange(count, dtype=np.int32),
        tuple(mask_of(box) for _, box in rows) if masks else None,
        np.zeros(count, np.uint8),
        np.full(count, -1, np.int32),
        None if trust is None else np.array(trust, np.float32),
    )


def said(verdict: str, box: tuple[float, ...] | None, name: str = "ball", **more: object) -> Review:
    return Review("a.png", "d1", box, "" if box is None else name, verdict, "2026-11-26T10:00:00Z", **more)  # type: ignore[arg-type]


def after(before: Labels, *reviews: Review, trust: float = 0.0) -> Labels:
    return apply_reviews(before, reviews, ONTOLOGY, *SIZE, trust)


def names(found: Labels) -> list[str]:
    return [ONTOLOGY.class_names[place] for place in found.class_id]


def test_a_rejected_label_goes_and_its_candidate_says_why() -> None:
    found = after(labels(("ball", A), ("box", B)), said("rejected", A))
    assert names(found) == ["box"]
    assert [REASONS[code] for code in found.reasons] == [Reason.REJECTED, Reason.KEPT]
    assert after(labels(("ball", A)), said("rejected", A)).state is State.EMPTY


def test_a_rejection_is_of_a_class_and_finds_a_box_that_other_settings_moved_a_little() -> None:
    assert names(after(labels(("box", A)), said("rejected", A, "ball"))) == ["box"]
    moved = tuple(edge + 1.5 for edge in A)
    assert names(after(labels(("ball", moved)), said("rejected", A))) == []
    assert names(after(labels(("ball", B)), said("rejected", A))) == ["ball"]


def test_of_two_labels_in_a_crowd_only_the_nearer_is_meant() -> None:
    near = (12.0, 10.0, 32.0, 30.0)
    owner = match_reviews(labels(("ball", near), ("ball", A)), [said("rejected", A)], ONTOLOGY)
    assert owner.tolist() == [-1, 0]


def test_what_was_accepted_is_there_when_its_label_no_longer_is() -> None:
    assert after(labels(("ball", A)), said("accepted", A)).score.tolist() == pytest.approx([0.9])
    found = after(labels(), said("accepted", A, mask=mask_of((12, 12, 28, 28))))
    assert (names(found), found.state, found.candidate.tolist()) == (["ball"], State.LABELLED, [-1])
    assert found.rle == (mask_of((12, 12, 28, 28)),)


def test_another_class_keeps_box_and_mask_and_another_box_takes_its_own() -> None:
    found = after(labels(("ball", A)), said("corrected", A, to_class="badge"))
    assert (names(found), found.xyxy.tolist(), found.rle) == (["badge"], [list(A)], (mask_of(A),))
    found = after(labels(("ball", A)), said("corrected", A, to_xyxy=C))
    assert found.xyxy.tolist() == [list(C)]
    assert found.rle is not None
    assert decode_mask(found.rle[0]).sum() == 400  # no mask was drawn: the box is filled


def test_a_label_of_an_object_that_a_person_drew_goes_for_it() -> None:
    near = tuple(edge + 1 for edge in C)
    found = after(labels(("ball", near), ("badge", near)), said("added", C, "box"))
    assert names(found) == ["box", "badge"]  # ball and box exclude one another, a badge may be on either
    assert [REASONS[code] for code in found.reasons] == [Reason.DUPLICATE, Reason.KEPT]
    drawn = after(labels(("box", near)), said("added", C, "box"))
    assert drawn.xyxy.tolist() == [list(C)]


def test_a_complete_image_holds_what_was_reviewed_and_nothing_else() -> None:
    found = after(labels(("ball", A), ("box", B)), said("accepted", A), said("complete", None))
    assert (names(found), found.confirmed) == (["ball"], True)
    empty = after(labels(("ball", A)), said("empty", None))
    assert (len(empty), empty.state, empty.confirmed) == (0, State.EMPTY, True)


def test_it_is_complete_for_the_classes_that_were_asked_for_then() -> None:
    found = after(labels(("ball", A), ("badge", B)), said("empty", None, classes=("ball", "box")))
    assert (names(found), found.confirmed) == (["badge"], False)


def test_an_image_waits_until_every_doubtful_label_was_reviewed() -> None:
    before = labels(("ball", A), ("box", B), ("badge", C), trust=[0.3, 0.2, 0.9])
    assert before.state is State.REVIEW
    one = after(before, said("accepted", A), trust=0.5)
    assert (one.state, one.trust.tolist()) == (State.REVIEW, pytest.approx([1, 0.2, 0.9]))
    both = after(before, said("accepted", A), said("rejected", B, "box"), trust=0.5)
    assert (both.state, names(both)) == (State.LABELLED, ["ball", "badge"])
    assert after(before, said("empty", None), trust=0.5).state is State.EMPTY
    assert after(before, said("complete", None), trust=0.5).state is State.EMPTY  # nothing was accepted


def test_reviews_of_unknown_classes_say_nothing() -> None:
    assert names(after(labels(("ball", A)), said("added", C, "jar"), said("rejected", A, "jar"))) == ["ball"]


def test_a_run_without_masks_stays_one() -> None:
    found = after(labels(("ball", A), masks=False), said("added", C, mask=mask_of(C)))
    assert (found.rle, len(found)) == (None, 2)


@pytest.mark.parametrize(
    ("mask", "message"),
    [({"size": [10, 10], "counts": "0"}, r"of 'a.png' is of \[10, 10\]"), ({"size": [80, 100], "counts": "52"}, "damaged")],
)
def test_a_mask_of_another_image_or_a_damaged_one(mask: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        after(labels(), said("added", A, mask=mask))


def test_an_empty_mask_is_none() -> None:
    found = after(labels(), said("added", A, mask=encode_mask(np.zeros((SIZE[1], SIZE[0]), bool))))
    assert found.rle is not None and decode_mask(found.rle[0]).sum() == 400


def test_boxes_are_cut_to_the_image() -> None:
    found = after(labels(), replace(said("added", (90.0, -5.0, 130.0, 20.0))))
    assert found.xyxy.tolist() == [[90, 0, 100, 20]]
