"""The search itself: words first, then thresholds with the words that were found, then duplicates with both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from autodistill_grounded_sam.config import DecideConfig
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.tune.choosing import (
    SMALL_GAIN,
    Curve,
    Fixed,
    Gain,
    Verdict,
    cross_validated,
    images_missing,
    images_to_prove,
    pick,
)
from autodistill_grounded_sam.tune.trials import THRESHOLDS, Counts, Example, as_decided, try_out
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
        outcomes = (try_out(examples, with_words(ontology, {spec.name: words}), config) for words in own)
        curves = [Curve(one.labels[:, place], one.right[:, place], one.objects[:, place]) for one in outcomes]
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
) -> list[Choice]:
    """The verdict on each class: `ontology` has the words that were found, `given` is what the given settings reach."""
    outcome = try_out(examples, ontology, config)
    choices = []
    for place, spec in enumerate(ontology.classes):
        objects = given[place].objects
        told = (int((objects > 0).sum()), int(objects.sum()))
        missing = images_missing(objects)
        if missing:
            choices.append(Choice(spec.name, spec.prompts, None, "refused", None, *told, missing))
            continue
        curve = Curve(outcome.labels[:, place], outcome.right[:, place], outcome.objects[:, place])
        gain, _ = cross_validated([curve], given[place])
        threshold = pick([curve], np.arange(len(objects))).threshold
        if gain.proven:  # of words, the evidence is that of their own search, in which no image judged its own choice
            gain = words[spec.name].gain if spec.name in words else gain
            choices.append(Choice(spec.name, spec.prompts, threshold, "changed", gain, *told, 0))
        elif gain.gain > SMALL_GAIN:
            choices.append(Choice(spec.name, spec.prompts, None, "refused", gain, *told, images_to_prove(gain, len(objects))))
        else:
            choices.append(Choice(spec.name, spec.prompts, None, "kept", gain, *told, 0))
    return choices


def choose_duplicates(examples: Sequence[Example], ontology: Ontology, config: DecideConfig) -> tuple[DecideConfig, Gain | None]:
    """The duplicate settings that are proven better over all classes at these thresholds, or the given ones; and the evidence."""
    objects = _objects(examples, len(ontology.classes)).sum(axis=1)
    if images_missing(objects):
        return config, None
    configs = [config] + [
        config.model_copy(update={"duplicate_iou": iou, "duplicate_containment": containment})
        for iou, containment in product(DUPLICATE_IOU, DUPLICATE_CONTAINMENT)
        if (iou, containment) != (config.duplicate_iou, config.duplicate_containment)
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


def _at_every_threshold(counts: Counts) -> Counts:
    """Counts (n,) that know no threshold, as the (n, T) of a curve."""
    return np.repeat(counts[:, None], len(THRESHOLDS), axis=1)
