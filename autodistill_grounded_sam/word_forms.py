"""English words in other forms: without their article, in singular and in plural."""

from __future__ import annotations

from collections.abc import Callable

_ARTICLES = ("a ", "an ", "the ")
_SAME_IN_PLURAL = (
    "fish", "sheep", "deer", "series", "aircraft", "glasses", "sunglasses", "eyeglasses", "spectacles", "scissors", "trousers",
    "jeans", "pants", "shorts", "tights", "suspenders", "goggles", "shears", "tongs", "pliers", "stairs", "aerobics", "news",
    "gas", "lens", "atlas", "canvas", "christmas", "rhinoceros", "thermos",
)  # fmt: skip
_ODD_PLURALS = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice",
    "goose": "geese", "leaf": "leaves", "knife": "knives", "shelf": "shelves", "loaf": "loaves", "wolf": "wolves",
    "nucleus": "nuclei", "fungus": "fungi", "cactus": "cacti",
}  # fmt: skip
_ODD_SINGULARS = {plural: word for word, plural in _ODD_PLURALS.items()}


def bare(words: str) -> str:
    """Without the article in front."""
    return next((words[len(article) :] for article in _ARTICLES if words.startswith(article)), words)


def singular(words: str) -> str:
    """The last word in the singular; what `plural` would not make into the same word again is left alone."""
    return _on_last(words, _singular)


def plural(words: str) -> str:
    """The last word, which is in the singular, in the plural."""
    return _on_last(words, _plural)


def _on_last(words: str, change: Callable[[str], str]) -> str:
    head, _, last = words.rpartition(" ")
    return f"{head} {change(last)}" if head else change(last)


def _plural(word: str) -> str:
    if word in _SAME_IN_PLURAL or not word.isalpha():
        return word
    if word in _ODD_PLURALS:
        return _ODD_PLURALS[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _singular(word: str) -> str:
    if word in _ODD_SINGULARS:
        return _ODD_SINGULARS[word]
    if word in _SAME_IN_PLURAL or word.endswith(("ss", "us", "is")):
        return word
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            shorter = word[: -len(ending)] + instead
            if _plural(shorter) == word:
                return shorter
    return word
