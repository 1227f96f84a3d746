from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autodistill_grounded_sam.detect.common import Seen, best_first, check_image, load_model
from autodistill_grounded_sam.errors import RecordError, WeightsError


def test_best_first__keeps_what_is_finite_inside_and_above_the_floor() -> None:
    boxes = [
        [-5, 2, 4, 300],  # cut at two sides
        [1, 1, 2, 2],  # below the floor
        [np.nan, 1, 2, 2],
        [20, 1, 30, 2],  # beside the image
        [3, 3, 3, 9],  # no area
        [0, 0, 9, 9],
        [1, 1, 5, 5],  # a score that is none
    ]
    scores = [[0.2, 0.3], [0.1, 0.05], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.0, 0.8], [np.nan, 0.9]]
    found = best_first(Seen(np.array(boxes, np.float32), np.array(scores, np.float32)), 10, 20, 0.2)
    np.testing.assert_array_equal(found.xyxy, [[0, 0, 9, 9], [0, 2, 4, 20]])
    np.testing.assert_array_equal(found.scores, np.array([[0.0, 0.8], [0.2, 0.3]], np.float32))
    assert len(best_first(Seen(np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32)), 10, 20, 0.0)) == 0


@pytest.mark.parametrize("wrong", [{"text_config": {"model_type": "florence2_language"}}, {"text_config": {"d_model": "wide"}}])
def test_load_model__settings_that_transformers_does_not_know(tmp_path: Path, wrong: dict[str, object]) -> None:
    """The first is Microsoft's own form of Florence-2."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "florence2", **wrong}))
    with pytest.raises(WeightsError, match=r"config\.json cannot be read: "):
        load_model(tmp_path, ("florence2",), "Florence2ForConditionalGeneration")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_check_image__wants_rgb(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecordError, match=r"expected an RGB image, uint8 \(height, width, 3\), got uint8 of shape"):
        check_image(np.zeros(shape, np.uint8))
