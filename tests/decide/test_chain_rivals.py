"""Rivals in the whole chain: duplicates within a class and across classes, and herds."""

from __future__ import annotations

import pytest

from autodistill_grounded_sam.types import Reason
from tests.decide.chain_kit import DUPLICATE, HERD, KEPT, A, both_kinds, candidates, decided, reasons, scores


@both_kinds
def test_duplicates_within_a_class_by_iou(masks: bool) -> None:
    near, far = (5, 5, 35, 34), (15, 5, 45, 35)  # IoU 0.97 and 0.5
    labels = decided(candidates((near, scores(score=0.6)), (A, scores(score=0.9)), (far, scores(score=0.5)), masks=masks))
    assert reasons(labels) == [DUPLICATE, KEPT, KEPT]
    assert labels.rival.tolist() == [1, -1, -1]
    seen = candidates((A, scores(score=0.9)), (far, scores(score=0.5)), masks=masks)
    assert reasons(decided(seen, duplicate_iou=0.5)) == [KEPT, DUPLICATE]
    assert reasons(decided(seen, duplicate_iou=0.51)) == [KEPT, KEPT]


@both_kinds
def test_duplicates_within_a_class_by_containment(masks: bool) -> None:
    part = (5, 5, 35, 20)  # half of A: IoU 0.5, containment 1
    for better, worse in ((A, part), (part, A)):
        labels = decided(candidates((better, scores(score=0.9)), (worse, scores(score=0.5)), masks=masks))
        assert reasons(labels) == [KEPT, DUPLICATE]
        assert labels.rival.tolist() == [-1, 0]
    juts_out = (5, 25, 35, 40)  # two thirds of it lie in A
    seen = candidates((A, scores(score=0.9)), (juts_out, scores(score=0.5)), masks=masks)
    assert reasons(decided(seen)) == [KEPT, KEPT]
    assert reasons(decided(seen, duplicate_containment=0.66)) == [KEPT, DUPLICATE]


def test_a_far_smaller_part_is_a_duplicate_by_its_mask_and_not_by_its_box() -> None:
    small = (10, 10, 20, 20)
    seen = (A, scores(score=0.9)), (small, scores(score=0.5))
    assert reasons(decided(candidates(*seen, masks=True))) == [KEPT, DUPLICATE]
    assert reasons(decided(candidates(*seen, masks=False))) == [KEPT, KEPT]
    better_small = (A, scores(score=0.5)), (small, scores(score=0.9))
    assert reasons(decided(candidates(*better_small, masks=True))) == [KEPT, KEPT]


@both_kinds
@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [("car", "truck", DUPLICATE), ("truck", "car", DUPLICATE), ("car", "wheel", KEPT), ("wheel", "truck", KEPT)],
)
def test_across_classes_only_exclusive_ones_are_duplicates(first: str, second: str, verdict: Reason, masks: bool) -> None:
    for inner in (A, (5, 5, 35, 20)):
        labels = decided(candidates((A, scores(first, 0.9)), (inner, scores(second, 0.8)), masks=masks))
        assert reasons(labels) == [KEPT, verdict]


def test_a_duplicate_of_a_duplicate_stays() -> None:
    """The middle one falls to the first, and so takes nobody with it."""
    chain = [((5 + shift, 5, 35 + shift, 35), scores(score=0.9 - shift / 100)) for shift in (0, 5, 10)]
    labels = decided(candidates(*chain))
    assert reasons(labels) == [KEPT, DUPLICATE, KEPT]


HERD_BOX, MEMBERS = (5, 5, 65, 25), [(5, 5, 20, 25), (25, 5, 40, 25), (45, 5, 60, 25)]


@both_kinds
@pytest.mark.parametrize("score", [0.4, 0.9])
def test_a_herd_goes_and_its_members_stay(score: float, masks: bool) -> None:
    seen = candidates((HERD_BOX, scores(score=score)), *[(member, scores(score=0.6)) for member in MEMBERS], masks=masks)
    labels = decided(seen)
    assert reasons(labels) == [HERD, KEPT, KEPT, KEPT]
    assert labels.rival.tolist() == [-1] * 4
    assert HERD not in reasons(decided(seen, herd_members=4))


def test_members_seen_twice_are_counted_once() -> None:
    twice = [(member, scores(score=0.6)) for member in MEMBERS[:2] * 2]
    labels = decided(candidates((HERD_BOX, scores(score=0.9)), *twice))
    assert reasons(labels) == [KEPT, *[DUPLICATE] * 4]  # two are too few: they are parts of the one


def test_members_of_another_class_make_no_herd() -> None:
    wheels = [(member, scores("wheel", 0.6)) for member in MEMBERS]
    assert reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *wheels))) == [KEPT] * 4
    trucks = [(member, scores("truck", 0.6)) for member in MEMBERS]  # exclusive, but not of its kind
    assert HERD not in reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *trucks)))


def test_what_fell_to_another_class_is_no_member() -> None:
    cars = [(member, scores("car", 0.5)) for member in MEMBERS]
    truck = (MEMBERS[0], scores("truck", 0.6))
    assert reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *cars)))[0] is HERD
    assert HERD not in reasons(decided(candidates((HERD_BOX, scores(score=0.9)), *cars, truck)))


def test_who_lost_to_a_herd_names_it_all_the_same() -> None:
    again = (5, 5, 65, 24)
    seen = candidates((HERD_BOX, scores(score=0.9)), *[(m, scores(score=0.6)) for m in MEMBERS], (again, scores(score=0.5)))
    labels = decided(seen)
    assert reasons(labels) == [HERD, KEPT, KEPT, KEPT, DUPLICATE]
    assert labels.rival.tolist() == [-1, -1, -1, -1, 0]
