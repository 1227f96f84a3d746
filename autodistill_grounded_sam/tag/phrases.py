"""From a caption or a list, in English, to the things it names: what is left between words that cannot be part of a name.

No grammar is parsed: a caption is cut at punctuation, small words and verbs, and words that only say what kind are taken from the
front of what remains. A slip costs little: whatever a detector does not find in the images is dropped later.
"""

from __future__ import annotations

import re

MOST_WORDS = 3  # of one name: the last ones


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CUTS = re.compile(r"<[^>]*>|[,.;:!?()\[\]{}\"/|\n\r\t•*]|(?:^|\s)\d+[.)]|(?:^|\s)[-–—]+(?=\s)|['’]s\b")
_SMALL = _words(
    """a an the this that these those there here it its his her their our your my he she they we you i who which what where when
    of in on at by to from with without for into onto over under above below behind beside between near through across along
    around against inside outside off up down out next as and or but nor while than then so if not no
    is are was were be been being am has have had having do does did can could will would may might must seem seems appear appears
    very too also just only still together apart away all both each every some any many few several more most other another same
    such own several one two three four five six seven eight nine ten dozen
    show shows contain contains include includes see sees hold holds wear wears stand stands sit sits lie lies look looks ride
    rides play plays eat eats walk walks run runs fly flies hang hangs cover covers"""
)
_KINDS = _words(
    """red orange yellow green blue purple pink brown black white grey gray golden silver beige colorful colourful dark light
    bright big large small little tiny huge long short tall high low wide narrow old new young modern empty full
    open close clean dirty wet dry hot cold beautiful pretty cute nice happy round square flat
    wooden metal metallic plastic different various"""
)
_ALSO_NAMES = _words("orange square light")
_NO_THINGS = _words(
    """image picture photo photograph view scene front back top bottom side middle center centre end edge background foreground
    distance group bunch lot pair couple set row line number variety kind type piece part area place day night time lots pieces
    object objects thing things item items way"""
)
# Words in -ing and -ed that name things; the others are verbs, at which a caption is cut.
_ING = _words(
    """building ceiling clothing painting railing ring king wing string spring swing earring awning icing pudding dressing
    lightning stocking drawing filling sling duckling seedling"""
)
_ED = _words("bed seed weed sled shed reed moped biped bread hundred")


def things_in(text: str) -> list[str]:
    """The names in a text, lower case, in their order, each once: `a man riding a brown horse` names man and horse."""
    names = [name for part in _CUTS.split(text.lower()) for name in _names(part)]
    return list(dict.fromkeys(names))


def _names(part: str) -> list[str]:
    runs: list[list[str]] = [[]]
    for word in part.split():
        if _cuts(word):
            runs.append([])
        else:
            runs[-1].append(word)
    return [name for run in runs if (name := _name(run))]


def _name(words: list[str]) -> str:
    kept = list(words)
    while len(kept) > 1 and kept[0] in _KINDS:
        kept.pop(0)
    nameless = not kept or kept[-1] in _NO_THINGS or (kept[-1] in _KINDS and kept[-1] not in _ALSO_NAMES)
    return "" if nameless else " ".join(kept[-MOST_WORDS:])


def _cuts(word: str) -> bool:
    verb = (len(word) > 4 and word.endswith("ing") and word not in _ING) or (word.endswith("ed") and word not in _ED)
    return word in _SMALL or verb or not any(c.isalpha() for c in word)
