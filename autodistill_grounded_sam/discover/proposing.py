"""From concepts and what a detector says to them to an ontology: which become classes, with which threshold, against what.

In this order: what the detector does not find, and what fills whole pictures, is left out; what shares its boxes is one class;
words for several of the others are left out, and those whose boxes others name better; then rare ones, then what is too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autodistill_grounded_sam.discover.concepts import Concept
from autodistill_grounded_sam.discover.grounding import Grounding
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.types import Float32

FOUND_SHARE = 0.2  # of the images with a tag: where the detector finds it in fewer, it is a mood or an action, not an object
SCENE_AREA = 0.9  # of the picture, the median box: a beach or a room, not an object in it
SAME_SHARE = 0.8  # of the boxes of each of two words: they are one thing
CONFUSED_SHARE = 0.1  # of the boxes of one of two words: an object of one is sometimes taken for the other
FEWEST_BOXES = 5  # to judge by; two words with one box between them share all of it
FEWEST_TAKEN = 2  # boxes that a negative takes from the classes, in images with its tag: one may be a slip
MOST_NEGATIVES = 10
FEWEST_IMAGES = 5  # with a tag, and as many without, to choose a threshold by
FURTHEST = 2.0  # times the default, or its half: a threshold beyond is a sign of wrong tags
WORTH = 0.1  # of the difference of shares that a threshold must win over the default to be set
_SHOWN = 10


@dataclass(frozen=True)
class Limits:
    """`threshold` is the default of labels, `min_images` the fewest that a class is in, `max_classes` the most there are."""

    threshold: float = 0.35
    min_images: int = 3
    max_classes: int = 30


@dataclass(frozen=True)
class Evidence:
    """For a class: in how many images it was tagged, of how many boxes in how many of these its name is the best, and why its
    threshold is what it is."""

    tagged: int
    boxes: int
    images: int
    threshold: str


@dataclass(frozen=True)
class Proposal:
    """An ontology and what speaks for it: an `Evidence` a class, for each negative the boxes that it takes from the classes, and
    why each other concept was left out, those of most images first."""

    ontology: Ontology
    evidence: tuple[Evidence, ...]
    negatives: Mapping[str, int]
    left_out: Mapping[str, str]


def propose(concepts: Sequence[Concept], ground: Grounding, limits: Limits) -> Proposal:
    """The ontology for what was tagged. `ground` has a column a concept, and an image for each that the concepts count.

    Raises OntologyError where no class is left.
    """
    sieve = _Sieve(concepts, ground, limits.threshold)
    sieve.drop_what_is_no_object()
    sieve.join_same_things()
    sieve.drop_general_words()
    sieve.drop_worse_names()
    spare = sieve.drop_rare_ones(limits)
    if not sieve.concepts:
        reasons = [f"{name}: {reason}" for name, reason in list(sieve.left_out.items())[:_SHOWN]]
        raise OntologyError(
            f"none of the {len(concepts)} things that were tagged in {len(ground.best)} images became a class; lower "
            "--min-images or --box-threshold, or try another tagger" + "".join(f"\n  {line}" for line in reasons)
        )
    names = [concept.name for concept in sieve.concepts]
    negatives = sieve.negatives(spare)
    specs, evidence = [], []
    for column, concept in enumerate(sieve.concepts):
        chosen, why = separating_threshold(sieve.ground.best[:, column], concept.images, limits.threshold)
        specs.append(ClassSpec(concept.name, concept.words, chosen))
        boxes = sieve.ground.named(limits.threshold)[:, column] & np.isin(sieve.ground.image, list(concept.images))
        images = sieve.ground.images_of(boxes)
        evidence.append(Evidence(len(concept.images), int(boxes.sum()), len(images), why))
    exclusive = [tuple(names[column] for column in group) for group in sieve.confused()]
    order = {concept.name: place for place, concept in enumerate(concepts)}
    left_out = dict(sorted(sieve.left_out.items(), key=lambda item: order[item[0]]))
    return Proposal(Ontology(tuple(specs), tuple(negatives), tuple(exclusive)), tuple(evidence), negatives, left_out)


def separating_threshold(best: Float32, tagged: frozenset[int], default: float) -> tuple[float | None, str]:
    """The threshold that tells images with a tag from those without by their best box, and why; None to keep the default.

    It is the one at which the share of tagged images that reach it is furthest above that of the others; of equal ones the
    nearest to the default. `best` (images,) has the scores, `tagged` the places of the tagged ones.
    """
    with_tag = np.isin(np.arange(len(best)), list(tagged))
    if min(with_tag.sum(), (~with_tag).sum()) < FEWEST_IMAGES:
        return None, "default threshold (too few images with it, or without)"

    def told(threshold: float) -> float:
        return float((best[with_tag] >= threshold).mean() - (best[~with_tag] >= threshold).mean())

    tried = [k / 100 for k in range(max(1, round(100 * default / FURTHEST)), min(99, round(100 * default * FURTHEST)) + 1)]
    chosen = max(tried, key=lambda threshold: (round(told(threshold), 6), -abs(threshold - default)))
    if told(chosen) < told(default) + WORTH:
        return None, "default threshold"
    shown = [[int((best[group] >= at).sum()) for group in (with_tag, ~with_tag)] for at in (chosen, default)]
    return chosen, (
        f"threshold {chosen:.2f}: reached in {shown[0][0]} of {with_tag.sum()} tagged images and in {shown[0][1]} of "
        f"{(~with_tag).sum()} others (at {default:g} in {shown[1][0]} and {shown[1][1]})"
    )


def images_text(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


class _Sieve:
    """The concepts that still stand, a column of `ground` each, and why the others do not."""

    def __init__(self, concepts: Sequence[Concept], ground: Grounding, threshold: float) -> None:
        self.concepts, self.ground, self._threshold = list(concepts), ground, threshold
        self.left_out: dict[str, str] = {}
        self._spare_scores = ground.scores[:, :0]

    def drop_what_is_no_object(self) -> None:
        reasons: dict[int, str] = {}
        for column, concept in enumerate(self.concepts):
            tagged = sorted(concept.images)
            found = [place for place in tagged if self.ground.best[place, column] >= self._threshold]
            if len(found) < max(1, FOUND_SHARE * len(tagged)):
                reasons[column] = f"the detector finds it in {len(found)} of {images_text(len(tagged))} with this tag"
            elif np.median(self.ground.area[found, column]) >= SCENE_AREA:
                reasons[column] = f"it fills the picture in most of {images_text(len(found))} where the detector finds it"
        self._drop(reasons)

    def join_same_things(self) -> None:
        """Words that share nearly all their boxes are one concept, under the name of the one with most images."""
        same = self.ground.shares(self._threshold) >= SAME_SHARE
        enough = self.ground.counts(self._threshold) >= FEWEST_BOXES
        groups: list[list[int]] = []
        for column in range(len(self.concepts)):  # the most frequent ones first
            home = next((group for group in groups if same[column, group[0]] and same[group[0], column]), None)
            if home is None or not enough[column] or not enough[home[0]]:
                groups.append([column])
            else:
                home.append(column)
        for group in groups:
            for other in group[1:]:
                self.left_out[self.concepts[other].name] = f"the same boxes as {self.concepts[group[0]].name}: a prompt of it"
                self.concepts[group[0]] = self.concepts[group[0]].with_other(self.concepts[other])
        self.concepts = [self.concepts[group[0]] for group in groups]
        self.ground = self.ground.together(groups)

    def drop_general_words(self) -> None:
        """A word whose boxes are nearly all those of two or more others that it covers: `animal`, of dogs and cats."""
        shares, counts = self.ground.shares(self._threshold), self.ground.counts(self._threshold)
        hits = self.ground.scores >= self._threshold
        reasons: dict[int, str] = {}
        for column in range(len(self.concepts)):
            covered = [
                other
                for other in range(len(self.concepts))
                if other != column
                and counts[other] >= FEWEST_BOXES
                and shares[other, column] >= SAME_SHARE > shares[column, other]
                and other not in reasons
            ]
            if len(covered) > 1 and hits[hits[:, column]][:, covered].any(axis=1).mean() >= SAME_SHARE:
                reasons[column] = f"a general word for {_listed(self.concepts[other].name for other in covered)}"
        self._drop(reasons)

    def drop_worse_names(self) -> None:
        """What is hardly ever the best name of its own boxes."""
        hits, named = self.ground.scores >= self._threshold, self.ground.named(self._threshold)
        reasons: dict[int, str] = {}
        for column in range(len(self.concepts)):
            own = hits[:, column]
            if named[own, column].mean() < 1 - SAME_SHARE:
                others = named[own].sum(axis=0)
                others[column] = 0
                better = int(others.argmax())
                reasons[column] = f"its boxes are better named by other words, most of them {self.concepts[better].name}"
        self._drop(reasons)

    def drop_rare_ones(self, limits: Limits) -> list[Concept]:
        """Keep those in enough images, and of them the most frequent; gives the concepts that are left out for it."""
        named = self.ground.named(self._threshold)
        images = [len(self.ground.images_of(named[:, column]) & concept.images) for column, concept in enumerate(self.concepts)]
        first = sorted(range(len(images)), key=lambda column: (-images[column], self.concepts[column].name))
        kept = [column for column in first if images[column] >= limits.min_images][: limits.max_classes]
        spare = [column for column in first if column not in kept]
        reasons = {
            column: f"in {images_text(images[column])}, fewer than {limits.min_images}"
            if images[column] < limits.min_images
            else f"beyond the {limits.max_classes} most frequent classes (in {images_text(images[column])})"
            for column in spare
        }
        rare = [self.concepts[column] for column in spare]
        self._spare_scores = self.ground.scores[:, spare]
        self._drop(reasons, kept)
        return rare

    def negatives(self, spare: Sequence[Concept]) -> dict[str, int]:
        """Of the concepts left out for being rare those that would be labelled as a class: how many boxes each takes from one."""
        best_class = self.ground.scores.max(axis=1, initial=0)
        taken: dict[str, int] = {}
        for column, concept in enumerate(spare):
            stronger = (best_class >= self._threshold) & (self._spare_scores[:, column] > best_class)
            taken[concept.name] = int((stronger & np.isin(self.ground.image, list(concept.images))).sum())
        worst = sorted((name for name in taken if taken[name] >= FEWEST_TAKEN), key=lambda name: (-taken[name], name))
        return {name: taken[name] for name in worst[:MOST_NEGATIVES]}

    def confused(self) -> list[list[int]]:
        """Groups of classes, as columns, of which one object is sometimes taken for the other."""
        shares, counts = self.ground.shares(self._threshold), self.ground.counts(self._threshold)
        group_of = list(range(len(self.concepts)))
        for one, other in combinations(range(len(self.concepts)), 2):
            if max(shares[one, other], shares[other, one]) >= CONFUSED_SHARE and min(counts[one], counts[other]) >= FEWEST_BOXES:
                old, new = group_of[other], group_of[one]
                group_of = [new if group == old else group for group in group_of]
        groups = [[column for column, group in enumerate(group_of) if group == head] for head in dict.fromkeys(group_of)]
        return [group for group in groups if len(group) > 1]

    def _drop(self, reasons: Mapping[int, str], order: Sequence[int] | None = None) -> None:
        for column, reason in reasons.items():
            self.left_out[self.concepts[column].name] = reason
        kept = [column for column in (range(len(self.concepts)) if order is None else order) if column not in reasons]
        self.concepts = [self.concepts[column] for column in kept]
        self.ground = self.ground.together([[column] for column in kept])


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
