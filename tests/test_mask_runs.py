"""Runs: the same bytes, areas and boxes as pycocotools, masks of many sizes together, and damaged codes that say so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam import mask_runs, masks
from autodistill_grounded_sam.errors import RecordError
from autodistill_grounded_sam.mask_runs import Runs, edges_of_groups, paint_crops, read_runs, write_rles
from autodistill_grounded_sam.types import Mask, Rle


@st.composite
def some_masks(draw: st.DrawFn) -> list[Mask]:
    """Up to five masks of sizes of their own: noise of any density, empty, full, or one rectangle."""
    found = []
    for _ in range(draw(st.integers(0, 5))):
        height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        mask = rng.random((height, width)) < draw(st.sampled_from([0, 0.02, 0.5, 0.98, 1]))
        if draw(st.booleans()):
            mask[:] = False
            mask[rng.integers(height) :, rng.integers(width) :] = True
        found.append(mask)
    return found


def dense(runs: Runs, number: int) -> Mask:
    mask = np.zeros(runs.sizes[number], np.bool_)
    for which, x, y1, y2 in zip(runs.mask, runs.x, runs.y1, runs.y2, strict=True):
        if which == number:
            assert not mask[y1:y2, x].any()
            mask[y1:y2, x] = True
    return mask


def compressed(counts: list[int], width: int, height: int) -> Rle:
    """The code of these run lengths, also of impossible ones, written as `rleToString` in maskApi.c does."""
    text = ""
    for at, count in enumerate(counts):
        rest = count - (counts[at - 2] if at > 2 else 0)
        goes_on = True
        while goes_on:
            group, rest = rest & 31, rest >> 5
            goes_on = rest != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * goes_on)
    return Rle(size=[height, width], counts=text)


@settings(max_examples=150, deadline=None)
@given(drawn=some_masks())
def test_runs_are_those_of_pycocotools(drawn: list[Mask]) -> None:
    codes = [masks.encode_mask(mask) for mask in drawn]
    runs = read_runs(codes)
    assert write_rles(runs) == codes
    np.testing.assert_array_equal(runs.areas(), masks.areas(codes))
    np.testing.assert_array_equal(runs.boxes_xyxy(), masks.boxes_xyxy(codes))
    for number, mask in enumerate(drawn):
        np.testing.assert_array_equal(dense(runs, number), mask)
    place = list(zip(runs.mask.tolist(), runs.x.tolist(), runs.y1.tolist(), strict=True))
    assert place == sorted(set(place))


@settings(max_examples=50, deadline=None)
@given(drawn=some_masks(), seed=st.integers(0, 2**32))
def test_some_masks_of_many(drawn: list[Mask], seed: int) -> None:
    which = np.random.default_rng(seed).random(len(drawn)) < 0.5
    codes = [masks.encode_mask(mask) for mask in drawn]
    runs = read_runs(codes).of_masks(which)
    assert runs.count == which.sum()
    assert write_rles(runs) == [code for code, wanted in zip(codes, which, strict=True) if wanted]


@settings(max_examples=100, deadline=None)
@given(drawn=some_masks(), at_once=st.sampled_from([1, 300, 500_000]))
def test_crops_are_what_lies_in_the_tight_boxes(drawn: list[Mask], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_runs, "PAINTED_AT_ONCE", at_once)
        runs = read_runs([masks.encode_mask(mask) for mask in drawn])
        crops = list(paint_crops(runs, np.uint16(7)))
    assert len(crops) == len(drawn)
    for mask, crop, (x1, y1, x2, y2) in zip(drawn, crops, runs.boxes_xyxy().astype(int).tolist(), strict=True):
        np.testing.assert_array_equal(crop.T, 7 * mask[y1:y2, x1:x2])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 30), st.integers(1, 30)), count=st.integers(1, 5))
def test_shared_pixels_are_those_in_both(seed: int, size: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [rng.random(size) < rng.choice([0, 0.1, 0.5, 1]) for _ in range(count)]
    other = np.ones((7, 50), np.bool_)  # of another image, in between
    runs = read_runs([masks.encode_mask(mask) for mask in [*drawn[:2], other, *drawn[2:]]])
    place = [k + (k > 1) for k in range(count)]
    first, second = (np.array(side) for side in zip(*[(a, b) for a in range(count) for b in range(count)], strict=True))
    shared = runs.shared(np.array(place)[first], np.array(place)[second])
    assert shared.tolist() == [(drawn[a] & drawn[b]).sum() for a, b in zip(first, second, strict=True)]


def test_large_masks_have_long_numbers() -> None:
    mask = np.zeros((5000, 4000), np.bool_)
    mask[4999, 3999] = mask[0, 1] = True
    code = masks.encode_mask(mask)
    runs = read_runs([code])
    assert (runs.x.tolist(), runs.y1.tolist(), runs.y2.tolist()) == ([1, 3999], [0, 4999], [1, 5000])
    assert write_rles(runs) == [code]
    assert runs.boxes_xyxy().tolist() == [[1, 0, 4000, 5000]]


def test_no_masks() -> None:
    runs = read_runs([])
    assert (runs.count, write_rles(runs), runs.areas().shape, runs.boxes_xyxy().shape) == (0, [], (0,), (0, 4))


def test_runs_that_touch_are_written_as_one() -> None:
    def numbers(*values: int) -> npt.NDArray[np.int64]:
        return np.array(values, np.int64)

    runs = Runs(np.array([[5, 2]]), numbers(0, 0, 0, 0), numbers(0, 0, 0, 1), numbers(0, 1, 3, 0), numbers(1, 3, 5, 2))
    assert write_rles(runs) == [compressed([0, 7, 3], 2, 5)]


def test_the_next_mask_is_not_the_next_column() -> None:
    """A mask that ends at its last pixel does not run on into one that begins at its first."""
    full = masks.encode_mask(np.ones((3, 2), np.bool_))
    runs = read_runs([full, full])
    assert runs.areas().tolist() == [6, 6]
    assert write_rles(runs) == [full, full]


def test_gaps_of_length_0_are_no_gaps() -> None:
    """pycocotools never writes them, but it reads them, and so do we."""
    odd = compressed([2, 1, 0, 2, 1, 0, 6], 3, 4)
    runs = read_runs([odd])
    np.testing.assert_array_equal(dense(runs, 0), masks.decode_mask(odd))
    assert (runs.y1.tolist(), runs.y2.tolist()) == ([2, 0], [4, 1])
    assert write_rles(runs) == [compressed([2, 3, 7], 3, 4)]


GOOD = masks.encode_mask(np.tri(8, 6, dtype=np.bool_))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "is empty, cut, or holds characters"),
        (GOOD["counts"][:-1] + "P", "is empty, cut, or holds characters"),  # the last number says that it goes on
        (GOOD["counts"] + " ", "is empty, cut, or holds characters"),
        (GOOD["counts"] + "p", "is empty, cut, or holds characters"),
        (GOOD["counts"][:-1] + "é", "is empty, cut, or holds characters"),
        ("o" * 12 + "0", "a number in it never ends"),
        (GOOD["counts"][:-1], "do not add up to 6x8 pixels"),
        (GOOD["counts"] + "1", "do not add up to 6x8 pixels"),
        (compressed([-3, 10, 41], 6, 8)["counts"], "do not add up to 6x8 pixels"),  # begins before the image
        (compressed([10, -3, 41], 6, 8)["counts"], "do not add up to 6x8 pixels"),
        (compressed([40, 10, -2], 6, 8)["counts"], "do not add up to 6x8 pixels"),
    ],
)
def test_damaged_codes(counts: str, message: str) -> None:
    damaged = Rle(size=[8, 6], counts=counts)
    for codes in ([damaged], [GOOD, damaged], [damaged, GOOD], [GOOD, damaged, GOOD]):
        with pytest.raises(RecordError, match=f"a mask's run-length code is damaged: .*{message}"):
            read_runs(codes)


def test_a_code_that_is_too_long_does_not_lend_its_rest_to_the_next() -> None:
    longer, shorter = compressed([10, 39], 6, 8)["counts"], compressed([10, 37], 6, 8)["counts"]
    with pytest.raises(RecordError, match="do not add up to 6x8 pixels"):
        read_runs([Rle(size=[8, 6], counts=longer), Rle(size=[8, 6], counts=shorter)])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), place=st.integers(0, 200), letter=st.characters(min_codepoint=32, max_codepoint=300))
def test_a_changed_character_is_an_error_or_another_whole_mask(seed: int, place: int, letter: str) -> None:
    code = masks.encode_mask(np.random.default_rng(seed).random((9, 7)) < 0.4)
    at = place % len(code["counts"])
    changed = Rle(size=code["size"], counts=code["counts"][:at] + letter + code["counts"][at + 1 :])
    try:
        runs = read_runs([changed])
    except RecordError:
        return
    np.testing.assert_array_equal(dense(runs, 0), masks.decode_mask(changed))


def test_edges_of_groups() -> None:
    first, last = edges_of_groups(np.array([0, 0, 2, 5, 5, 5]))
    assert (first.tolist(), last.tolist()) == ([0, 2, 3], [1, 2, 5])
