"""Every kind of detector from the command line: named by its folder, looked with, stored, decided; models of random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging

from autodistill_grounded_sam import cli, plugins
from autodistill_grounded_sam.detect.authors import AuthorsGroundingDino
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.reviewing import open_review
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.testing import paint_folder
from tests.detect.tiny_models import BUILDERS
from tests.peers import peer

ONTOLOGY = '{"red cat": "cat", "dog": "dog"}'
NO_MASKS = ("--masks", "none", "--format", "yolo", "--device", "cpu", "--offline", "--json")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["grounded-sam", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    logging.disable_progress_bar()
    return run


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autodistill_grounded_sam.detect.florence.MOST_TOKENS", 40)


@pytest.mark.parametrize("kind", BUILDERS)
def test_label_and_decide(say: Any, tmp_path: Path, kind: str) -> None:
    paint_folder(tmp_path / "images", 3)
    folder, out = BUILDERS[kind](tmp_path / "model"), tmp_path / "out"
    label = ("label", tmp_path / "images", "--ontology", ONTOLOGY, "--out", out, "--detector", folder, *NO_MASKS)
    code, said, why = say(*label)
    assert code == 0, why
    assert json.loads(said)["looked_at"] == 3
    identity = json.loads((out / "run" / "run.json").read_text())["identity"]["detector"]
    assert len(identity["identity"]) == 64 and identity.get("scores", True) == (kind != "florence2")
    assert say("decide", out, "--json")[0] == 0
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "note": "another model"}))
    code, _, why = say(*label)
    assert code != 0 and "detector" in why, "another model went on in the store of the first"


def test_a_detector_without_scores_refuses_thresholds_before_it_looks(say: Any, tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 2)
    folder, out = BUILDERS["florence2"](tmp_path / "model"), tmp_path / "out"
    label = ("label", tmp_path / "images", "--out", out, "--detector", folder, *NO_MASKS)
    code, _, why = say(*label, "--ontology", ONTOLOGY, "--box-threshold", 0.5)
    assert code != 0 and not (out / "run" / "run.json").exists()
    assert "says what is there and not how sure it is: all that it finds scores 1, so box_threshold would change nothing" in why
    own = tmp_path / "own.yaml"
    own.write_text("version: 1\nclasses:\n  cat: {prompts: [red cat], box_threshold: 0.3}\n")
    assert "box_threshold of class 'cat' would change nothing" in say(*label, "--ontology", own)[2]
    assert say(*label, "--ontology", ONTOLOGY)[0] == 0
    assert "text_threshold would change nothing" in say("decide", out, "--text-threshold", 0.3)[2]


def test_a_hub_id_that_is_not_here_is_told_in_words(say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    paint_folder(tmp_path / "images", 1)
    name = "google/owlv2-base-patch16-ensemble"
    code, _, why = say("label", tmp_path / "images", "--ontology", ONTOLOGY, "--detector", name, *NO_MASKS)
    assert code != 0
    assert f"the detector '{name}' is not on this machine" in why and f"`grounded-sam prefetch {name}` brings it" in why


def test_two_detectors_views_and_two_segmenters_in_one_run(say: Any, tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 2)
    out, other = tmp_path / "out", BUILDERS["owlv2"](tmp_path / "owl")
    label = ("label", tmp_path / "images", "--ontology", ONTOLOGY, "--out", out, "--device", "cpu", "--offline", "--json")
    models = ("--detector", f"mini+{other}", "--segmenter", "mini+ellipse")
    code, said, why = say(*label, *models, "--views", "flip")
    assert code == 0 and json.loads(said)["looked_at"] == 2, why
    seen = [sighting.candidates for sighting in Store(out / "run").sightings()]
    assert all(one is not None and one.agreement is not None and one.rle is not None for one in seen)
    assert json.loads(say(*label, *models, "--views", "flip")[1])["looked_at"] == 0
    assert "views" in say(*label, *models)[2]
    assert "detector: " in say(*label, "--detector", f"mini+{other}@0.2", "--segmenter", "mini+ellipse", "--views", "flip")[2]


def test_sam3_gives_boxes_and_masks_in_one(say: Any, tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 2)
    out, model = tmp_path / "out", BUILDERS["sam3"](tmp_path / "sam3")
    label = ("label", tmp_path / "images", "--ontology", ONTOLOGY, "--out", out, "--device", "cpu", "--offline", "--json")
    own = ("--segmenter", "detector", "--format", "coco")
    code, _, why = say(*label, "--detector", "mini", *own)
    assert code != 0 and "hands on the detector's own masks, but mini makes none (SAM 3 does): name a segmenter" in why
    for more in (("--views", "flip"), ("--tiles", "all")):
        assert "boxes of several detectors, views or tiles have none" in say(*label, "--detector", model, *own, *more)[2]
    assert not (out / "run" / "run.json").exists()
    assert say(*label, "--detector", model, *own)[0] == 0
    seen = [sighting.candidates for sighting in Store(out / "run").sightings()]
    assert sum(map(len, seen)) > 0
    detector = plugins.load("detectors", str(model), own_masks=1000, floor=0.1)
    for sighting in Store(out / "run").sightings():
        (found,) = detector.detect([read_image(sighting.image)], ["red cat", "dog"])
        assert sighting.candidates.rle == found.rle[: len(sighting.candidates)]
        assert set(sighting.candidates.mask_score.tolist()) <= {0.5}
    server = open_review(out)
    assert server.session._run.segment is None, "a box that a person draws stays a box"
    server.server_close()
    assert (
        say(
            "label", *label[1:4], "--out", tmp_path / "other", *label[6:], "--detector", model, "--segmenter", "detector+ellipse"
        )[0]
        == 0
    )


def test_example_images_beside_words_through_the_whole_line(say: Any, tmp_path: Path) -> None:
    paint_folder(tmp_path / "images", 2)
    file = tmp_path / "images.yaml"
    file.write_text(
        "version: 1\nclasses:\n  cat: [red cat]\n  thing: {examples: [{image: images/scene_0000.png, box: [10, 20, 90, 120]}]}\n"
    )
    label = ("label", tmp_path / "images", "--ontology", file, "--out", tmp_path / "out", *NO_MASKS)
    code, _, why = say(*label, "--detector", "mini")
    assert code != 0 and "the ontology holds example images, but mini knows words alone" in why
    assert not (tmp_path / "out" / "run" / "run.json").exists()
    model = BUILDERS["owlv2"](tmp_path / "model")
    assert say(*label, "--detector", model)[0] == 0
    prompts = json.loads((tmp_path / "out" / "run" / "run.json").read_text())["identity"]["prompts"]
    assert prompts[0] == "red cat" and prompts[1].startswith("example ") and len(prompts) == 2
    assert say("decide", tmp_path / "out", "--box-threshold", 0.2, "--json")[0] == 0
    file.write_text(file.read_text().replace("[10, 20, 90, 120]", "[10, 20, 90, 121]"))
    assert "prompts: without 'example" in say(*label, "--detector", model)[2], "another example went on in the store of the first"


@pytest.mark.shared
@pytest.mark.slow
def test_the_authors_own_packages_through_the_whole_line(say: Any, tmp_path: Path, shared: Path, monkeypatch: Any) -> None:
    peer("groundingdino")
    import shutil

    from tests.detect.test_official import HEADS

    reference = shared / "reference" / "groundingdino_official"
    file = shutil.copy(reference / "groundingdino_tiny_official_fp16.pth", tmp_path / "tiny.pth")
    Path(file).with_suffix(".json").write_text(json.dumps(HEADS))
    monkeypatch.setitem(AuthorsGroundingDino.__init__.__kwdefaults__, "tokenizer", str(reference / "bert"))
    paint_folder(tmp_path / "images", 2)
    label = ("label", tmp_path / "images", "--ontology", ONTOLOGY, "--out", tmp_path / "out", *NO_MASKS)
    code, said, why = say(*label, "--detector", f"original:{file}")
    assert code == 0, why
    assert json.loads(said)["looked_at"] == 2
    assert "detector" in say(*label, "--detector", file)[2], "our own forward pass is another model"
