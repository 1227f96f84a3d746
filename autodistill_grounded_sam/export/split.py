"""Which side of the split an image falls to: by the hash of its group, so that what looks alike never straddles it.

A group is everything linked by equal bytes, by the name of a recording, or by a picture that is nearly the same. An image's side
depends on its group alone, so adding images moves none of the others (but where a group itself grows or is cut).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import PurePosixPath
from typing import cast

import numpy as np

from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.similar import Places, differing_bits, join, near_groups
from autodistill_grounded_sam.types import ImageRecord, Split

# Neighbouring numbers of one name (IMG_0041, IMG_0042) are one burst if their pictures are this alike: looser, as names agree.
BURST_BITS = 10
# A group with more than this share of all images leaves no sensible split: it is cut into runs of neighbours.
LARGEST_SHARE = 0.5
RUNS = 10

# Names that say "frames of one recording". A camera's own counter (IMG_0041) or a bare number does not: most numbered folders are
# collections, and holding them together would put a whole class or folder on one side.
_FILM = re.compile(r"^(.*?[._-](?:mp4|mov|avi|mkv|webm|m4v|mpe?g|wmv|flv|gif|3gp))(?![a-z0-9])", re.IGNORECASE)
_FRAME = re.compile(
    r"(?<![a-z])(?:videos?|vid|clips?|frames?|frm|footage|movie|seq|sequence|burst|cam(?=[\W_]*\d))(?![a-z]{3})", re.IGNORECASE
)
_NUMBERED = re.compile(r"^(.*?)(\d+)\D{0,3}$")


@dataclass(frozen=True)
class SplitPlan:
    """The side of every image by its id, the number of groups, the share that fell to valid, and what a person should know."""

    split: Mapping[str, Split]
    groups: int
    achieved: float
    notes: tuple[str, ...] = ()

    def __call__(self, image: ImageRecord) -> Split:
        return self.split[image.id]


def split_of(digest: str, valid_fraction: float, seed: int = 0) -> Split:
    """The side of a digest (or any group key): valid with probability `valid_fraction`, the same for ever."""
    return "valid" if _draw(digest, seed) < valid_fraction else "train"


def plan_splits(
    images: Iterable[ImageRecord],
    valid_fraction: float,
    *,
    seed: int = 0,
    group: bool = True,
    hashes: Sequence[int | None] | None = None,
) -> SplitPlan:
    """Put every image of a dataset on a side. `hashes` gives the 64-bit difference hash of each, None where it is not known.

    With two groups or more and a fraction above 0, neither side is empty. `group=False` keeps only byte-identical files together.
    """
    if not 0 <= valid_fraction < 1:
        raise ConfigError(f"valid must be at least 0 and below 1, got {valid_fraction}; it is the share of images for validation")
    images = list(images)
    groups, notes = group_keys(images, hashes) if group else ({image.id: image.digest for image in images}, [])
    keys = set(groups.values())
    valid = {key for key in keys if _draw(key, seed) < valid_fraction}
    if valid_fraction > 0 and len(keys) > 1 and len(valid) in (0, len(keys)):
        order = sorted(keys, key=lambda key: _draw(key, seed))
        valid = set(order[:1] if not valid else order[:-1])
    split = cast(dict[str, Split], groups)
    for image_id, key in groups.items():  # in place: of millions of images a second table would be most of what is held
        split[image_id] = "valid" if key in valid else "train"
    achieved = sum(side == "valid" for side in split.values()) / max(1, len(split))
    if abs(achieved - valid_fraction) > max(0.05, valid_fraction / 4):
        why = f"every image is drawn by its content, and {len(images)} are few"
        if len(keys) < len(images):
            why = f"what looks alike or is of one sequence stays together, so {len(images)} images are {len(keys)} draws"
        notes.append(f"{achieved:.0%} of the images fell to valid, {valid_fraction:.0%} was asked for: {why}")
    return SplitPlan(split, len(keys), achieved, tuple(notes))


def group_keys(images: Sequence[ImageRecord], hashes: Sequence[int | None] | None = None) -> tuple[dict[str, str], list[str]]:
    """The group key of every image by its id, and a note for each group that was too large and had to be cut."""
    order = sorted(range(len(images)), key=lambda place: _natural(images[place].id))
    images = [images[place] for place in order]
    films = [_film_key(image.id) for image in images]
    roots = np.arange(len(images))
    _join_equal(roots, [image.digest for image in images])
    _join_equal(roots, films)
    if hashes:
        _join_near(roots, images, [hashes[place] for place in order])
    groups: dict[str, str] = {}
    notes = []
    # Neighbours in a sorted array: a dict of lists would be a fifth of all that is held for an image.
    for _, members in groupby(np.argsort(roots, kind="stable").tolist(), key=roots.__getitem__):
        places = list(members)
        # the smallest key of a recording, or of the bytes: the same key whatever else is in the folder
        key = min((films[place] for place in places if films[place]), default=min(images[place].digest for place in places))
        runs = [places]
        if len(places) > max(1, LARGEST_SHARE * len(images)):
            runs = _cut(places, images)
        if len(runs) > 1:
            notes.append(
                f"{len(places)} of {len(images)} images are one sequence or look alike ({images[places[0]].id} ...): cut into "
                f"{len(runs)} runs of neighbours, so that there is a split at all; images on both sides of a cut may be alike"
            )
        for number, run in enumerate(runs):
            groups.update({images[place].id: f"{key}/{number}" if len(runs) > 1 else key for place in run})
    return groups, notes


def _cut(places: list[int], images: Sequence[ImageRecord]) -> list[list[int]]:
    """Up to RUNS runs of neighbours by name; byte-identical images stay in the run of the first of them."""
    by_digest: dict[str, list[int]] = {}
    for place in places:
        by_digest.setdefault(images[place].digest, []).append(place)
    units = list(by_digest.values())
    edges = np.linspace(0, len(units), min(RUNS, len(units)) + 1).astype(int).tolist()
    return [[place for unit in units[start:stop] for place in unit] for start, stop in pairwise(edges)]


def _draw(key: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def _film_key(image_id: str) -> str:
    """What the frames of one recording have in common by their names; "" where the name says nothing of a recording."""
    path = PurePosixPath(image_id)
    film = _FILM.match(path.name)
    if film and re.search(r"\d", path.name[film.end() :]):
        return f"{path.parent}/{film[1]}"
    numbered = _NUMBERED.match(path.stem)
    if numbered and _FRAME.search(f"{path.parent.name}/{numbered[1]}"):
        return f"{path.parent}/{numbered[1]}#"
    return ""


def _natural(image_id: str) -> str:
    """A text that sorts frame_2 before frame_10: each number after its count of digits, between marks that no printable id holds.

    One text takes a fifth of the memory that a list of numbers and texts takes, and there is one for every image.
    """
    return re.sub(r"\d+", lambda digits: f"\0{len(number := str(int(digits[0]))):04d}{number}\0", image_id)


def _join_equal(roots: Places, keys: Sequence[str]) -> None:
    """Join all places of one key; "" is no key."""
    first: dict[str, int] = {}
    firsts = [place if key == "" else first.setdefault(key, place) for place, key in enumerate(keys)]
    join(roots, np.array(firsts, np.int64), np.arange(len(keys)))


def _join_near(roots: Places, images: Sequence[ImageRecord], hashes: Sequence[int | None]) -> None:
    known = np.array([place for place, value in enumerate(hashes) if value is not None], np.int64)
    values = np.array([value for value in hashes if value is not None], np.uint64)
    join(roots, known[near_groups(values)], known)
    alike = differing_bits(values[1:], values[:-1]) <= BURST_BITS
    here, there = known[:-1][alike], known[1:][alike]  # `images` are in natural order
    burst = [_are_neighbours(images[a].id, images[b].id) for a, b in zip(here.tolist(), there.tolist(), strict=True)]
    join(roots, here[np.array(burst, np.bool_)], there[np.array(burst, np.bool_)])


def _are_neighbours(first_id: str, second_id: str) -> bool:
    first, second = _NUMBERED.match(PurePosixPath(first_id).stem), _NUMBERED.match(PurePosixPath(second_id).stem)
    same_folder = PurePosixPath(first_id).parent == PurePosixPath(second_id).parent
    return bool(same_folder and first and second and first[1] == second[1] and int(second[2]) - int(first[2]) == 1)
