"""The words that are tried for a class: the given ones, what the user lists, and simple forms of them; and in which sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.ontology import Ontology, did_you_mean, sanitize
from autodistill_grounded_sam.word_forms import bare, plural, singular

MOST_SETS = 60  # of words that are tried for a class; what is found best among more of them is found by luck


def candidate_words(ontology: Ontology, listed: Mapping[str, Sequence[str]], *, forms: bool) -> dict[str, list[str]]:
    """The words to try for each class by its name: given ones first, then the `listed` ones, then (with `forms`) the class name,
    each word bare and with an article, in singular and in plural. A word that another class or a negative asks for is left to it.

    Raises ConfigError for words listed for a class that is none.
    """
    for name in listed:
        if name not in ontology.class_names:
            raise ConfigError(f"words are listed for {name!r}, which is no class{did_you_mean(name, ontology.class_names)}")
    taken = dict.fromkeys((sanitize(word) for word in ontology.negatives), "")
    asked = [(spec.name, word) for spec in ontology.classes for word in spec.prompts]
    for name, word in [*asked, *((name, word) for name, some in listed.items() for word in some)]:
        taken.setdefault(sanitize(word), name)
    words: dict[str, list[str]] = {}
    for spec in ontology.classes:
        own = [sanitize(word) for word in (*spec.prompts, *listed.get(spec.name, ()))]
        if forms:
            own += [form for word in [*own, sanitize(spec.name)] for form in forms_of(word)]
        words[spec.name] = [word for word in dict.fromkeys(own) if taken.setdefault(word, spec.name) == spec.name]
    return words


def forms_of(word: str) -> list[str]:
    """Bare, with an article, and in the plural; English rules, of the last word."""
    one = singular(bare(word))
    article = "an" if one[:1] in "aeiou" else "a"
    return list(dict.fromkeys([one, f"{article} {one}", plural(one)]))


def word_sets(given: Sequence[str], words: Sequence[str]) -> list[tuple[str, ...]]:
    """The sets of words to try for a class, the given one first: each word alone, all, the given ones less one or plus one."""
    own = tuple(dict.fromkeys(given))
    sets = [own, *((word,) for word in words), tuple(words)]
    sets += [tuple(word for word in own if word != left) for left in own if len(own) > 1]
    sets += [(*own, word) for word in words if word not in own]
    by_content = {frozenset(some): some for some in reversed(sets)}
    return [some for some in dict.fromkeys(sets) if by_content[frozenset(some)] == some][:MOST_SETS]


def with_words(ontology: Ontology, words: Mapping[str, Sequence[str]]) -> Ontology:
    """The ontology with other words for the classes named."""
    classes = tuple(replace(spec, prompts=tuple(words.get(spec.name, spec.prompts))) for spec in ontology.classes)
    return replace(ontology, classes=classes)
