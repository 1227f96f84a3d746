"""Lines that a person types become an ontology, and come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill_grounded_sam.app.words import lines_of, negatives_of, ontology_of, spoken_classes
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology


def test_a_line_is_a_class_and_prompts_stand_after_its_colon() -> None:
    words = ontology_of("ball: red circle, orange circle\n\n  green star \n", "red moon, orange ring")
    assert [(spec.name, spec.prompts) for spec in words.classes] == [
        ("ball", ("red circle", "orange circle")),
        ("green star", ("green star",)),
    ]
    assert words.negatives == ("red moon", "orange ring")


def test_quotes_hold_commas_colons_and_quotes() -> None:
    words = ontology_of('"a: b": "a man, sitting", "6"" pipe"', '"x, y", z')
    assert words.classes[0] == ClassSpec("a: b", ("a man, sitting", '6" pipe'))
    assert words.negatives == ("x, y", "z")


@pytest.mark.parametrize(
    ("lines", "negatives", "message"),
    [
        ("", "", r"say what to look for: one class a line"),
        ("ball\nbox, bin", "", r"line 2: expected `class` or `class: prompt, prompt`, one class a line, got 'box, bin'"),
        ("a: b: c", "", r"line 1: expected `class`"),
        ("ball\n: red circle", "", r"line 2: expected `class` or `class: prompt, prompt`, one class a line, got ': red circle'"),
        ('ball: 6" pipe', "", r"""line 1: a quote in the middle, or not closed, in 'ball: 6" pipe'; put the whole name or"""),
        ('"ball', "", r"line 1: a quote in the middle, or not closed"),
        ("ball", "moon: red", r"the negatives: expected prompts with commas between them, got 'moon: red'"),
        ("ball\nball: red", "", r"class 'ball' is given twice"),
        ("ball", "ball", r"prompt 'ball' is asked for both class 'ball' and the negatives"),
        ("ball: ...", "", r"has no letter or digit to ask for"),
    ],
)
def test_what_is_not_clear_is_told_with_its_line(lines: str, negatives: str, message: str) -> None:
    with pytest.raises(OntologyError, match=message):
        ontology_of(lines, negatives)


def test_what_lines_cannot_say_is_kept_from_the_ontology_they_were_made_of() -> None:
    car, truck = ClassSpec("car", ("car",), box_threshold=0.4, min_size_px=12), ClassSpec("truck", ("truck", "lorry"))
    base = Ontology((car, truck, ClassSpec("bus", ("bus",))), (), (("car", "truck"), ("truck", "bus")), "road", "vehicles")
    assert ontology_of(lines_of(base), negatives_of(base), base) == base
    words = ontology_of("car: red car\ntruck", "", base)
    assert words.classes == (ClassSpec("car", ("red car",), box_threshold=0.4, min_size_px=12), ClassSpec("truck", ("truck",)))
    assert words.exclusive == (("car", "truck"),)


TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12).map(str.strip)


@given(st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=3), min_size=1, max_size=4), st.lists(TEXT, max_size=3))
def test_every_ontology_comes_back_from_its_lines(classes: dict[str, list[str]], negatives: list[str]) -> None:
    try:
        words = Ontology(tuple(ClassSpec(name, tuple(prompts)) for name, prompts in classes.items()), tuple(negatives))
    except OntologyError:
        return  # a name or prompt that no ontology can hold
    assert ontology_of(lines_of(words), negatives_of(words), words) == words


@pytest.mark.parametrize(
    ("said", "classes"),
    [
        ("A red circle, and the blue square.", ["red circle", "blue square"]),
        ("cups or plates; cups", ["cups", "plates"]),
        ("an orange and sand", ["orange", "sand"]),
        ("... ", []),
    ],
)
def test_things_that_are_said_become_classes(said: str, classes: list[str]) -> None:
    assert spoken_classes(said) == classes
