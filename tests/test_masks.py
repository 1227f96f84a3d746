"""Run-length masks against dense arrays, and every form in which COCO files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from autodistill_grounded_sam.masks import (
    areas,
    boxes_xyxy,
    decode_mask,
    encode_mask,
    from_coco,
    iou_and_containment,
    mask_iou,
)

dense = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@settings(max_examples=150, deadline=None)
@given(dense)
def test_encode__decodes_to_the_same_mask(mask: Any) -> None:
    rle = encode_mask(mask)
    assert rle["size"] == list(mask.shape) and rle["counts"].isascii()
    back = decode_mask(rle)
    assert back.dtype == np.bool_ and (back == mask).all()
    assert areas([rle]).tolist() == [mask.sum()]
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
    assert boxes_xyxy([rle]).tolist() == [box]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_encode__any_dtype_and_order_of_0_and_1(kind: Any, order: Any) -> None:
    mask = np.zeros((5, 7), kind, order=order)
    mask[1:3, 2:6] = 1
    assert (decode_mask(encode_mask(mask)) == mask.astype(np.bool_)).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_iou_and_containment__as_counted(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6))
    first = data.draw(st.lists(arrays(np.bool_, shape), max_size=3))
    second = data.draw(st.lists(arrays(np.bool_, shape), max_size=3))
    iou, containment = iou_and_containment([encode_mask(m) for m in first], [encode_mask(m) for m in second])
    assert iou.shape == containment.shape == (len(first), len(second))
    assert iou.dtype == containment.dtype == np.float32
    for i, one in enumerate(first):
        for k, other in enumerate(second):
            shared, union = (one & other).sum(), (one | other).sum()
            assert iou[i, k] == pytest.approx(shared / max(1, union), abs=1e-6)
            assert containment[i, k] == pytest.approx(shared / max(1, min(one.sum(), other.sum())), abs=1e-5)
            assert mask_iou(encode_mask(one), encode_mask(other)) == iou[i, k]


def test_no_masks() -> None:
    assert areas([]).shape == (0,)
    assert boxes_xyxy([]).shape == (0, 4)


def test_from_coco__every_form() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[2:5, 3:9] = True
    rle = encode_mask(mask)
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    forms: list[Any] = [
        rle,
        {"size": [10, 20], "counts": rle["counts"].encode()},
        {"size": (10, 20), "counts": runs},
        [[3, 2, 9, 2, 9, 5, 3, 5]],
        [[3, 2, 5, 2, 5, 5, 3, 5], [5, 2, 9, 2, 9, 5, 5, 5]],  # two parts
        [[3.0, 2.0, 9.0, 2.0, 9.0, 5.0, 3.0, 5.0], [1.0, 1.0, 2.0, 2.0]],  # a part of two points holds nothing
    ]
    for form in forms:
        assert from_coco(form, 20, 10) == rle


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [20, 10], "counts": "P137"}, r"a mask is \[20, 10\] \(height, width\), its image \[10, 20\]"),
        ({"size": [5, 5], "counts": [20, 5]}, r"a mask is \[5, 5\] \(height, width\), its image \[10, 20\]"),
        ({"size": [10, 20], "counts": [5, 5]}, r"the run lengths of a mask add up to 10, not 10 x 20"),
        ({"size": [10, 20], "counts": [5, 500]}, r"the run lengths of a mask add up to 505, not 10 x 20"),
    ],
)
def test_from_coco__run_lengths_of_another_image(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_coco(segmentation, 20, 10)
