"""A folder of which nobody said what is in it: discovered, labelled with what was found, measured against the painted truth."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from autodistill_grounded_sam import cli
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_dataset
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.types import RgbImage

NAMES = ["red circle", "green star", "blue square", "purple heart"]
PAIRS = tuple((name.split()[0], name.split()[1]) for name in NAMES)
SETTINGS = PainterSettings(FRESH_SETTINGS.width, FRESH_SETTINGS.height, objects=(2, 4), pairs=PAIRS)
MINI = ("--tagger", "mini", "--detector", "mini", "--device", "cpu", "--offline", "--json")
NO_MASKS = ("--masks", "none", "--format", "yolo")


class Chatterbox:
    """A tagger that says the same of every image: names in several forms, and things that are not there."""

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]:
        said = ("Red Circles", "the blue square", "blue squares", "a green moon", "white ring")
        return [[Tag(name, 1.0) for name in said[: 2 + number % 4]] + [Tag("red circle", 0.5)] for number in range(len(images))]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any, str]]:
    def run(*words: object) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["grounded-sam", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), json.loads(said.out) if said.out.startswith("{") else said.out, said.err

    return run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discover")
    paint_dataset(folder, 12, SETTINGS, 70_200, NAMES)
    return folder


def true_images(scenes: Path, name: str) -> int:
    truth = json.loads((scenes / "truth.json").read_text())
    return len({one["image_id"] for one in truth["annotations"] if one["category_id"] == NAMES.index(name) + 1})


def test_discover_label_evaluate(say: Any, scenes: Path, tmp_path: Path) -> None:
    """What is there is found, no more and no less, and labels made with it are right."""
    out = tmp_path / "found.yaml"
    code, found, why = say("discover", scenes / "images", "--out", out, *MINI)
    assert code == 0, why
    ontology = Ontology.load(out)
    assert sorted(ontology.class_names) == sorted(NAMES)
    assert found["ontology"] == ontology.document()
    text = out.read_text()
    for name, evidence in found["evidence"].items():
        assert abs(evidence["images"] - true_images(scenes, name)) <= 1
        assert f"tagged in {evidence['tagged']} images, best name of {evidence['boxes']} box(es)" in text.split(f"  {name}:")[0]
    sheet = np.asarray(Image.open(found["sheet"]))
    assert sheet.shape == (376, 4 * 488 + 8, 3), "one row of four pictures"
    label = ("label", scenes / "images", "--ontology", out, "--out", tmp_path / "set", "--detector", "mini", "--device", "cpu")
    code, _, why = say(*label, *NO_MASKS, "--offline", "--json")
    assert code == 0, why
    measured = say("evaluate", tmp_path / "set", "--truth", scenes / "truth.json", "--json")[1]
    assert measured["operating_point"]["precision"] > 0.85 and measured["operating_point"]["recall"] > 0.8
    code, _, why = say("discover", scenes / "images", "--out", out, *MINI)
    assert code == 2 and f"{out} is already there, and may hold what you changed" in why


def test_label_auto_is_discover_and_label__and_goes_on_with_what_was_changed(say: Any, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    auto = ("label", scenes / "images", "--auto", "--out", out, *NO_MASKS, *MINI)
    code, labelled, why = say(*auto)
    assert code == 0, why
    found = out / "run" / "discovered.yaml"
    assert sorted(labelled["per_class"]) == sorted(Ontology.load(found).class_names) == sorted(NAMES)
    assert found.with_suffix(".png").is_file()
    found.write_text(
        found.read_text().replace("  red circle:", "  ball: [red circle]").replace("[red circle] null", "[red circle]")
    )
    code, again, why = say(*auto)
    assert code == 0, why
    assert again["looked_at"] == 0 and again["per_class"]["ball"] == labelled["per_class"]["red circle"] > 0


def test_limits_near_duplicates_and_words(say: Any, scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(scenes / "images", images)
    for number, path in enumerate(sorted(images.iterdir())[:5]):
        Image.open(path).convert("RGB").save(images / f"copy_{number}.jpg", quality=95)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    words = tmp_path / "words.txt"
    words.write_text("Red Circles\nthe green star\n\nblue square\nblue squares\n")
    narrow = ("--words", words, "--max-classes", 2, "--min-images", 1)
    code, found, why = say("discover", images, "--out", tmp_path / "found.yaml", *narrow, *MINI)
    assert code == 0, why
    assert (found["folder"], found["sampled"], found["near_duplicates"], found["unreadable"]) == (18, 12, 5, 1)
    assert len(found["evidence"]) == 2 and set(found["evidence"]) < {"red circle", "green star", "blue square"}
    assert "beyond the 2 most frequent classes" in "".join(found["left_out"].values())
    one = say("discover", images, "--out", tmp_path / "one.yaml", "--sample", 3, "--min-images", 1, "--max-classes", 1, *MINI)[1]
    assert len(one["evidence"]) == 1 and one["unasked"] > 0
    assert f"{one['unasked']} of them too rare for the detector to be asked" in (tmp_path / "one.yaml").read_text()
    few = say("discover", images, "--out", tmp_path / "few.yaml", "--sample", 3, "--min-images", 1, *MINI)[1]
    assert few["sampled"] == 3
    code, _, why = say("discover", images, "--out", tmp_path / "none.yaml", "--min-images", 50, *MINI)
    assert code == 2 and "became a class; lower --min-images" in why and "images, fewer than 50" in why
    assert not (tmp_path / "none.yaml").exists()


def test_what_does_not_go_together_is_told_before_anything_is_looked_at(
    say: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    images, out = scenes / "images", ("--out", tmp_path / "set")
    assert "say what to look for with --ontology, or --auto" in say("label", images, *out)[2]
    assert "give one of them" in say("label", images, "--ontology", "coco80", "--auto", *out)[2]
    assert "--tagger is for --auto" in say("label", images, "--ontology", "coco80", "--tagger", "mini", *out)[2]
    assert "a name that ends in .yaml" in say("discover", images, "--out", tmp_path / "found.txt", *MINI)[2]
    assert (
        "'facebook/sam-vit-base' is not on this machine"
        in say("label", images, "--auto", *out, "--segmenter", "facebook/sam-vit-base", *MINI)[2]
    ), "told before anything is tagged"
    assert "sample" in say("discover", images, "--out", tmp_path / "found.yaml", "--sample", 0, *MINI)[2]
    assert not (tmp_path / "set").exists()


def test_a_tagger_of_ones_own_on_a_parquet_of_images(say: Any, scenes: Path, tmp_path: Path) -> None:
    """What the detector does not find of all that it says is left out, with the reason."""
    files = sorted((scenes / "images").iterdir())
    table = pa.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in files]})
    pq.write_table(table, tmp_path / "images.parquet")
    own = ("--tagger", f"{__name__}:Chatterbox", *MINI[2:])
    code, found, why = say("discover", tmp_path / "images.parquet", "--out", tmp_path / "found.yaml", *own)
    assert code == 0, why
    assert (found["sampled"], found["tags"]) == (12, 6)
    assert list(found["evidence"]) == ["red circle", "blue square"]
    assert found["evidence"]["red circle"]["tagged"] == 12
    assert found["left_out"].keys() == {"green moon", "white ring"}
    assert found["left_out"]["green moon"] == "the detector finds it in 0 of 6 images with this tag"
