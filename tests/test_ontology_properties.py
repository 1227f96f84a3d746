"""What holds for any ontology: it is read as it was written, and its groups hold every prompt once."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from autodistill_grounded_sam.ontology import ClassSpec, Ontology

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
