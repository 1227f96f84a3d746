"""Several detectors and views are one detector: boxes fused as in the paper, columns of all prompts kept, disagreement told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.engine.ensemble import FusedDetector, VotingSegmenter, calibrated, fuse, own_floor
from autodistill_grounded_sam.engine.tiles import TiledDetector
from autodistill_grounded_sam.errors import PluginError
from autodistill_grounded_sam.masks import decode_mask, encode_mask
from autodistill_grounded_sam.testing import FakeDetector, check_detector, check_segmenter
from autodistill_grounded_sam.types import Candidates, RgbImage
from tests.engine.test_seams import look
from tests.engine.test_tiles import WhiteMasks, WhiteSpots


def test_fuse__is_weighted_boxes_fusion() -> None:
    """By hand after section 3 of the paper: weighted mean of the corners, mean of the scores times found / asked."""
    fused = fuse([look([0, 0, 10, 10, 0.8, 0.2]), look([0, 0, 8, 10, 0.4, 0.4]), look()])
    np.testing.assert_allclose(fused.xyxy, [[0, 0, (0.8 * 10 + 0.4 * 8) / 1.2, 10]], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [[1.2 / 3, 0.6 / 3]], rtol=1e-6)
    right = fused.xyxy[0, 2]
    assert fused.agreement is not None
    np.testing.assert_allclose(fused.agreement, [(right / 10 + 8 / right) / 3], rtol=1e-6)


def test_fuse__boxes_of_one_look_stay_apart_and_other_classes_need_more_overlap() -> None:
    twice = fuse([look([0, 0, 10, 10, 0.8, 0], [0, 0, 10, 9.9, 0.7, 0])])
    np.testing.assert_allclose(twice.scores[:, 0], [0.8, 0.7], rtol=1e-6)
    one, other = look([0, 0, 10, 10, 0.8, 0.1]), look([0, 0, 10, 6, 0.1, 0.7])
    assert len(fuse([one, other])) == 2
    assert len(fuse([one, look([0, 0, 10, 6, 0.7, 0.1])])) == 1
    assert fuse([look(), look()]).scores.shape == (0, 2)
    assert len(fuse([Candidates.none(0)])) == 0


boxes = st.lists(st.tuples(*[st.integers(0, 40)] * 4, st.floats(0, 1, width=32), st.floats(0, 1, width=32)), max_size=6)


@given(st.lists(boxes, min_size=1, max_size=4), st.randoms())
def test_fuse__any_looks(rows: list[list[tuple[float, ...]]], rng: object) -> None:
    looks = [look(*([x, y, x + w + 1, y + h + 1, a, b] for x, y, w, h, a, b in of)) for of in rows]
    fused = fuse(looks)
    assert sum(map(len, looks)) >= len(fused) >= max(map(len, looks)), "none of one look goes, and nothing is made up"
    total = np.concatenate([one.scores for one in looks]).sum(axis=0) / len(looks)
    np.testing.assert_allclose(fused.scores.sum(axis=0), total, atol=1e-5)
    assert (np.diff(fused.scores.max(axis=1, initial=0)) <= 0).all()
    assert fused.agreement is not None and (fused.agreement <= 1).all()


def test_calibrated__the_usual_threshold_becomes_the_common_one_and_order_stays() -> None:
    scores = np.array([0, 0.01, 0.1, 0.4, 0.99, 1], np.float32)
    moved = calibrated(scores, 0.1)
    np.testing.assert_allclose(moved[[0, 2, 5]], [0, 0.35, 1], atol=1e-6)
    assert (np.diff(moved) > 0).all()
    np.testing.assert_allclose(calibrated(np.array([own_floor(0.1, 0.5)], np.float32), 0.5), [0.1], rtol=1e-5)
    assert own_floor(0.0, 0.5) == 0


class Sides(WhiteSpots):
    """Sees a spot, and scores the prompt "left" by how far left it lies."""

    def detect(self, images: Sequence[RgbImage], prompts: Sequence[str]) -> list[Candidates]:
        return [
            Candidates(seen.xyxy, (1 - seen.xyxy[:, :1] / image.shape[1]) * np.ones((1, len(prompts)), np.float32))
            for image, seen in zip(images, super().detect(images, prompts), strict=True)
        ]


def test_views__come_back_in_the_pixels_of_the_image() -> None:
    image = np.zeros((60, 100, 3), np.uint8)
    image[10:30, 20:50] = 255
    (plain,) = FusedDetector([Sides()], [0.35]).detect([image], ["left"])
    (fused,) = FusedDetector([Sides()], [0.35], ("flip", "scale")).detect([image], ["left"])
    np.testing.assert_allclose(fused.xyxy[0], plain.xyxy[0], rtol=1e-6)
    np.testing.assert_allclose(fused.scores[0], [(0.8 + 0.5 + (1 - 20 / 125)) / 3], rtol=1e-6)
    assert fused.agreement is not None and fused.agreement[0] == pytest.approx(1)


def test_contracts_of_the_seams() -> None:
    check_detector(FusedDetector([FakeDetector(), FakeDetector()], [0.35, 0.2], ("flip", "scale")))
    check_segmenter(VotingSegmenter([WhiteMasks(), WhiteMasks()]))


def test_tiles_keep_the_agreement() -> None:
    image = np.zeros((700, 700, 3), np.uint8)
    image[10:40, 10:50] = 255
    (found,) = TiledDetector(FusedDetector([WhiteSpots(), WhiteSpots()], [0.35, 0.35])).detect([image], ["spot"])
    assert found.agreement is not None and found.agreement.tolist() == [1]


class Painted:
    """Gives every box the same mask."""

    def __init__(self, columns: slice, score: float) -> None:
        self.columns, self.score = columns, score

    def segment(self, images: Sequence[RgbImage], candidates: Sequence[Candidates]) -> list[Candidates]:
        mask = np.zeros(images[0].shape[:2], np.bool_)
        mask[:, self.columns] = True
        return [
            Candidates(one.xyxy, one.scores, (encode_mask(mask),) * len(one), np.full(len(one), self.score, np.float32))
            for one in candidates
        ]


def test_voting__majority_of_three_and_the_surer_of_two() -> None:
    image, found = np.zeros((4, 12, 3), np.uint8), look([0, 0, 12, 4, 0.9, 0])
    left, middle, right = Painted(slice(0, 6), 0.6), Painted(slice(2, 8), 0.6), Painted(slice(4, 12), 0.9)
    (three,) = VotingSegmenter([left, middle, right]).segment([image], [found])
    (two,) = VotingSegmenter([left, right]).segment([image], [found])
    columns = [np.flatnonzero(decode_mask(one.rle[0]).any(axis=0)).tolist() for one in (three, two) if one.rle]
    assert columns == [[2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9, 10, 11]]
    assert two.mask_score is not None and two.mask_score[0] == pytest.approx((0.6 * 2 / 12 + 0.9) / 2)


def test_members__names_joined_with_their_thresholds() -> None:
    assert plugins.members("detectors", "mini") == [("mini", None)]
    assert plugins.members("detectors", "google/owlv2-base@0.2+mini") == [("google/owlv2-base", 0.2), ("mini", None)]
    assert plugins.members("segmenters", "mini+ellipse") == [("mini", None), ("ellipse", None)]
    for wrong in ("mini+", "mini@1.5", "+mini"):
        with pytest.raises(PluginError, match=r"several are joined as a\+b, and a score between 0 and 1 after a name"):
            plugins.members("detectors", wrong)
