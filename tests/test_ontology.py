"""Ontologies in Python: what is asked, which class it stands for, and what each fault says."""

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


def test_load__an_ontology_is_itself(drinks: Ontology) -> None:
    assert Ontology.load(drinks) is drinks


def test_to_yaml__file_round_trip(tmp_path: Path, drinks: Ontology) -> None:
    path = drinks.to_yaml(tmp_path / "größe.yml")
    assert Ontology.from_yaml(path) == drinks == Ontology.load(path) == Ontology.load(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["größe.yml"]
    (tmp_path / "same.json").write_text(json.dumps(drinks.document()))
    assert Ontology.load(tmp_path / "same.json") == drinks


def test_import__is_cheap() -> None:
    code = (
        "import sys, autodistill_grounded_sam.ontology_io as io; assert io.shipped();"
        "print([m for m in ('torch', 'autodistill', 'yaml', 'pydantic', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
