"""An ontology as lines that a person types, and back: `class: prompt, prompt`, or a class that is its own prompt.

A name or prompt that holds a comma, a colon or a quote stands in double quotes, quotes within doubled. What lines cannot say
(thresholds, size limits, example images, exclusive groups) is kept from the ontology that the lines were made of.
"""

from __future__ import annotations

import re
from dataclasses import replace

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology

_TERM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,:"]*))\s*([,:]|$)')
_NEEDS_QUOTES = re.compile(r'[,:"]')


def ontology_of(lines: str, negatives: str, base: Ontology | None = None) -> Ontology:
    """The ontology that the lines say; raises OntologyError with the number of a line that says nothing clear.

    Classes that `base` has under the same name keep their limits and example images, and groups of classes that are still there
    stay exclusive.
    """
    known = {spec.name: spec for spec in base.classes} if base is not None else {}
    specs = []
    for number, line in enumerate(lines.splitlines(), 1):
        if line.strip():
            name, prompts = _read_class(line, f"line {number}")
            kept = known.get(name)
            asked = prompts or (() if kept is not None and kept.examples else (name,))
            specs.append(ClassSpec(name, asked) if kept is None else replace(kept, prompts=asked))
    if not specs:
        raise OntologyError("say what to look for: one class a line, such as `ball: red circle, orange circle`")
    names = {spec.name for spec in specs}
    groups = base.exclusive if base is not None else ()
    others = tuple(prompt for line in negatives.splitlines() for prompt in _read_prompts(line, "the negatives"))
    return Ontology(
        tuple(specs),
        others,
        tuple(group for group in groups if names.issuperset(group)),
        base.name if base is not None else "",
        base.description if base is not None else "",
    )


def lines_of(ontology: Ontology) -> str:
    """The classes of an ontology as `ontology_of` reads them."""
    rows = []
    for spec in ontology.classes:
        alone = not spec.prompts or (spec.prompts == (spec.name,) and not spec.examples)
        rows.append(_quoted(spec.name) if alone else f"{_quoted(spec.name)}: {', '.join(map(_quoted, spec.prompts))}")
    return "\n".join(rows)


def negatives_of(ontology: Ontology) -> str:
    return ", ".join(map(_quoted, ontology.negatives))


def spoken_classes(text: str) -> list[str]:
    """The things in what was said, in its order and each once: "a red circle, and two cups" names `red circle` and `two cups`."""
    parts = re.split(r"[,.;:!?\n]|\band\b|\bor\b", text.lower())
    things = (re.sub(r"^\s*(?:an?|the)\s+", "", part).strip() for part in parts)
    return list(dict.fromkeys(thing for thing in things if any(letter.isalnum() for letter in thing)))


def _read_class(line: str, where: str) -> tuple[str, tuple[str, ...]]:
    terms = _terms(line, where)
    name, end = terms[0]
    if not name or end == "," or any(other == ":" for _, other in terms[1:]):
        raise OntologyError(f"{where}: expected `class` or `class: prompt, prompt`, one class a line, got {line.strip()!r}")
    return name, tuple(prompt for prompt, _ in terms[1:] if prompt)


def _read_prompts(line: str, where: str) -> tuple[str, ...]:
    terms = _terms(line, where)
    if any(end == ":" for _, end in terms):
        raise OntologyError(f"{where}: expected prompts with commas between them, got {line.strip()!r}")
    return tuple(prompt for prompt, _ in terms if prompt)


def _terms(line: str, where: str) -> list[tuple[str, str]]:
    """Each text of a line with the comma, colon or nothing that ends it."""
    found, at = [], 0
    while at <= len(line):
        match = _TERM.match(line, at)
        if match is None:
            raise OntologyError(
                f"{where}: a quote in the middle, or not closed, in {line.strip()!r}; put the whole name or prompt in quotes"
            )
        quoted, plain, end = match.groups()
        found.append((plain.strip() if quoted is None else quoted.replace('""', '"'), end))
        if not end:
            break
        at = match.end()
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text
