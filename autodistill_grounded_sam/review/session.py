"""What the page can ask: the next stops, a picture, a decision, undo. Plain data in and out; `server` carries it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam.decide.reviewed import apply_reviews, closed_classes, match_reviews, without_a_word
from autodistill_grounded_sam.drawing import PALETTE
from autodistill_grounded_sam.errors import DatasetError
from autodistill_grounded_sam.images import read_labelled, upright_bytes
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.review.merging import check_review
from autodistill_grounded_sam.review.outlines import outline
from autodistill_grounded_sam.review.queue import Queue
from autodistill_grounded_sam.reviews import OF_IMAGES, Key, Review, Verdict, append_reviews, parse_review, standing
from autodistill_grounded_sam.store.files import disk_errors
from autodistill_grounded_sam.store.lookup import Lookup
from autodistill_grounded_sam.types import REASONS, ImageRecord, Labels, Reason, RgbImage, Rle, Sighting

Segment = Callable[[RgbImage, tuple[float, float, float, float]], "Rle | None"]

SIDES_PX = (1600, 4096)  # of the pictures that are sent: for a screen, and for looking closely
PICTURES_IN_MEMORY, IMAGES_IN_MEMORY = 24, 64
JPEG_QUALITY = 90
_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_DUPLICATE = REASONS.index(Reason.DUPLICATE)
_MIME = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}


@dataclass(frozen=True)
class Material:
    """A run as the page needs it: `decide` makes the labels of what was seen, without any person's word; `segment` a mask of a
    box (None where the run has no masks); `file` is the reviews.jsonl to append to; `trust` that below which an image waits."""

    name: str
    lookup: Lookup
    queue: Queue
    ontology: Ontology
    decide: Callable[[Sighting], Labels]
    segment: Segment | None
    file: Path
    said: Mapping[str, Sequence[Review]] = field(default_factory=dict)
    trust: float = 0.0


@dataclass(frozen=True)
class _Step:
    """What undo takes back: at which stop, and what stood before of each key that was decided."""

    stop: int
    image: int
    before: Mapping[Key, Review | None]


class Session:
    """One open page. Every decision is on the disk before it is answered; safe to use from several threads."""

    def __init__(self, material: Material) -> None:
        self._run, self._lock, self._steps = material, threading.Lock(), list[_Step]()
        self._said: dict[str, tuple[Review, ...]] = {digest: tuple(own) for digest, own in material.said.items()}
        self._stops_of: dict[str, list[int]] = {}
        for stop, image in enumerate(material.queue.image.tolist()):
            self._stops_of.setdefault(material.lookup.digests[image], []).append(stop)
        self._left = np.diff(material.queue.start).astype(np.int32)  # entries of each stop that are not decided yet
        self._total = int(self._left.sum())
        for digest in self._said:
            self._count(digest)
        self._latest = max((review.when for own in self._said.values() for review in own), default=_EPOCH)
        self._picture = lru_cache(PICTURES_IN_MEMORY)(self._draw)
        self._decided = lru_cache(IMAGES_IN_MEMORY)(self._decide_anew)

    def about(self) -> dict[str, Any]:
        """What does not change while the page is open."""
        return {
            "name": self._run.name, "classes": list(self._run.ontology.class_names), "total": self._total,
            "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in PALETTE],
            "segments": self._run.segment is not None, "sides": list(SIDES_PX), **self._progress(),
        }  # fmt: skip

    def stops(self, after: int, count: int, *, every: bool = False, back: bool = False) -> dict[str, Any]:
        """The next `count` stops after (or before, `back`) stop `after` at which something is left to decide, or `every` one."""
        wanted = np.flatnonzero((self._left > 0) | every)
        at = int(np.searchsorted(wanted, after, side="left" if back else "right"))
        chosen = wanted[max(0, at - count) : at][::-1] if back else wanted[at : at + count]
        return {"stops": [self.stop(int(stop)) for stop in chosen], **self._progress()}

    def stop(self, stop: int) -> dict[str, Any]:
        """A stop: its image, and the numbers of the labels that are to be judged there."""
        queue = self._run.queue
        if not 0 <= stop < len(queue):
            raise DatasetError(f"there are {len(queue)} stops, got {stop}")
        labels = [number for number in queue.label[queue.entries(stop)].tolist() if number >= 0]
        return {"stop": stop, "labels": labels, "image": self.image(int(queue.image[stop]))}

    def image(self, number: int) -> dict[str, Any]:
        """An image with its labels as they stand now, and what a person said of each."""
        sighting, labels = self._decided(number)
        image, said = sighting.image, self._said.get(self._digest(number), ())
        ontology = self._run.ontology
        after = apply_reviews(labels, said, ontology, image.width, image.height, self._run.trust)
        owner = match_reviews(labels, said, ontology).tolist()
        shown = [
            self._label(place, labels, said[review] if review >= 0 else None)
            for place, review in enumerate(owner)
            if review >= 0 or after.reasons[labels.candidate[place]] != _DUPLICATE
        ]
        shown += [
            self._drawn(review)
            for place, review in enumerate(said)
            if place not in owner and review.stands is not None and review.stands[1] in ontology.class_names
        ]
        closed = closed_classes(said, ontology).all()  # a class that came later was not asked about
        word = next((review.verdict for review in said if review.verdict in OF_IMAGES and closed), None)
        return {
            "number": number, "id": image.id, "width": image.width, "height": image.height, "verdict": word,
            "state": after.state.value, "labels": shown,
        }  # fmt: skip

    def picture(self, number: int, side: int) -> tuple[bytes, str]:
        """The image for the screen, its longer side at most `side` (of SIDES_PX) pixels, and its media type."""
        if side not in SIDES_PX:
            raise DatasetError(f"pictures are of {SIDES_PX} pixels, got {side}")
        self._digest(number)
        return self._picture(number, side)

    def decide(self, stop: int, number: int, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Take a decision: `wish` holds verdict, xyxy, class, to_xyxy and to_class as a line of reviews.jsonl does."""
        with self._lock:
            image, (sighting, labels) = self.image(number), self._decided(number)
            lines = self._lines(sighting.image, image, labels, wish)
            digest = sighting.image.digest
            had = {review.key: review for review in self._said.get(digest, ())}
            keys = {review.key for review in lines}
            if "empty" in {wish.get("verdict"), *(had[key].verdict for key in keys & had.keys())}:
                keys |= had.keys()  # all of which `empty` voids, now or when it is said again by undo
            self._append(digest, lines)
            self._steps.append(_Step(stop, number, {key: had.get(key) for key in keys}))
        return {"image": self.image(number), **self._progress()}

    def undo(self) -> dict[str, Any]:
        """Take the last decision back; `stop` is where it was taken, None if there is none."""
        with self._lock:
            if not self._steps:
                return {"stop": None, **self._progress()}
            step, now = self._steps[-1], self._now()
            record = self._run.lookup[step.image].image
            gone = [Review(record.id, *key, "withdrawn", now) for key, before in step.before.items() if before is None]
            back = [replace(before, time=now) for before in step.before.values() if before is not None]
            back.sort(key=lambda review: review.xyxy is not None)  # `empty` voids what stands before it
            self._append(record.digest, [*gone, *back])
            self._steps.pop()
        return {**self.stop(step.stop), "image": self.image(step.image), **self._progress()}

    def mask(self, number: int, xyxy: Sequence[float], class_name: str) -> dict[str, Any]:
        """Give the object that a person drew (its key) the mask that the run's segmenter makes of its box."""
        digest, segment = self._digest(number), self._run.segment
        review = self._drawn_at(digest, xyxy, class_name)
        if segment is None or review is None or review.stands is None:
            return {"image": self.image(number), "masked": False, **self._progress()}
        image = self._run.lookup[number].image
        rle = segment(read_labelled(image), review.stands[0])
        with self._lock:
            if rle is not None and self._drawn_at(digest, xyxy, class_name) == review:  # not undone meanwhile
                self._append(digest, [replace(review, mask=rle, time=self._now())])
        return {"image": self.image(number), "masked": rle is not None, **self._progress()}

    def _lines(self, record: ImageRecord, image: Mapping[str, Any], labels: Labels, wish: Mapping[str, Any]) -> list[Review]:
        """The lines that a decision makes; raises DatasetError for one that is none."""
        row = {
            "xyxy": None,
            "class": None,
            **wish,
            "image": record.id,
            "digest": record.digest,
            "time": self._now(),
            "mask": None,
        }
        names = self._run.ontology.class_names
        review = parse_review(json.dumps(row), "the decision")
        check_review(review, record.width, record.height, "the decision")
        unknown = [name for name in (review.class_name, review.to_class) if name and name not in names]
        if unknown:
            raise DatasetError(f"there is no class {unknown[0]!r}; there are {', '.join(names)}")
        said = self._said.get(record.digest, ())
        shown = [label for label in image["labels"] if label["verdict"] != "rejected"]
        if review.verdict in OF_IMAGES:
            verdict: Verdict = "accepted" if review.verdict == "complete" else "rejected"
            undecided = [label for label in shown if label["verdict"] is None or verdict == "rejected"]
            each = [
                replace(review, xyxy=tuple(label["key"]), class_name=label["key_class"], verdict=verdict) for label in undecided
            ]
            return [replace(review, classes=names), *(self._with_mask(one, labels) for one in each)]
        review = self._with_mask(review, labels)
        reopened = any(one.verdict == "empty" for one in said) and review.stands is not None
        closing = Review(record.id, record.digest, None, "", "complete", review.time, classes=names)
        return [review, closing] if reopened else [review]

    def _with_mask(self, review: Review, labels: Labels) -> Review:
        """A review of an object that stays where it was keeps its mask, or that of the label, which may be none one day."""
        if review.stands is None or labels.rle is None:
            return review
        before = self._drawn_at(review.digest, review.xyxy or (), review.class_name)
        if before is not None and before.mask is not None and before.stands and before.stands[0] == review.stands[0]:
            return replace(review, mask=before.mask)
        if review.to_xyxy is not None:
            return review
        owner = match_reviews(labels, [review], self._run.ontology)
        return replace(review, mask=labels.rle[int(owner.argmax())]) if (owner >= 0).any() else review

    def _append(self, digest: str, lines: Sequence[Review]) -> None:
        with disk_errors(self._run.file):
            append_reviews(self._run.file, lines)
        self._said[digest] = tuple(standing([*self._said.get(digest, ()), *lines]))
        self._count(digest)

    def _now(self) -> str:
        """The time, later than that of all decisions so far even if the clock was set back: the latest one counts."""
        self._latest = max(datetime.now(timezone.utc), self._latest + timedelta(milliseconds=1))
        return self._latest.isoformat(timespec="milliseconds")

    def _count(self, digest: str) -> None:
        """How many entries are left at each stop of the image of these bytes, or of each of its twins."""
        queue, said, ontology = self._run.queue, self._said[digest], self._run.ontology
        found = any(review.stands is not None for review in said)
        stops_of: dict[int, list[int]] = {}
        for stop in self._stops_of.get(digest, ()):
            stops_of.setdefault(int(queue.image[stop]), []).append(stop)
        for stops in stops_of.values():
            own = np.concatenate([np.arange(queue.start[stop], queue.start[stop + 1]) for stop in stops])
            if queue.label[own[0]] < 0:  # there is no label: does it hold nothing?
                left = np.array([not found and not closed_classes(said, ontology).all()])
            else:
                left = without_a_word(queue.class_id[own], queue.xyxy[own], said, ontology)
            of_stop = np.repeat(np.arange(len(stops)), np.diff(queue.start)[stops])
            self._left[stops] = np.bincount(of_stop[left], minlength=len(stops))

    def _progress(self) -> dict[str, int]:
        return {"left": int(self._left.sum()), "undo": len(self._steps)}

    def _decide_anew(self, number: int) -> tuple[Sighting, Labels]:
        self._digest(number)
        sighting = self._run.lookup[number]
        return sighting, self._run.decide(sighting)

    def _digest(self, number: int) -> str:
        if not 0 <= number < len(self._run.lookup):
            raise DatasetError(f"there are {len(self._run.lookup)} images, got {number}")
        return self._run.lookup.digests[number]

    def _drawn_at(self, digest: str, xyxy: Sequence[float], class_name: str) -> Review | None:
        box = tuple(float(edge) for edge in xyxy)
        return next((one for one in self._said.get(digest, ()) if one.xyxy == box and one.class_name == class_name), None)

    def _label(self, place: int, labels: Labels, review: Review | None) -> dict[str, Any]:
        """A label for the page: its key, where and what it is now, and what was said of it."""
        names = self._run.ontology.class_names
        xyxy, name = [round(float(edge), 2) for edge in labels.xyxy[place]], names[labels.class_id[place]]
        shown = {
            "number": place, "key": xyxy, "key_class": name, "xyxy": xyxy, "class": name, "verdict": None,
            "score": round(float(labels.score[place]), 3),
            "trust": None if labels.trust is None else round(float(labels.trust[place]), 3),
            "path": "" if labels.rle is None else outline(labels.rle[place]),
        }  # fmt: skip
        if review is None:
            return shown
        now = self._drawn(review)
        kept = {} if review.to_xyxy is not None or review.verdict == "added" else {"path": shown["path"]}
        if review.stands is None:
            kept = {"xyxy": xyxy, "class": name, "path": shown["path"]}
        return {**shown, **now, "number": place, "score": shown["score"], "trust": shown["trust"], **kept}

    def _drawn(self, review: Review) -> dict[str, Any]:
        box, name = review.stands or (review.xyxy or (0.0, 0.0, 0.0, 0.0), review.class_name)
        return {
            "number": None, "key": list(review.xyxy or ()), "key_class": review.class_name, "xyxy": list(box), "class": name,
            "verdict": review.verdict, "score": None, "trust": None,
            "path": "" if review.mask is None else outline(review.mask),
        }  # fmt: skip

    def _draw(self, number: int, side: int) -> tuple[bytes, str]:
        from PIL import Image

        image = self._run.lookup[number].image
        if max(image.width, image.height) <= side:
            content, suffix = upright_bytes(image)
            return content, _MIME[suffix]
        picture = Image.fromarray(read_labelled(image))
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), "image/jpeg"
