"""The tuned ontology as YAML, with the evidence beside each choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.tune.choosing import Gain
from autodistill_grounded_sam.tune.searching import Choice


def evidence_of(choice: Choice, given_words: Sequence[str]) -> str:
    """One sentence on a class: what was chosen or refused, and what speaks for it."""
    seen = f"{choice.objects} object{'s'[: choice.objects != 1]} in {_images(choice.images)}"
    if choice.gain is None:
        return f"refused: {seen} prove nothing; label about {_images(choice.more_images)} more of this kind"
    if choice.verdict == "changed":
        what = "threshold" if tuple(given_words) == choice.words else "words and threshold"
        exact = f"precision {choice.gain.precision:.2f}, recall {choice.gain.recall:.2f}"
        return f"{what} changed: {gain_text(choice.gain)}; {exact}; {seen}"
    if choice.verdict == "refused" and not choice.more_images:
        return f"refused: {gain_text(choice.gain)} alone, but worse than given once all choices decide together; {seen}"
    if choice.verdict == "refused":
        return f"refused: {gain_text(choice.gain)} is not proven by {seen}; label about {_images(choice.more_images)} more"
    return f"kept: nothing better was found, {gain_text(choice.gain)}; {seen}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def gain_text(gain: Gain) -> str:
    """F1 before and after, with the interval of the difference."""
    return f"F1 {gain.before:.2f} -> {gain.after:.2f} (difference {gain.gain:+.3f}, 90 % [{gain.low:+.3f}, {gain.high:+.3f}])"


def yaml_with_evidence(ontology: Ontology, evidence: Sequence[str], head: Sequence[str]) -> str:
    """The ontology as YAML that reads back as the same; `head` and the `evidence` of each class are its comments."""
    document = ontology.document()
    classes: dict[str, Any] = document.pop("classes")
    tail: dict[str, Any] = {key: document.pop(key) for key in ("negatives", "exclusive") if key in document}
    lines = [*(f"# {line}" for line in head), *_yaml(document), "classes:"]
    for (name, value), why in zip(classes.items(), evidence, strict=True):
        lines += [f"  # {why}", *(f"  {line}" for line in _yaml({name: value}))]
    return "\n".join([*lines, *(_yaml(tail) if tail else [])]) + "\n"


def _yaml(document: dict[str, Any]) -> list[str]:
    """Lines of YAML, a line a key; escaped where a text holds what YAML would not read back."""
    import yaml

    nested = any(isinstance(value, (list, dict)) for value in document.values())

    readable = all(c.isprintable() for c in json.dumps(document, ensure_ascii=False))
    text: str = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=readable, default_flow_style=None if nested else False, width=1_000_000
    )
    return text.splitlines()
