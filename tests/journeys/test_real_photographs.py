"""The same command line over real photographs and over hard and broken files: no crash, every image accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli_kit import tool

MINI = ("--detector", "mini", "--segmenter", "mini", "--device", "cpu", "--offline")
FAKE = (
    "--detector", "autodistill_grounded_sam.testing:FakeDetector",
    "--segmenter", "autodistill_grounded_sam.testing:FakeSegmenter",
)  # fmt: skip
WORDS = '{"red circle": "circle", "a blue square": "square", "white ring": "ring"}'
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def label(images: Path, out: Path, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
    return tool("label", images, "--ontology", WORDS, *words, "--out", out, codes=codes)


def check_ultralytics_loads(dataset: Path, images: int) -> None:
    """ultralytics' own loader finds every image and calls none corrupt."""
    from ultralytics.data.utils import verify_image_label

    count = 0
    for image in sorted(dataset.glob("*/images/*")):
        text = image.parent.parent / "labels" / f"{image.stem}.txt"
        found = verify_image_label((str(image), str(text), "", False, 3, 0, 0, False))
        missing, _, _, corrupt, message = found[-5:]
        assert (missing, corrupt) == (0, 0), message
        count += 1
    assert count == images


def accounted(facts: Any, expected: int) -> None:
    assert sum(facts["images"].values()) == expected
    assert sum(facts["datasets"][0]["images"].values()) + len(facts["failed"]) == expected


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["coco_ccby", "fruits_nuts", "treecrowns", "nuclei"])
def test_mini_over_photographs(shared: Path, tmp_path: Path, name: str) -> None:
    images = shared / "data" / name / "images"
    expected = sum(path.suffix.lower() in SUFFIXES for path in images.rglob("*"))
    facts = label(images, tmp_path / "out", *MINI, "--box-threshold", "0.15")
    accounted(facts, expected)
    assert facts["failed"] == []
    check_ultralytics_loads(tmp_path / "out", expected)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["bccd", "microcontrollers", "coco_ccby", "fruits_nuts", "treecrowns", "nuclei"])
def test_every_set_is_accounted_for(shared: Path, tmp_path: Path, name: str) -> None:
    images = shared / "data" / name / "images"
    expected = sum(path.suffix.lower() in SUFFIXES for path in images.rglob("*"))
    accounted(label(images, tmp_path / "out", *FAKE), expected)
    check_ultralytics_loads(tmp_path / "out", expected)


@pytest.mark.shared
def test_the_folder_of_odd_files(unpack_odd: Callable[[Path], Path], tmp_path: Path) -> None:
    odd = unpack_odd(tmp_path / "odd")
    facts = label(odd, tmp_path / "out", *FAKE, codes=(3,))
    lines = [json.loads(line) for line in (tmp_path / "out/run/failed.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == len(facts["failed"]) == facts["images"]["failed"] >= 15
    assert all(line["id"] and line["reason"] and line["detail"] for line in lines)
    reasons = Counter(line["reason"] for line in lines)
    assert set(reasons) >= {"truncated", "damaged", "empty_file", "not_an_image", "invalid_size", "too_many_pixels", "link_loop"}
    assert facts["images"]["labelled"] + facts["images"]["empty"] > 40
    written = sum(facts["datasets"][0]["images"].values())
    check_ultralytics_loads(tmp_path / "out", written)
    again = label(odd, tmp_path / "out", *FAKE, codes=(3,))
    assert again["looked_at"] == 0


@pytest.mark.slow
def test_sample_pictures_of_installed_packages(tmp_path: Path) -> None:
    folders = [Path(spec.origin).parent for name in ("ultralytics", "skimage") if (spec := util.find_spec(name)) and spec.origin]
    pictures = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    assert pictures, "ultralytics ships two"
    (tmp_path / "images").mkdir()
    for number, picture in enumerate(pictures):
        (tmp_path / "images" / f"{number:02d}_{picture.name}").write_bytes(picture.read_bytes())
    facts = label(tmp_path / "images", tmp_path / "out", *MINI, "--box-threshold", "0.15", codes=(0, 3))
    accounted(facts, len(pictures))


@pytest.mark.slow
@pytest.mark.shared
def test_one_photograph_through_models_of_full_size(shared: Path, tmp_path: Path) -> None:
    """Grounding DINO Swin-T and SAM ViT-B at the size of the released ones, random weights: the path users take on a GPU."""
    from autodistill_grounded_sam.config import LabelConfig, RunConfig, SeeConfig
    from autodistill_grounded_sam.masks import decode_mask
    from autodistill_grounded_sam.ontology import Ontology
    from autodistill_grounded_sam.pipeline import build_worker

    detector, segmenter = tmp_path / "detector", tmp_path / "segmenter"
    _save_full_size(detector, segmenter)
    config = LabelConfig(
        see=SeeConfig(detector=str(detector), segmenter=str(segmenter), floor=0.0, max_candidates=20),
        run=RunConfig(device="cpu", offline=True),
    )
    from autodistill_grounded_sam.images import read_image

    image = read_image(sorted((shared / "data/coco_ccby/images").iterdir())[0])
    worker = build_worker(config, Ontology.load({"a person": "person", "dog": "animal", "cat": "animal"}))
    seen = worker.look_at(image)
    assert len(seen) == 20
    assert seen.scores.shape == (20, 3)
    assert np.isfinite(seen.scores).all()
    assert seen.rle is not None and decode_mask(seen.rle[0]).shape == image.shape[:2]
    width, height = worker.resized_size(image.shape[1], image.shape[0])
    assert min(width, height) == 800 or max(width, height) == 1333


def _save_full_size(detector: Path, segmenter: Path) -> None:
    import torch
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SamConfig,
        SamImageProcessor,
        SamModel,
    )

    from autodistill_grounded_sam.weights import find_weights

    torch.manual_seed(0)
    words = find_weights("mini", "detector", offline=True).path
    GroundingDinoForObjectDetection(GroundingDinoConfig(text_config=BertConfig())).half().save_pretrained(detector)
    GroundingDinoImageProcessor().save_pretrained(detector)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (detector / name).write_bytes((words / name).read_bytes())
    SamModel(SamConfig()).half().save_pretrained(segmenter)
    SamImageProcessor().save_pretrained(segmenter)
