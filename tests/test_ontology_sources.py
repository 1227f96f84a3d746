"""Where ontologies come from: mappings, CaptionOntology, COCO, YOLO, files and shipped names, with the faults of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology

# --- {prompt: class} and CaptionOntology ------------------------------------------------------------------------------


class _Caption:
    """The shape of autodistill's CaptionOntology."""

    def __init__(self, ontology: dict[str, str]) -> None:
        self.promptMap = list(ontology.items())


class _CaptionWithoutMap:
    def prompts(self) -> list[str]:
        return ["a bottle", "mug", "plastic bottle"]

    def classes(self) -> list[str]:
        return ["bottle", "cup", "bottle"]


MAPPING = {"a bottle": "bottle", "mug": "cup", "plastic bottle": "bottle"}
EXPECTED = Ontology((ClassSpec("bottle", ("a bottle", "plastic bottle")), ClassSpec("cup", ("mug",))))


@pytest.mark.parametrize(
    "spec", [MAPPING, json.dumps(MAPPING), f"  {json.dumps(MAPPING)}", _Caption(MAPPING), _CaptionWithoutMap()]
)
def test_load__pairs__two_prompts_of_one_class_give_one_class(spec: Any) -> None:
    ontology = Ontology.load(spec)
    assert ontology == EXPECTED
    assert ontology.prompt_class.tolist() == [0, 0, 1]


def test_from_caption_ontology__the_real_one() -> None:
    detection = pytest.importorskip("autodistill.detection", reason="autodistill is not installed")
    assert Ontology.from_caption_ontology(detection.CaptionOntology(MAPPING)) == EXPECTED


def test_from_dict__faults_are_all_told() -> None:
    with pytest.raises(OntologyError) as caught:
        Ontology.from_dict({"Car": "car", "car.": "vehicle", "??": "x", "tree": ["a", "b"], "wood": ""})  # type: ignore[dict-item]
    assert str(caught.value).splitlines() == [
        "the {prompt: class} mapping: 4 faults in the ontology",
        "  prompt 'tree' must stand for a class name, got ['a', 'b']",
        "  class 'x': prompt '??' has no letter or digit to ask for",
        "  class '': a class name must be printable text on one line, without spaces around it",
        "  prompt 'car' is asked for both class 'car' and class 'vehicle'; it can stand for one only",
    ]


def test_from_dict__empty() -> None:
    with pytest.raises(OntologyError, match="an ontology needs at least one class"):
        Ontology.from_dict({})


@pytest.mark.parametrize("spec", [["car", "bus"], 7, None])
def test_load__unknown_kind(spec: Any) -> None:
    with pytest.raises(OntologyError, match=rf"cannot be made from a {type(spec).__name__}; expected a shipped name, a \.yaml"):
        Ontology.load(spec)


def test_load__a_prompt_may_be_called_as_a_key_of_the_schema() -> None:
    assert Ontology.load({"classes": "room", "names": "badge"}).class_names == ("room", "badge")


# --- COCO, YOLO, files ------------------------------------------------------------------------------------------------


def test_from_coco__order_of_the_file_not_of_the_ids(tmp_path: Path) -> None:
    coco = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "Dog"}, {"id": 2, "name": "hot_dog"}]}
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    expected = Ontology((ClassSpec("Dog", ("Dog",)), ClassSpec("hot_dog", ("hot_dog",))))
    assert Ontology.from_coco(coco) == Ontology.from_coco(tmp_path / "truth.json") == Ontology.load(tmp_path / "truth.json")
    assert Ontology.load(tmp_path / "truth.json") == expected
    assert expected.prompts == ("dog", "hot dog")


@pytest.mark.parametrize("content", [[], {}, {"categories": {}}, {"categories": [{"id": 1}]}])
def test_from_coco__not_coco(tmp_path: Path, content: Any) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(OntologyError, match=r"x\.json must be a COCO json with a list of categories that have names"):
        Ontology.from_coco(tmp_path / "x.json")


def test_from_coco__a_name_twice() -> None:
    with pytest.raises(OntologyError, match=r"class 'dog' is given twice"):
        Ontology.from_coco({"categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}]})


@pytest.mark.parametrize("names", ["[dog, cat]", "{1: cat, 0: dog}", "\n- dog\n- cat"])
def test_from_yolo__list_or_ids(tmp_path: Path, names: str) -> None:
    (tmp_path / "data.yaml").write_text(f"path: .\ntrain: images\nnc: 2\nnames: {names}\n")
    assert Ontology.from_yolo(tmp_path / "data.yaml").class_names == ("dog", "cat")
    assert Ontology.load(tmp_path / "data.yaml").prompts == ("dog", "cat")


def test_from_yolo__many_ids_stay_in_order() -> None:
    assert Ontology.from_yolo({"names": {i: f"n{i}" for i in range(12)}}).class_names[:3] == ("n0", "n1", "n2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"nc": 2}, r"must be a YOLO data\.yaml with names, a list or a mapping of ids, got None"),
        ({"names": {1: "a", 2: "b"}}, r"the ids of names must be 0\.\.1, got \[1, 2\]"),
        ({"names": [True, {"a": 1}]}, r"class True: a class name must be text; YAML reads .*\n  class {'a': 1}: a class name"),
        ({"names": ["a", "a"]}, r"class 'a' is given twice"),
        ({"names": ["a_b", "A b"]}, r"prompt 'a b' is asked for both class 'a_b' and class 'A b'"),
    ],
)
def test_from_yolo__faults(content: dict[str, Any], message: str) -> None:
    with pytest.raises(OntologyError, match=message):
        Ontology.from_yolo(content)


def test_from_yolo__numbers_are_names() -> None:
    assert Ontology.from_yolo({"names": [0, 1.5]}).class_names == ("0", "1.5")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"dog", r"a\.txt must be a \.yaml, \.yml or \.json file"),
        ("a.json", b"[1, 2]", r"a\.json must hold a mapping, got \[1, 2\]"),
        ("a.json", b'{"a": ', r"a\.json is not valid JSON: Expecting value"),
        ("a.json", b'{"car": "x", "car": "y"}', r"a\.json: key 'car' is given twice"),
        ("a.yaml", b"\xff\xfe\x00\xd8", r"ontology file .*a\.yaml cannot be read: .*utf-8"),
    ],
)
def test_load__bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OntologyError, match=message):
        Ontology.load(tmp_path / name)


def test_load__a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\r\nclasses: {dog: }\r\n")
    assert Ontology.load(tmp_path / "a.yaml").class_names == ("dog",)


def test_load__missing_file_names_the_shipped_one(tmp_path: Path) -> None:
    with pytest.raises(OntologyError, match=r"coco80\.yaml does not exist; did you mean 'coco80'\? \(shipped: aerial, "):
        Ontology.load(str(tmp_path / "coco80.yaml"))


@pytest.mark.parametrize(("wrong", "right"), [("coco", "coco80"), ("retail-shelf", "retail_shelf"), ("PPE", "construction_ppe")])
def test_load__wrong_name_suggests_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(OntologyError, match=rf"^no ontology is called '{wrong}'; did you mean '{right}'\? \(shipped: aerial, "):
        Ontology.load(wrong)


def test_load__wild_name_lists_without_suggesting() -> None:
    with pytest.raises(OntologyError, match=r"^no ontology is called 'zzz' \(shipped: .*; expected a shipped name, a \.yaml or"):
        Ontology.load("zzz")
