"""The authors' own predictors behind the seam give the masks that ours give, on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.errors import ConfigError, MissingExtraError, WeightsError
from autodistill_grounded_sam.masks import decode_mask, mask_iou
from autodistill_grounded_sam.segment.authors import AuthorsSam
from autodistill_grounded_sam.segment.sam import Sam
from autodistill_grounded_sam.testing import check_segmenter
from autodistill_grounded_sam.types import Candidates
from tests.peers import peer


@pytest.mark.parametrize("guess", ["single", "best-of-three"])
def test_sam__the_same_masks_as_ours(official_file: Path, picture: Any, boxed: Any, guess: Any) -> None:
    theirs = plugins.load("segmenters", f"original:{official_file}", offline=True, mask_guess=guess, boxes_per_call=2)
    assert type(theirs) is AuthorsSam
    image = picture(90, 140)
    boxes = boxed((14, 18, 98, 81), (0, 0, 70, 36), (200, 10, 220, 20), (5, 5, 60, 80))  # the third lies outside
    (first,) = theirs.segment([image], [boxes])
    (second,) = Sam(str(official_file), mask_guess=guess).segment([image], [boxes])
    assert first.rle is not None and second.rle is not None
    assert decode_mask(first.rle[2]).sum() == 0 and first.mask_score is not None and second.mask_score is not None
    for row in (0, 1, 3):
        assert 0.02 < decode_mask(first.rle[row]).mean() < 0.98
        assert mask_iou(first.rle[row], second.rle[row]) > 0.998
    np.testing.assert_allclose(first.mask_score, second.mask_score, atol=1e-4)


def test_sam__contract_and_what_is_refused(official_file: Path, folder: Path) -> None:
    check_segmenter(AuthorsSam(f"original:{official_file}"))
    with pytest.raises(ConfigError, match="mask_guess 'hq-only' is of SAM-HQ"):
        AuthorsSam(f"original:{official_file}", mask_guess="hq-only")
    with pytest.raises(WeightsError, match=r"the authors' packages read their \.pth files, and .* is a transformers folder"):
        AuthorsSam(f"original:{folder}")


def test_without_the_package_it_says_what_to_install(official_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("autodistill_grounded_sam.segment.authors.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"SAM \(segment_anything.modeling is missing\) needs .*\[original\]"):
        AuthorsSam(f"original:{official_file}")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("guess", ["single", "best-of-three", "hq-only"])
def test_sam_hq__the_same_masks_as_ours_on_a_photograph(shared: Path, guess: Any) -> None:
    peer("segment_anything_hq")
    file = shared / "reference" / "sam_hq_official" / "sam_hq_tiny_official_fp16.pth"
    image = np.asarray(Image.open(shared / "reference" / "groundingdino_official" / "000000000030.jpg").convert("RGB"))
    boxes = np.array([[200, 20, 470, 350], [200, 180, 360, 400]], np.float32)
    asked = Candidates(boxes, np.ones((2, 1), np.float32))
    (first,) = AuthorsSam(f"original:{file}", mask_guess=guess).segment([image], [asked])
    (second,) = Sam(str(file), mask_guess=guess).segment([image], [asked])
    assert first.rle is not None and second.rle is not None
    assert min(map(mask_iou, first.rle, second.rle)) > 0.995
