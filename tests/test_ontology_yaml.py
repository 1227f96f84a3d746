"""Ontologies as YAML: every fault is told, and odd texts and names survive."""

from __future__ import annotations

from pathlib import Path

import pytest

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology


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
    known = "prompts, examples, box_threshold, min_size_px, max_size_px, min_area_fraction, max_area_fraction"
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
