"""Ontologies in Python: what is asked, which class it stands for, how every source is read, and what each fault says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology, sanitize

DRINKS = """\
version: 1
name: drinks
description: Bottles and cups
classes:
  bottle: {prompts: [A bottle, plastic_bottle], box_threshold: 0.3, min_size_px: 12}
  cup: [cup, mug]
  plate:
  tray: tray of wood
negatives: [reflection, Picture on a wall.]
exclusive: [[bottle, cup]]
"""


@pytest.fixture
def drinks() -> Ontology:
    return Ontology.from_yaml_text(DRINKS)


@pytest.mark.parametrize(
    ("raw", "asked"),
    [
        ("Hard_Hat", "hard hat"),
        ("  a   dog ", "a dog"),
        ("St. Bernard", "st bernard"),
        ("what?", "what"),
        ("red; green", "red green"),
        ("two\nlines\tand\u00a0more", "two lines and more"),
        ("zero\u200bwidth", "zerowidth"),
        ("wait…", "wait"),  # the ellipsis unfolds to three dots, which would end the phrase
        ("Ｆｕｌｌ．width？", "full width"),
        ("CAFÉ", "café"),
        ("[SEP]", "[sep]"),  # in lower case it is no special token of the tokenizer
        ("t-shirt/top", "t-shirt/top"),
        ("狗", "狗"),
    ],
)
def test_sanitize__table(raw: str, asked: str) -> None:
    assert sanitize(raw) == asked


@pytest.mark.parametrize("raw", ["", "  ", "...", "?_?", "!!", "\u200b"])
def test_sanitize__nothing_left(raw: str) -> None:
    with pytest.raises(OntologyError, match=r"^prompt '.*' has no letter or digit to ask for$"):
        sanitize(raw)


@settings(deadline=None, max_examples=50)  # a busy machine is no fault
@given(st.text())
def test_sanitize__once_is_enough_and_no_phrase_is_broken(raw: str) -> None:
    try:
        asked = sanitize(raw)
    except OntologyError:
        return
    assert sanitize(asked) == asked
    assert asked == " ".join(asked.split())
    assert not set(asked) & set("._?;\n\r\t")


def test_ontology__prompts_classes_and_thresholds(drinks: Ontology) -> None:
    assert drinks.class_names == ("bottle", "cup", "plate", "tray")
    assert drinks.prompts == (
        "a bottle", "plastic bottle", "cup", "mug", "plate", "tray of wood", "reflection", "picture on a wall",
    )  # fmt: skip
    assert drinks.prompt_class.dtype == np.int32
    assert drinks.prompt_class.tolist() == [0, 0, 1, 1, 2, 3, -1, -1]
    assert drinks.thresholds(0.35).dtype == np.float32
    np.testing.assert_allclose(drinks.thresholds(0.35), [0.3, 0.35, 0.35, 0.35])
    assert drinks.classes[0].limits == {"box_threshold": 0.3, "min_size_px": 12}
    assert (drinks.name, drinks.description) == ("drinks", "Bottles and cups")


def test_ontology__arrays_cannot_be_changed(drinks: Ontology) -> None:
    for array in (drinks.prompt_class, drinks.exclusive_matrix):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_exclusive_matrix__groups_only(drinks: Ontology) -> None:
    expected = np.eye(4, dtype=bool)
    expected[0, 1] = expected[1, 0] = True
    assert drinks.exclusive_matrix.dtype == np.bool_
    np.testing.assert_array_equal(drinks.exclusive_matrix, expected)


def test_exclusive__all_and_star() -> None:
    for word in ("all", '"*"'):
        ontology = Ontology.from_yaml_text(f"version: 1\nclasses: {{a: , b: , c: }}\nexclusive: {word}\n")
        assert ontology.exclusive == (("a", "b", "c"),)
        assert ontology.exclusive_matrix.all()
        assert ontology.document()["exclusive"] == "all"


def test_prompt_groups__hang_together_over_shared_classes() -> None:
    classes = tuple(ClassSpec(n, (n, f"big {n}")) for n in "abcde")
    ontology = Ontology(classes, ("wall",), (("d", "e"), ("a", "c"), ("c", "e")))
    assert ontology.prompt_groups == (
        ("a", "big a", "c", "big c", "d", "big d", "e", "big e"), ("b", "big b"), ("wall",),
    )  # fmt: skip


def test_exclusive__is_not_transitive_even_where_captions_are_shared() -> None:
    ontology = Ontology(tuple(ClassSpec(n, (n,)) for n in "abc"), (), (("a", "b"), ("b", "c")))
    assert not ontology.exclusive_matrix[0, 2]
    assert ontology.prompt_groups == (("a", "b", "c"),)


def test_notes__say_every_change_and_nothing_else(drinks: Ontology) -> None:
    assert drinks.notes == (
        "'A bottle' is asked as 'a bottle'",
        "'plastic_bottle' is asked as 'plastic bottle'",
        "'Picture on a wall.' is asked as 'picture on a wall'",
    )
    twice = Ontology((ClassSpec("car", ("car", "Car", "automobile")),))
    assert twice.prompts == ("car", "automobile")
    assert twice.notes == ("'Car' is asked as 'car'", "'car' is given more than once and asked once")
    assert Ontology.from_dict({"a dog": "Dog"}).notes == ()


def test_class_spec__lists_and_one_text_become_tuples() -> None:
    assert ClassSpec("dog", ["a dog"]).prompts == ("a dog",)  # type: ignore[arg-type]
    assert ClassSpec("dog", "a dog").prompts == ("a dog",)  # type: ignore[arg-type]
    assert hash(Ontology((ClassSpec("dog", "a dog"),)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"prompts": ()}, r"^class 'bottle' has no prompts$"),
        ({"prompts": (3,)}, r"^class 'bottle': prompt 3 is not text; .*put it in quotes$"),
        ({"prompts": ("?!",)}, r"^class 'bottle': prompt '\?!' has no letter or digit to ask for$"),
        ({"box_threshold": 1.5}, r"^class 'bottle': box_threshold must be a number in 0\.\.1, got 1\.5$"),
        ({"box_threshold": True}, r"box_threshold must be a number in 0\.\.1, got True$"),
        ({"box_threshold": float("nan")}, r"box_threshold must be a number in 0\.\.1, got nan$"),
        ({"min_size_px": -1}, r"min_size_px must be a number of 0 or more, got -1$"),
        ({"max_size_px": float("inf")}, r"max_size_px must be a number of 0 or more, got inf$"),
        ({"max_size_px": 10**400}, None),  # large, and no fault
        ({"max_area_fraction": "half"}, r"max_area_fraction must be a number in 0\.\.1, got 'half'$"),
        ({"min_size_px": 9, "max_size_px": 8}, r"^class 'bottle': min_size_px 9 is above max_size_px 8$"),
        ({"min_area_fraction": 0.2, "max_area_fraction": 0.1}, r"min_area_fraction 0\.2 is above max_area_fraction 0\.1$"),
        ({"name": " bottle"}, r"^class ' bottle': a class name must be printable text on one line, without spaces around it$"),
        ({"name": "bot\ntle"}, r"^class 'bot\\ntle': a class name must be printable"),
        ({"name": 7}, r"^class 7: a class name must be text; YAML reads"),
    ],
)
def test_class_spec__faults(given_settings: dict[str, Any], message: str | None) -> None:
    if message is None:
        ClassSpec(**{"name": "bottle", "prompts": ("a bottle",), **given_settings})
        return
    with pytest.raises(OntologyError, match=message):
        ClassSpec(**{"name": "bottle", "prompts": ("a bottle",), **given_settings})


A, B = ClassSpec("a", ("x", "y")), ClassSpec("b", ("z",))


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"classes": ()}, r"^an ontology needs at least one class$"),
        ({"classes": (A, B, B)}, r"^class 'b' is given twice$"),
        (
            {"classes": (A, ClassSpec("b", ("X.",)))},
            r"^prompt 'x' is asked for both class 'a' and class 'b'; it can stand for one only$",
        ),
        ({"negatives": ("Z",)}, r"^prompt 'z' is asked for both class 'b' and the negatives; it can stand for one only$"),
        ({"negatives": ("--",)}, r"^negatives: prompt '--' has no letter or digit to ask for$"),
        ({"exclusive": (("a", "bb"),)}, r"^exclusive: 'bb' is no class of this ontology"),
    ],
)
def test_ontology__faults(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OntologyError, match=message):
        Ontology(**{"classes": (A, B), **given_settings})


def test_exclusive__unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(OntologyError, match=r"'botle' is no class of this ontology; did you mean 'bottle'\?"):
        Ontology((ClassSpec("bottle", ("bottle",)),), (), (("botle",),))


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


def test_load__an_ontology_is_itself(drinks: Ontology) -> None:
    assert Ontology.load(drinks) is drinks


def test_load__a_prompt_may_be_called_as_a_key_of_the_schema() -> None:
    assert Ontology.load({"classes": "room", "names": "badge"}).class_names == ("room", "badge")


# --- YAML -------------------------------------------------------------------------------------------------------------


def test_from_yaml__every_fault_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "version: 2\nnmae: x\ndescription: [1]\nclasses:\n  bottle: {promts: [b], box_threshold: 2}\n  cup: []\n"
        "  yes: [agree]\n  no:\n  pen: [on, pencil]\n  ink: {min_size_px: 12px}\n  mug: [pencil]\n"
        "negatives: [null, Pencil]\nexclusive: [[cup, mgu]]\n",
        encoding="utf-8",
    )
    with pytest.raises(OntologyError) as caught:
        Ontology.from_yaml(path)
    quotes = "; YAML reads an unquoted yes, no, on, off, null or number as a value, so put it in quotes"
    known = "prompts, box_threshold, min_size_px, max_size_px, min_area_fraction, max_area_fraction"
    assert str(caught.value).splitlines() == [
        f"{path}: 14 faults in the ontology",
        "  the ontology has an unknown key 'nmae'; did you mean 'name'?"
        " (known: version, name, description, classes, negatives, exclusive)",
        "  version must be 1, got 2; write version: 1",
        "  description must be text, got [1]",
        f"  class 'bottle' has an unknown key 'promts'; did you mean 'prompts'? (known: {known})",
        "  class 'bottle': box_threshold must be a number in 0..1, got 2",
        "  class 'cup' has no prompts",
        f"  class True: a class name must be text{quotes}",
        f"  class False: a class name must be text{quotes}",
        f"  class 'pen': prompt True is not text{quotes}",
        "  class 'ink': min_size_px must be a number of 0 or more, got '12px'",
        f"  negatives: prompt None is not text{quotes}",
        "  prompt 'pencil' is asked for both class 'pen' and class 'mug'; it can stand for one only",
        "  prompt 'pencil' is asked for both class 'pen' and the negatives; it can stand for one only",
        "  exclusive: 'mgu' is no class of this ontology; did you mean 'mug'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must hold a mapping with version and classes, got None"),
        ("- a\n- b\n", r"must hold a mapping with version and classes, got \['a', 'b'\]"),
        ("classes: {a: }\n", r"version must be 1, got None; write version: 1"),
        ("version: true\nclasses: {a: }\n", r"version must be 1, got True"),
        ("version: 1\n", r"classes must map each class name to its prompts, got None"),
        ("version: 1\nclasses: [a, b]\n", r"classes must map each class name to its prompts, got \['a', 'b'\]"),
        ("version: 1\nclasses: {}\n", r"an ontology needs at least one class"),
        ("version: 1\nclasses: {a: , b: }\nexclusive: [a, b]\n", r"exclusive must be all, or a list of groups such as"),
        ("version: 1\nclasses:\n  a:\n  b:\n  a: [c]\n", r"line 5: key 'a' is given twice, first on line 3"),
        ("version: 1\nclasses: {a: {prompts: x, prompts: y}}\n", r"line 2: key 'prompts' is given twice, first on line 2"),
        ("version: 1\n" * 11, r"10 faults.*\n  line 2: key 'version'.*(\n.*){7}\n  line 10: .*\n  line 11: "),
        ("version: 1\nclasses: {a: [b}\n", r"is not valid YAML: .*line 2"),
        ("version: 1\nclasses: {a: !!python/object/apply:os.system [ls]}\n", r"is not valid YAML: could not determine a con"),
        ("version: 1\nclasses: {[a]: b}\n", r"is not valid YAML: .*unhashable"),
        ("version: 2024-99-99\n", r"is not valid YAML: month must be in"),
        ("[" * 600, r"is not valid YAML: maximum recursion"),
        ("version: 1\nclasses: &loop {a: *loop}\n", r"class 'a' has an unknown key 'a'"),
    ],
)
def test_from_yaml_text__faults(text: str, message: str) -> None:
    with pytest.raises(OntologyError, match=message):
        Ontology.from_yaml_text(text, "it.yaml")


_text = st.text(st.characters() | st.sampled_from("\n\r\t\x85\u2028\ufeff\u00a0 :#'\"-"), max_size=20)
_letters = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).map(str.strip)
_names = _letters.filter(lambda t: bool(t) and t.isprintable())


@st.composite
def ontologies(draw: st.DrawFn) -> Ontology:
    names = draw(st.lists(_names, min_size=1, max_size=5, unique=True))
    limit = st.none() | st.floats(0, 0.5)
    classes = tuple(
        ClassSpec(
            name,
            (f"{draw(_text)} prompt {i}", *([f"Second_{i}."] if draw(st.booleans()) else [])),
            draw(limit), draw(limit), draw(st.none() | st.floats(0.5, 1e9)), draw(limit), draw(st.none() | st.floats(0.5, 1)),
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    exclusive = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=4).map(tuple), max_size=3))
    negatives = tuple(f"not {i}" for i in range(draw(st.integers(0, 3))))
    return Ontology(classes, negatives, tuple(exclusive), draw(_text), draw(_text))


@settings(deadline=None, max_examples=50)
@given(ontologies())
def test_yaml__round_trip(ontology: Ontology) -> None:
    assert Ontology.from_yaml_text(ontology.to_yaml_text()) == ontology
    assert Ontology.from_document(json.loads(json.dumps(ontology.document()))) == ontology
    assert Ontology.load(json.dumps(ontology.document())) == ontology


@settings(deadline=None, max_examples=50)
@given(ontologies())
def test_prompt_groups__hold_every_prompt_once(ontology: Ontology) -> None:
    grouped = [prompt for group in ontology.prompt_groups for prompt in group]
    assert sorted(grouped) == sorted(ontology.prompts)
    group_of = {prompt: i for i, group in enumerate(ontology.prompt_groups) for prompt in group}
    for i, a in enumerate(ontology.prompts):
        for j, b in enumerate(ontology.prompts):
            classes = ontology.prompt_class[[i, j]]
            if (classes >= 0).all() and ontology.exclusive_matrix[tuple(classes)]:
                assert group_of[a] == group_of[b]


@pytest.mark.parametrize(
    "odd", ["\x85", "\u2028", "\ufeff", "\u00a0", "\r", "\ud800", "a\nb", "ö", "yes", "null", "1", "*", "<<", "="]
)
def test_yaml__odd_texts_survive(tmp_path: Path, odd: str) -> None:
    ontology = Ontology((ClassSpec("größe", (f"{odd} a", odd + "ß  b")),), (f"c {odd}",), (), odd, f" {odd} ")
    assert Ontology.from_yaml(ontology.to_yaml(tmp_path / "x.yaml")) == ontology


@pytest.mark.parametrize("name", ["yes", "null", "~", "1", "0x1f", "1e3", "2024-01-01", "*", "<<", "=", "- a", "a: b", "#x"])
def test_yaml__names_that_look_like_values_survive(name: str) -> None:
    ontology = Ontology((ClassSpec(name, ("x",)), ClassSpec("other", ("y",))), (), ((name, "other"),))
    assert Ontology.from_yaml_text(ontology.to_yaml_text()) == ontology


def test_to_yaml__keeps_letters_readable() -> None:
    assert "größe: [größe ß]" in Ontology((ClassSpec("größe", ("größe ß",)),)).to_yaml_text()


def test_to_yaml__file_round_trip(tmp_path: Path, drinks: Ontology) -> None:
    path = drinks.to_yaml(tmp_path / "größe.yml")
    assert Ontology.from_yaml(path) == drinks == Ontology.load(path) == Ontology.load(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["größe.yml"]
    (tmp_path / "same.json").write_text(json.dumps(drinks.document()))
    assert Ontology.load(tmp_path / "same.json") == drinks


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


def test_import__is_cheap() -> None:
    code = (
        "import sys, autodistill_grounded_sam.ontology_io as io; assert io.shipped();"
        "print([m for m in ('torch', 'autodistill', 'yaml', 'pydantic', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
