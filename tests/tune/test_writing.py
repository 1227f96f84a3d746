"""The tuned ontology on paper: it reads back as itself, and says why."""

from __future__ import annotations

import pytest

from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.tune.choosing import Gain
from autodistill_grounded_sam.tune.searching import Choice
from autodistill_grounded_sam.tune.writing import evidence_of, yaml_with_evidence

GAIN = Gain(0.70, 0.98, 0.28, 0.16, 0.43, 1.0, 0.96)
ONTOLOGIES = [
    Ontology((ClassSpec("cup", ("cup",)),)),
    Ontology(
        (ClassSpec("yes", ("a cup: blue", "# mug"), box_threshold=0.28), ClassSpec("naïve plate", ("naïve plate",))),
        ("a jar", "no"), (("yes", "naïve plate"),), "toys", "all of them: on one line, and # more",
    ),
    Ontology((ClassSpec("a", ("x",)), ClassSpec("b", ("y",)), ClassSpec("c", ("c\u2028d",))), (), (("a", "b"),)),
]  # fmt: skip


@pytest.mark.parametrize("ontology", ONTOLOGIES)
def test_reads_back_as_the_same_with_the_evidence_beside_it(ontology: Ontology) -> None:
    evidence = [f"evidence of {place}" for place in range(len(ontology.classes))]
    text = yaml_with_evidence(ontology, evidence, ["tuned on 20 images", "by hand"])
    assert Ontology.from_yaml_text(text) == ontology
    assert text.startswith("# tuned on 20 images\n# by hand\nversion: 1\n")
    lines = text.splitlines()
    for place, why in enumerate(evidence):
        after = lines[lines.index(f"  # {why}") + 1]
        name = ontology.class_names[place]
        one = f"version: 1\nclasses:\n{after} {'[x]' if after.endswith(':') else ''}"
        assert Ontology.from_yaml_text(one).class_names == (name,)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (
            Choice("cup", ("mug",), 0.3, "changed", GAIN, 20, 31, 0),
            "words and threshold changed: F1 0.70 -> 0.98 (difference +0.280, 90 % [+0.160, +0.430]); precision 1.00, recall "
            "0.96; 31 objects in 20 images",
        ),
        (
            Choice("cup", ("cup",), 0.3, "changed", GAIN, 1, 1, 0),
            "threshold changed: F1 0.70 -> 0.98 (difference +0.280, 90 % [+0.160, +0.430]); precision 1.00, recall 0.96; "
            "1 object in 1 image",
        ),
        (
            Choice("cup", ("cup",), None, "refused", None, 2, 3, 17),
            "refused: 3 objects in 2 images prove nothing; label about 17 images more of this kind",
        ),
        (
            Choice("cup", ("cup",), None, "refused", GAIN, 12, 31, 1),
            "refused: F1 0.70 -> 0.98 (difference +0.280, 90 % [+0.160, +0.430]) is not proven by 31 objects in 12 images; label "
            "about 1 image more",
        ),
        (
            Choice("cup", ("cup",), None, "kept", GAIN, 12, 31, 0),
            "kept: nothing better was found, F1 0.70 -> 0.98 (difference +0.280, 90 % [+0.160, +0.430]); 31 objects in 12 images",
        ),
    ],
)
def test_evidence_in_a_sentence(choice: Choice, said: str) -> None:
    assert evidence_of(choice, ("cup",)) == said
