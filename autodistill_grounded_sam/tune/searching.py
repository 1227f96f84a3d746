"""The search itself: words first, then thresholds with the words that were found, then duplicates with both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.tune.choosing import (
    SMALL_GAIN,
    Fixed,
    Gain,
    Verdict,
    cross_validated,
    gain_of,
    images_missing,
    images_to_prove,
    pick,
)
from autodistill_grounded_sam.tune.trials import THRESHOLDS, Counts, Curve, Example, as_decided, try_out
from autodistill_grounded_sam.tune.words import with_words

DUPLICATE_IOU = (0.5, 0.6, 0.7, 0.8, 0.9)
DUPLICATE_CONTAINMENT = (0.7, 0.85, 1.0)


@dataclass(frozen=True)
class Choice:
    """What was decided for one class, and why. `threshold` is None where the given one stays, `gain` where nothing was measured;
    `more_images` says how many images more could change the verdict, 0 where none would."""

    name: str
    words: tuple[str, ...]
    threshold: float | None
    verdict: Verdict
    gain: Gain | None
    images: int
    objects: int
    more_images: int


@dataclass(frozen=True)
class WordChoice:
    """The words found best for a class, with what words and threshold together are worth on images that had no say in either."""

    words: tuple[str, ...]
    gain: Gain


def as_given(examples: Sequence[Example], ontology: Ontology, config: DecideConfig) -> list[Fixed]:
    """Each class as the given settings decide it."""
    labels, right = as_decided(examples, ontology, config)
    objects = _objects(examples, len(ontology.classes))
    return [Fixed(labels[:, k], right[:, k], objects[:, k]) for k in range(len(ontology.classes))]


def choose_words(
    given: Sequence[Fixed],
    examples: Sequence[Example],
    ontology: Ontology,
    config: DecideConfig,
    sets: Mapping[str, Sequence[tuple[str, ...]]],
) -> dict[str, WordChoice]:
    """Other words for the classes where they are proven better than the given settings, and better than another threshold alone.

    `sets` holds the sets of words to try by class name, the given one first; the other classes keep their given words meanwhile.
    """
    found: dict[str, WordChoice] = {}
    for place, spec in enumerate(ontology.classes):
        own = sets.get(spec.name, ())
        if len(own) < 2 or images_missing(given[place].objects):
            continue
        curves = [try_out(examples, with_words(ontology, {spec.name: words}), config, place) for words in own]
        by_words, _ = cross_validated(curves, given[place])
        by_threshold, _ = cross_validated(curves[:1], given[place])
        best = pick(curves, np.arange(len(examples))).place
        if best and by_words.proven and by_words.after > by_threshold.after:
            found[spec.name] = WordChoice(own[best], by_words)
    return found


def choose_thresholds(
    given: Sequence[Fixed],
    examples: Sequence[Example],
    ontology: Ontology,
    config: DecideConfig,
    words: Mapping[str, WordChoice],
    *,
    never_lower: bool = False,
) -> list[Choice]:
    """The verdict on each class: `ontology` is the given one, `given` what it reaches, `words` those that were found for some.

    With `never_lower` a class may only get a higher threshold than it has.
    """
    chosen = with_words(ontology, {name: choice.words for name, choice in words.items()})
    choices = []
    for place, spec in enumerate(ontology.classes):
        objects = given[place].objects
        told = (int((objects > 0).sum()), int(objects.sum()))
        missing = images_missing(objects)
        if missing:
            choices.append(Choice(spec.name, spec.prompts, None, "refused", None, *told, missing))
            continue
        own = max(config.box_threshold, config.text_threshold) if spec.box_threshold is None else spec.box_threshold
        least = own if never_lower else 0.0
        curve = try_out(examples, chosen, config, place, least=least)
        gain, _ = cross_validated([curve], given[place])
        threshold = max(least, pick([curve], np.arange(len(objects))).threshold)
        if gain.proven:  # of words, the evidence is that of their own search, in which no image judged its own choice
            gain = words[spec.name].gain if spec.name in words else gain
            choices.append(Choice(spec.name, chosen.classes[place].prompts, threshold, "changed", gain, *told, 0))
        elif gain.gain > SMALL_GAIN:
            choices.append(Choice(spec.name, spec.prompts, None, "refused", gain, *told, images_to_prove(gain, len(objects))))
        else:
            choices.append(Choice(spec.name, spec.prompts, None, "kept", gain, *told, 0))
    return choices


def worse_together(
    given: Sequence[Fixed], examples: Sequence[Example], ontology: Ontology, config: DecideConfig, choices: Sequence[Choice]
) -> tuple[set[str], Gain]:
    """The changed classes that are worse than given when all choices of the tuned `ontology` decide together, as they will; and
    what all choices are worth over all classes, on the very images they were made on.

    Each was chosen beside the given settings of the others, and what another class gained may be taken from this one. If all
    classes together are worse than given, every changed class is named.
    """
    labels, right = as_decided(examples, ontology, config)
    objects = _objects(examples, len(choices))
    together = [Fixed(labels[:, k], right[:, k], objects[:, k]) for k in range(len(choices))]
    whole = gain_of(_sum(given), _sum(together))
    changed = {choice.name: place for place, choice in enumerate(choices) if choice.verdict == "changed"}
    return {name for name, place in changed.items() if whole.gain < 0 or gain_of(given[place], together[place]).gain < 0}, whole


def refused(choices: Sequence[Choice], ontology: Ontology, names: Collection[str]) -> list[Choice]:
    """The choices with the given settings back for the classes named."""
    return [
        replace(choice, words=spec.prompts, threshold=None, verdict="refused", more_images=0) if choice.name in names else choice
        for choice, spec in zip(choices, ontology.classes, strict=True)
    ]


def choose_duplicates(
    examples: Sequence[Example], ontology: Ontology, config: DecideConfig, *, never_looser: bool = False
) -> tuple[DecideConfig, Gain | None]:
    """The duplicate settings that are proven better over all classes at these thresholds, or the given ones; and the evidence.

    With `never_looser` only settings that take at least as much for a duplicate are tried.
    """
    objects = _objects(examples, len(ontology.classes)).sum(axis=1)
    if images_missing(objects):
        return config, None
    configs = [config] + [
        config.model_copy(update={"duplicate_iou": iou, "duplicate_containment": containment})
        for iou, containment in product(DUPLICATE_IOU, DUPLICATE_CONTAINMENT)
        if (iou, containment) != (config.duplicate_iou, config.duplicate_containment)
        and not (never_looser and (iou > config.duplicate_iou or containment > config.duplicate_containment))
    ]
    decided = (as_decided(examples, ontology, one) for one in configs)
    sums = [Fixed(labels.sum(axis=1), right.sum(axis=1), objects) for labels, right in decided]
    curves = [Curve(_at_every_threshold(one.labels), _at_every_threshold(one.right), objects) for one in sums]
    gain, _ = cross_validated(curves, sums[0])
    best = pick(curves, np.arange(len(objects))).place
    return (configs[best] if gain.proven else config), gain


def tuned_ontology(ontology: Ontology, choices: Sequence[Choice]) -> Ontology:
    """The ontology with the choices in it."""
    classes = [
        spec if choice.threshold is None else replace(spec, prompts=choice.words, box_threshold=choice.threshold)
        for spec, choice in zip(ontology.classes, choices, strict=True)
    ]
    return replace(ontology, classes=tuple(classes))


def _objects(examples: Sequence[Example], classes: int) -> Counts:
    """Objects of every example and class, (n, C)."""
    counts = np.zeros((len(examples), classes))
    for place, example in enumerate(examples):
        counts[place] = np.bincount(example.truth.class_id[~example.truth.crowd], minlength=classes)
    return counts


def _sum(classes: Sequence[Fixed]) -> Fixed:
    """All classes as one."""
    labels, right, objects = (np.sum([getattr(one, name) for one in classes], axis=0) for name in ("labels", "right", "objects"))
    return Fixed(labels, right, objects)


def _at_every_threshold(counts: Counts) -> Counts:
    """Counts (n,) that know no threshold, as the (n, T) of a curve."""
    return np.repeat(counts[:, None], len(THRESHOLDS), axis=1)
