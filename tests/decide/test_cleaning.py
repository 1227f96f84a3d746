"""Mask clean-up against hand-made cases and against a dense one that counts with scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autodistill_grounded_sam.decide.cleaning import clean_masks
from autodistill_grounded_sam.masks import decode_mask, encode_mask, from_coco
from autodistill_grounded_sam.types import Mask

CORNERS = np.ones((3, 3), np.bool_)
SIDES = ndimage.generate_binary_structure(2, 1)


def drawn(text: str) -> Mask:
    return np.array([[letter == "#" for letter in line.strip()] for line in text.strip().splitlines()])


def cleaned(mask: Mask, island_fraction: float, hole_fraction: float) -> Mask:
    return decode_mask(clean_masks([encode_mask(mask)], island_fraction, hole_fraction).rle[0])


def dense_clean(mask: Mask, island_fraction: float, hole_fraction: float) -> Mask:
    """The same by looking at every pixel."""
    mask = mask.copy()
    if island_fraction > 0 and mask.any():
        parts, count = ndimage.label(mask, CORNERS)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        for part in range(1, count + 1):
            if sizes[part] < island_fraction * sizes[1:].max():
                mask[parts == part] = False
    if hole_fraction > 0:
        holes, count = ndimage.label(~mask, SIDES)
        at_the_edge = set(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]).tolist())
        area = mask.sum()
        for hole in set(range(1, count + 1)) - at_the_edge:
            if (holes == hole).sum() < hole_fraction * area:
                mask[holes == hole] = True
    return mask


@st.composite
def blobs(draw: st.DrawFn) -> Mask:
    """Noise from fine to coarse, so that there are specks, pinholes, rings and parts that meet at corners."""
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width))
    smooth = ndimage.gaussian_filter(noise, draw(st.sampled_from([0, 0.6, 1.0, 2.0])), mode="nearest")
    return np.asarray(smooth > np.quantile(smooth, draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))))


FRACTIONS = st.sampled_from([0.0, 0.005, 0.02, 0.1, 0.5, 1.0])


@settings(max_examples=200, deadline=None)
@given(several=st.lists(blobs(), max_size=4), island=FRACTIONS, hole=FRACTIONS)
def test_cleaning_is_the_dense_one(several: list[Mask], island: float, hole: float) -> None:
    codes = [encode_mask(mask) for mask in several]
    clean = clean_masks(codes, island, hole)
    assert len(clean.rle) == len(clean.area) == len(clean.xyxy) == len(several)
    for number, mask in enumerate(several):
        expected = dense_clean(mask, island, hole)
        assert clean.rle[number] == encode_mask(expected)
        assert clean.area[number] == expected.sum()
        y, x = np.nonzero(expected)
        tight = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert clean.xyxy[number].tolist() == tight


@settings(max_examples=50, deadline=None)
@given(several=st.lists(blobs(), min_size=1, max_size=6))
def test_many_masks_at_once_are_cleaned_as_each_alone(several: list[Mask]) -> None:
    codes = [encode_mask(mask) for mask in several]
    assert clean_masks(codes, 0.1, 0.1).rle == tuple(clean_masks([code], 0.1, 0.1).rle[0] for code in codes)


def test_islands_go_and_parts_stay() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:25, 5:25] = True  # 400
    mask[5:25, 30:40] = True  # 200, behind a pole: a part of its own
    mask[30:32, 50:54] = True  # 8: exactly 2 % of the largest part stay
    mask[36, 10:17] = True  # 7: below
    expected = mask.copy()
    expected[36] = False
    np.testing.assert_array_equal(cleaned(mask, 0.02, 0.005), expected)


def test_islands_are_measured_on_the_largest_part_not_on_the_whole() -> None:
    mask = np.zeros((10, 50), np.bool_)
    mask[0, 0:40:2] = True  # twenty single pixels
    mask[5, 0:4] = True
    np.testing.assert_array_equal(cleaned(mask, 0.25, 0), mask)
    assert cleaned(mask, 0.26, 0).sum() == 4


def test_parts_that_meet_at_a_corner_are_one_part() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[:10, :10] = True
    for place in [(10, 10), (9, 11), (10, 12)]:
        mask[place] = True
    np.testing.assert_array_equal(cleaned(mask, 0.5, 0), mask)
    mask[10, 10] = False
    assert cleaned(mask, 0.5, 0).sum() == 100


def test_a_part_that_hangs_together_only_far_behind_is_one_part() -> None:
    """A comb: its teeth meet in the last column of all."""
    mask = np.zeros((41, 60), np.bool_)
    mask[::2] = True
    mask[:, -1] = True
    np.testing.assert_array_equal(cleaned(mask, 1.0, 0), mask)


def test_pinholes_are_filled_and_rings_stay() -> None:
    mask = np.zeros((60, 60), np.bool_)
    mask[10:50, 10:50] = True
    mask[20, 20:27] = False  # 7 pixels, below 0.005 * 1593
    mask[30:40, 30:40] = False  # a ring
    expected = mask.copy()
    expected[20, 20:27] = True
    np.testing.assert_array_equal(cleaned(mask, 0.02, 0.005), expected)


def test_a_hole_of_exactly_the_fraction_stays() -> None:
    mask = np.ones((11, 11), np.bool_)
    mask[5, 5] = False
    np.testing.assert_array_equal(cleaned(mask, 0, 1 / 120), mask)
    assert cleaned(mask, 0, 1.01 / 120).all()


@pytest.mark.parametrize(
    "text",
    [
        """
        ######
        ###.##
        ###.##
        """,  # open below
        """
        ##.###
        ##.###
        ######
        """,  # open above
        """
        ######
        ....##
        ######
        """,  # open to the left
        """
        ######
        ##....
        ######
        """,  # open to the right
        """
        ######.
        ###..#.
        ###.##.
        #...###
        #.#####
        """,  # a winding way out
    ],
)
def test_what_touches_the_edge_of_the_image_is_no_hole(text: str) -> None:
    mask = drawn(text)
    np.testing.assert_array_equal(cleaned(mask, 0, 1.0), mask)


def test_a_hole_that_is_open_at_a_corner_only_is_a_hole() -> None:
    mask = drawn("""
        .......
        .####..
        .#..#..
        .##.#..
        .####..
        .....#.
        """)
    mask[1, 4] = False  # the hole meets the outside at this corner, by a corner alone
    mask[2, 3] = True
    expected = ndimage.binary_fill_holes(mask)
    assert expected.sum() > mask.sum()
    np.testing.assert_array_equal(cleaned(mask, 0, 1.0), expected)


def test_a_speck_in_a_hole_goes_and_the_hole_is_filled() -> None:
    mask = np.ones((40, 40), np.bool_)
    mask[18:22, 18:22] = False
    mask[20, 20] = True
    assert cleaned(mask, 0.02, 0.02).all()


def test_masks_that_need_nothing_keep_their_code() -> None:
    """Also a code that pycocotools would have written otherwise."""
    odd = from_coco({"size": [4, 3], "counts": [2, 1, 0, 2, 7]}, 3, 4)
    speckled = np.zeros((40, 40), np.bool_)
    speckled[:30, :30] = speckled[39, 39] = True
    whole = encode_mask(np.ones((5, 5), np.bool_))
    clean = clean_masks([odd, encode_mask(speckled), whole], 0.02, 0.005)
    assert clean.rle[0] is odd
    assert decode_mask(clean.rle[1]).sum() == 900
    assert clean.rle[2] is whole
    assert clean.area.tolist() == [3, 900, 25]


def test_a_gap_of_length_0_does_not_part_a_mask() -> None:
    odd = from_coco({"size": [10, 3], "counts": [0, 9, 0, 1, 20]}, 3, 10)
    assert clean_masks([odd], 0.5, 0).area.tolist() == [10]


def test_fractions_of_0_leave_islands_and_holes() -> None:
    mask = np.ones((30, 30), np.bool_)
    mask[:, 20:] = mask[5, 5] = False
    mask[29, 29] = True
    for island, hole, pixels in [(0, 0, 600), (0.1, 0, 599), (0, 0.1, 601), (0.1, 0.1, 600)]:
        assert cleaned(mask, island, hole).sum() == pixels


def test_an_empty_mask_stays_empty() -> None:
    clean = clean_masks([encode_mask(np.zeros((5, 6), np.bool_))], 0.02, 0.005)
    assert (clean.area.tolist(), clean.xyxy.tolist()) == ([0], [[0, 0, 0, 0]])
    assert len(clean_masks([], 0.02, 0.005).rle) == 0
