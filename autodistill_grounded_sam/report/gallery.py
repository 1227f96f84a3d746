"""The pictures of a page with the words below them, in the order in which they are worth their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isnan
from typing import NamedTuple

from autodistill_grounded_sam.report.facts import Measured, RunFacts
from autodistill_grounded_sam.report.gathering import Gathered
from autodistill_grounded_sam.report.pictures import Picture, draw_pictures
from autodistill_grounded_sam.report.samples import Example, Kind
from autodistill_grounded_sam.types import Reason, State

SHOWN_CLASSES = 96  # of more, the ones with most labels
TITLES: Mapping[Kind, tuple[str, str]] = {
    Kind.RANDOM: ("At random", "stands for all"),
    Kind.BEST: ("Best", "highest score"),
    Kind.JUST_KEPT: ("Just kept", "right above the threshold"),
    Kind.JUST_MISSED: ("Just missed", "right below it: no label"),
    Kind.DOUBTFUL: ("Doubtful", "another class is near, or mask and box disagree"),
}
TRUSTED_TITLES = {Kind.BEST: ("Best", "highest trust"), Kind.DOUBTFUL: ("Doubtful", "lowest trust")}


class Shot(NamedTuple):
    """A picture, or None where there is none any more; `title` says all in a line, `details` in pairs."""

    picture: Picture | None
    caption: str
    title: str
    details: tuple[tuple[str, str], ...]


class Group(NamedTuple):
    title: str
    hint: str
    shots: Sequence[Shot]


@dataclass(frozen=True)
class Gallery:
    """`classes` by class id: only those that are shown. `left_out` pictures had no room, or their images are gone."""

    classes: Mapping[int, Sequence[Group]]
    dropped: Mapping[Reason, Sequence[Shot]]
    whole: Mapping[State, Sequence[Shot]]
    pairs: Sequence[tuple[Shot, Shot]]
    asked: Sequence[Shot]
    left_out: int
    trusted: bool

    @staticmethod
    def of(run: RunFacts, gathered: Gathered, measured: Measured, shown: int, budget_bytes: int) -> Gallery:
        names = run.ontology.class_names
        most = sorted(range(len(names)), key=lambda one: (-int(gathered.labels[one]), one))[:SHOWN_CLASSES]
        groups = {one: _without_repeats({kind: gathered.examples[kind][one] for kind in Kind}, shown) for one in sorted(most)}
        pairs, asked = measured.copies.pairs, measured.asked.examples
        lists = [
            [example for pair in pairs for example in pair],
            *gathered.dropped.values(),
            *gathered.whole.values(),
            *(examples for of_class in groups.values() for examples in of_class.values()),
        ]
        ranked = [*asked, *_ranked(lists)]
        pictures = {id(one): picture for one, picture in zip(ranked, draw_pictures(ranked, budget_bytes), strict=True)}

        def shots(examples: Iterable[Example]) -> tuple[Shot, ...]:
            return tuple(_shot(one, pictures[id(one)], names) for one in examples)

        trusted = any(one.trust is not None for of_class in gathered.examples[Kind.BEST] for one in of_class)
        titles = {**TITLES, **TRUSTED_TITLES} if trusted else TITLES
        return Gallery(
            {one: [Group(*titles[kind], shots(some)) for kind, some in kinds.items() if some] for one, kinds in groups.items()},
            {reason: shots(some) for reason, some in gathered.dropped.items()},
            {state: shots(some) for state, some in gathered.whole.items()},
            [(first, second) for pair in pairs for first, second in [shots(pair)]],
            shots(asked),
            sum(picture is None for picture in pictures.values()),
            trusted,
        )


def _without_repeats(kinds: Mapping[Kind, Sequence[Example]], shown: int) -> dict[Kind, list[Example]]:
    """`shown` of each kind. Of few labels all would be drawn, best and doubtful at once: each is shown where it comes first."""
    seen: set[object] = set()
    told: dict[Kind, list[Example]] = {}
    for kind, examples in kinds.items():
        told[kind] = [one for one in examples if (one.image.id, one.shape and one.shape.xyxy) not in seen][:shown]
        seen.update((one.image.id, one.shape and one.shape.xyxy) for one in told[kind])
    return told


def _ranked(lists: Iterable[Sequence[Example]]) -> Iterator[Example]:
    """The first of every list, then the second of every list, and so on."""
    return (one for row in zip_longest(*lists) for one in row if one is not None)


def _shot(example: Example, picture: Picture | None, names: Sequence[str]) -> Shot:
    details = [("file", example.image.id), ("image", f"{example.image.width} x {example.image.height}")]
    if example.shape is None:
        if isnan(example.score):  # one of a pair that looks alike: what is in it was not looked up
            return Shot(picture, "", example.image.id, tuple(details))
        details.insert(1, ("best candidate", f"{example.score:.2f}"))
        count = len(example.neighbours)
        held = f"{count} label{'' if count == 1 else 's'}" if count else "no label"
        return Shot(picture, "", f"{example.image.id}: {held}", tuple(details))
    name = names[example.class_id]
    x1, y1, x2, y2 = example.shape.xyxy
    more = [("score", f"{example.score:.3f}"), ("margin", f"{example.margin:.3f}")]
    more += [] if example.trust is None else [("trust", f"{example.trust:.3f}")]
    more += [("box", f"{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}")]
    more += [] if example.reason is Reason.KEPT else [("dropped as", example.reason.value)]
    title = f"{name}, score {example.score:.2f}, {example.image.id}"
    caption = f"{example.score:.2f}" if example.trust is None else f"{example.score:.2f} · {example.trust:.2f}"
    return Shot(picture, caption, title, (("class", name), *more, *details))
