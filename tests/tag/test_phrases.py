from __future__ import annotations

import pytest

from autodistill_grounded_sam.tag.phrases import things_in


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("a man riding a brown horse on a beach", ["man", "horse", "beach"]),
        ("a group of people sitting at a wooden table with laptops", ["people", "table", "laptops"]),
        ("an image of a parked bicycle next to a building.", ["bicycle", "building"]),
        ("Car, traffic light, a t-shirt, the man's red hat, car", ["car", "traffic light", "t-shirt", "man", "hat"]),
        ("1. car\n2. orange\n- fire hydrant\n* two old street signs", ["car", "orange", "fire hydrant", "street signs"]),
        ("woman</s><loc_1><loc_20>old street sign<loc_3>", ["woman", "street sign"]),  # Florence-2's regions
        ("the wall is white and the light blue", ["wall"]),
        ("an orange, an orange cat and a square", ["orange", "cat", "square"]),
        ("hand made steel kitchen sink", ["steel kitchen sink"]),
        ("a wedding ring", ["ring"]),  # a slip: wedding is cut as a verb would be
        ("", []),
        ("... 12 -- !?", []),
    ],
)
def test_things_in(text: str, things: list[str]) -> None:
    assert things_in(text) == things
