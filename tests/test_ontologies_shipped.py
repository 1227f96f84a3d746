"""Every file in `ontologies/`: it reads, it says what it is, and its prompts can be asked as they stand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.ontology_io import shipped, shipped_summary
from autodistill_grounded_sam.painting import ALL_PAIRS, SEEN_PAIRS, UNSEEN_PAIRS

FOLDER = Path(__file__).resolve().parents[1] / "ontologies"
CAPTION_TOKENS = 256


def test_shipped__is_the_folder_and_no_package() -> None:
    assert {path.stem for path in FOLDER.iterdir() if path.is_file()} == set(shipped())
    assert len(shipped()) >= 12
    assert all(path.suffix == ".yaml" for path in FOLDER.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", shipped())
def test_shipped__reads_and_says_what_it_is(name: str) -> None:
    ontology = Ontology.load(name)
    assert ontology.name == name
    assert 15 <= len(ontology.description) <= 120
    assert "\n" not in ontology.description
    assert not ontology.description.endswith(".")
    assert len(ontology.classes) >= 8
    assert ontology.notes == (), "a shipped prompt is written as it is asked"
    assert all(len(prompt.split()) <= 5 for prompt in ontology.prompts)
    assert all(len(group) > 1 and len(set(group)) == len(group) for group in ontology.exclusive)
    assert Ontology.from_yaml_text(ontology.to_yaml_text()) == ontology


def test_shipped_summary__one_line_each() -> None:
    rows = {row.name: row for row in shipped_summary()}
    assert list(rows) == sorted(shipped())
    assert rows["coco80"].classes == 80
    assert rows["voc20"].description == "The 20 classes of Pascal VOC, in VOC's order"
    assert rows["voc20"].path.is_file()


@pytest.mark.parametrize(("name", "reference"), [("coco80", "coco.yaml"), ("voc20", "VOC.yaml")])
def test_shipped__names_and_order_of_the_benchmarks(name: str, reference: str) -> None:
    found = find_spec("ultralytics")
    if found is None or found.origin is None:
        pytest.skip("needs the extra [yolo]: ultralytics holds the reference lists")
    truth = Ontology.from_yolo(Path(found.origin).parent / "cfg" / "datasets" / reference)
    assert Ontology.load(name).class_names == truth.class_names


def test_painted_shapes__are_what_the_painter_paints() -> None:
    ontology = Ontology.load("painted_shapes")
    assert ontology.class_names == ontology.prompts == tuple(f"{colour} {shape}" for colour, shape in ALL_PAIRS)
    assert ontology.exclusive_matrix.all()
    assert len(ontology.prompt_groups) == 1


def test_painted_shapes_small__half_seen_half_unseen_of_seen_words() -> None:
    pairs = [tuple(name.split()) for name in Ontology.load("painted_shapes_small").class_names]
    assert set(pairs[:4]) <= set(SEEN_PAIRS)
    assert set(pairs[4:]) <= set(UNSEEN_PAIRS)
    assert len(pairs) == 8


@pytest.mark.shared
@pytest.mark.parametrize("name", shipped())
def test_shipped__known_words_in_one_caption(shared: Path, name: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")
    vocabulary = shared / "reference" / "groundingdino_official" / "bert" / "vocab.txt"
    tokenizer = tokenizers.BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    prompts = Ontology.load(name).prompts
    tokens = [tokenizer.encode(prompt, add_special_tokens=False).tokens for prompt in prompts]
    assert not [prompt for prompt, pieces in zip(prompts, tokens, strict=True) if "[UNK]" in pieces]
    assert 2 + sum(len(pieces) + 1 for pieces in tokens) <= CAPTION_TOKENS


@pytest.mark.shared
def test_from_coco__real_annotations(shared: Path) -> None:
    files = sorted((shared / "data").glob("*/annotations.json"))
    assert files
    for path in files:
        assert Ontology.load(path) == Ontology.from_coco(path)
    real = Ontology.from_coco(shared / "data" / "coco_ccby" / "annotations.json")
    assert set(real.class_names) <= set(Ontology.load("coco80").class_names)
