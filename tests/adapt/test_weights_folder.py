from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from autodistill_grounded_sam.adapt import weights_folder
from autodistill_grounded_sam.detect.grounding_dino import GroundingDino, load
from autodistill_grounded_sam.errors import WrongPlaceError
from autodistill_grounded_sam.weights import find_weights
from tests.adapt.adapt_kit import tiny

IDENTITY = {"parent": "p", "data": "d"}


def test_with_queries__keeps_the_ranks_of_the_old_ones(tmp_path: Path) -> None:
    model = load(str(tiny(tmp_path / "tiny"))).model
    old = model.model.query_position_embeddings.weight.clone()
    assert weights_folder.with_queries(model, 20) is model
    wider = weights_folder.with_queries(model, 50)
    new = wider.model.query_position_embeddings.weight
    assert new.shape == (50, old.shape[1]) and wider.config.num_queries == 50
    assert torch.equal(new[0], old[0]) and torch.equal(new[-1], old[-1]) and torch.equal(new[25], old[10])


@pytest.mark.parametrize("mm", [False, True])
def test_a_saved_folder_is_a_detector_that_sees_the_same(tmp_path: Path, mm: bool) -> None:
    parent = str(tiny(tmp_path / "tiny", mm))
    loaded = load(parent)
    loaded = loaded._replace(model=weights_folder.with_queries(loaded.model, 30).eval(), inputs=loaded.inputs.bounded(80, 200))
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    in_memory = GroundingDino("x", loaded=loaded, floor=0).detect([image], ["red cat", "dog"])[0]
    weights_folder.begin(tmp_path / "out", IDENTITY)
    weights_folder.save(tmp_path / "out", loaded, {"identity": IDENTITY}, "# A card", "float32")
    detector = GroundingDino(str(tmp_path / "out"), floor=0)
    saved = detector.detect([image], ["red cat", "dog"])[0]
    np.testing.assert_array_equal(saved.xyxy, in_memory.xyxy)
    np.testing.assert_array_equal(saved.scores, in_memory.scores)
    assert detector.resized_size(120, 90) == (106, 80)
    assert (tmp_path / "out/README.md").read_text() == "# A card\n"
    assert not (tmp_path / "out/unfinished").exists()
    assert weights_folder.finished(tmp_path / "out", IDENTITY) == {"identity": IDENTITY}


def test_unfinished_work_is_no_detector(tmp_path: Path) -> None:
    weights_folder.begin(tmp_path / "out", IDENTITY)
    with pytest.raises(FileNotFoundError, match="not a whole detector"):
        find_weights(str(tmp_path / "out"), "detector")
    assert weights_folder.finished(tmp_path / "out", IDENTITY) is None


def test_what_is_another_s_is_left_alone(tmp_path: Path) -> None:
    weights_folder.begin(tmp_path / "begun", IDENTITY)
    with pytest.raises(WrongPlaceError, match=r"begun holds an adaptation of another data; give another --out, or delete it"):
        weights_folder.finished(tmp_path / "begun", IDENTITY | {"data": "e"})
    (tmp_path / "done").mkdir()
    (tmp_path / "done/adapted.json").write_text(json.dumps({"identity": IDENTITY}))
    with pytest.raises(WrongPlaceError, match=r"done holds an adaptation of another parent"):
        weights_folder.finished(tmp_path / "done", IDENTITY | {"parent": "q"})
    with pytest.raises(WrongPlaceError, match=r"done holds an adaptation of another segmenter; give"):
        weights_folder.finished(tmp_path / "done", IDENTITY | {"segmenter": "s"})
    (tmp_path / "done/adapted.json").write_text(json.dumps({"identity": IDENTITY | {"segmenter": "s"}}))
    with pytest.raises(WrongPlaceError, match=r"done holds an adaptation of another segmenter; give"):
        weights_folder.finished(tmp_path / "done", IDENTITY)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with pytest.raises(WrongPlaceError, match=r"photos is there already and is no adaptation; give another --out"):
        weights_folder.finished(tmp_path / "photos", IDENTITY)


def test_stored_dtype() -> None:
    assert weights_folder.stored_dtype(find_weights("mini", "detector").files) == "float16"
    assert weights_folder.stored_dtype((Path("x.pth"),)) == "float32"
