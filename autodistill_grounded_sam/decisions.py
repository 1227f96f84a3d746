"""The cheap half of a run: its last decision on disk, labels from what was seen, and datasets from those labels."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, checked
from autodistill_grounded_sam.decide.chain import decide_many
from autodistill_grounded_sam.decide.reviewed import apply_reviews
from autodistill_grounded_sam.errors import ConfigError, WrongRunError
from autodistill_grounded_sam.export.formats import export_dataset, take_dataset_away
from autodistill_grounded_sam.export.split import plan_splits
from autodistill_grounded_sam.images import dataset_stems
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.places import is_remote, place
from autodistill_grounded_sam.quality.calibration import Calibration
from autodistill_grounded_sam.quality.facts import FACTS, facts_of
from autodistill_grounded_sam.reviews import FILE as REVIEWS_FILE
from autodistill_grounded_sam.reviews import Review, read_reviews
from autodistill_grounded_sam.store.files import write_json
from autodistill_grounded_sam.store.store import Store, read_json
from autodistill_grounded_sam.types import (
    REASONS,
    Candidates,
    DatasetSummary,
    ImageRecord,
    Labels,
    Reason,
    Sighting,
    Split,
    State,
)

REVIEW_FOLDER = "review"  # of a dataset: its images that wait for review, as a dataset of the same format
REPORT_FILE = "report.html"  # beside the run; its head says of which decision it is
DECIDED_AT_ONCE = 64  # images; together they are decided several times as quick as one by one, and hardly quicker beyond


@dataclass(frozen=True)
class LastDecision:
    """What `decide.json` remembers: the settings used last, and the formats that were written with the key of their settings.

    The format in `main` lies in the output folder itself, every other in a folder of its name in it.
    """

    decide: DecideConfig = field(default_factory=DecideConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    ontology: Mapping[str, Any] | None = None
    main: str = ""
    written: Mapping[str, str] = field(default_factory=dict)
    images: str = ""  # where they were said to be now, if they moved

    @staticmethod
    def of(store: Store) -> LastDecision:
        path = store.run / "decide.json"
        if not path.exists():
            return LastDecision()
        content = read_json(path)
        export = content.get("export", {})
        formats = tuple(export.get("formats", ExportConfig().formats))
        return LastDecision(
            checked(DecideConfig, content.get("decide", {})),
            checked(ExportConfig, {**export, "formats": formats}),
            content.get("ontology"),
            content.get("main", ""),
            content.get("written", {}),
            content.get("images", ""),
        )

    def place(self, out: Path, format_: str, first: str) -> Path:
        """Where a format goes; `first` is the first one asked for, which is `main` if there is none yet."""
        return out if format_ == (self.main or first) else out / format_


@dataclass(frozen=True)
class Decision:
    """A store with the settings that make labels of it, and the place where its images are now."""

    store: Store
    config: DecideConfig
    ontology: Ontology
    images_root: Path
    last: LastDecision
    calibration: Calibration | None = None  # of `quality`; needed where `config.trust` is above 0
    reviews: Mapping[str, Sequence[Review]] = field(default_factory=dict)  # by the digest of the image

    @staticmethod
    def of(run: Path | str, config: DecideConfig | None, ontology: Any, images: Path | str | None) -> Decision:
        """The settings given, or else those used last; raises WrongRunError if the ontology asks for what the run never asked."""
        store = Store(Path(run))
        last = LastDecision.of(store)
        if ontology is None and last.ontology is None:
            raise WrongRunError(f"nothing was decided in {store.run} yet: run `label` again, or `decide` with --ontology")
        words = Ontology.from_document(last.ontology or {}) if ontology is None else Ontology.load(ontology)
        never_asked = [prompt for prompt in words.prompts if prompt not in store.prompts]
        if never_asked:
            raise WrongRunError(
                f"{store.run} was never asked for {words.told(never_asked)}; it was asked for "
                f"{', '.join(map(repr, store.prompts))}. Label into another --out to ask for more"
            )
        moved = bool(last.images) and not store.images_root.is_dir()
        root = place(images) if images is not None else place(last.images) if moved else store.images_root
        config = config or last.decide
        refuse_thresholds_without_scores(store.info["identity"], config, words)
        calibration = read_calibration(store.run, config, words) if config.trust else None
        return Decision(store, config, words, root, last, calibration, read_reviews_of(store.run))

    @staticmethod
    def untrusted(run: Path | str, ontology: Any, images: Path | str | None) -> Decision:
        """As `of` with the settings used last, but for trust: all labels stay."""
        last = LastDecision.of(Store(Path(run))).decide
        return Decision.of(run, last.model_copy(update={"trust": 0.0}), ontology, images)

    def key(self, export: ExportConfig, *, reviews: bool = True) -> str:
        """Stands for everything that a dataset depends on beside what was seen; without `reviews`, before a person's word."""
        facts = {**self._settings(), "split": export.model_dump(mode="json", exclude={"formats"})}
        if self.reviews and reviews:
            facts["reviews"] = sorted(replace(one, time="").line() for own in self.reviews.values() for one in own)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def remember(self, export: ExportConfig | None, formats: tuple[str, ...]) -> dict[str, str]:
        """Write `decide.json` after `formats` were written; returns the key of every format that is on disk."""
        used = export or self.last.export
        written = {**self.last.written, **dict.fromkeys(formats, self.key(used))}
        main = self.last.main or (formats[0] if formats else "")
        content = {**self._settings(), "export": used.model_dump(mode="json"), "main": main, "written": written}
        if str(self.images_root) != str(self.store.images_root):
            content["images"] = str(self.images_root.absolute())
        write_json(self.store.run / "decide.json", content)
        return written

    def notes(self, tally: Tally, export: ExportConfig | None, written: Mapping[str, str]) -> list[str]:
        """What a person should know about this decision."""
        left, least = self.store.not_looked_at(), min(self.config.box_threshold, self.config.text_threshold)
        floor, notes = float(self.store.info["identity"].get("see", {}).get("floor", 0)), []
        if left:
            notes.append(f"{left} images were not looked at yet: run `label` again to go on")
        if self.config.box_threshold < self.config.text_threshold:
            notes.append(f"labels must reach text_threshold {self.config.text_threshold} too, which is above box_threshold")
        if least < floor and max(self.config.box_threshold, self.config.text_threshold) < floor:
            notes.append(f"nothing below {floor} was stored: a lower threshold finds no more")
        if tally.maskless and "masks of" in self.store.info["identity"]:
            notes.append(f"{tally.maskless} candidates have no mask, since the run made masks of kept ones only (--masks kept)")
        waiting, kept = tally.states[State.REVIEW], tally.states[State.LABELLED]
        if waiting > kept:
            why = f"one label below trust {self.config.trust} holds back its whole image"
            command = f"grounded-sam review {self.store.run.parent}"
            notes.append(f"{waiting} of {waiting + kept} images with labels wait, since {why}: lower it, or run `{command}`")
        notes += self._told_of_reviews(tally)
        stale = [name for name, key in written.items() if key != self.key(export or self.last.export)]
        if stale:
            command = f"grounded-sam decide {self.store.run.parent} --format {' --format '.join(stale)}"
            notes.append(f"the dataset on disk ({', '.join(stale)}) is of an earlier decision; `{command}` writes it anew")
        return notes

    def note_on_report(self, export: ExportConfig | None) -> list[str]:
        """That the page of the run is of an earlier decision, where it is."""
        out = self.store.run.parent
        try:
            with (out / REPORT_FILE).open("rb") as file:
                head = file.read(4096)
        except OSError:
            return []
        if b'<meta name="decision"' not in head or self.key(export or self.last.export).encode() in head:
            return []
        return [f"{out / REPORT_FILE} is of an earlier decision; `grounded-sam report {out}` writes it anew"]

    def labelled(self, tally: Tally) -> Iterator[tuple[ImageRecord, Labels]]:
        """Each image that was seen with its labels, in the order of ids, after what a person said of them."""
        for image, _, labels in self.decided(tally):
            if reviews := self.reviews.get(image.digest, ()):
                labels = apply_reviews(labels, reviews, self.ontology, image.width, image.height, self.config.trust)
                tally.reviewed.add(image.digest)
            tally.add(labels)
            yield image, labels

    def decided(self, tally: Tally) -> Iterator[tuple[ImageRecord, Candidates, Labels]]:
        """Each image with its candidates and the labels made of them, without any person's word; some dozens of images at a time
        in memory. Of the tally only the seconds are counted."""
        started = time.perf_counter()
        seen = (
            (sighting.image, self._asked(sighting.candidates))
            for sighting in self.store.sightings(self.images_root)
            if sighting.candidates is not None
        )
        while some := list(islice(seen, DECIDED_AT_ONCE)):
            asked = [(candidates, image.width, image.height) for image, candidates in some]
            for (image, candidates), labels in zip(some, decide_many(asked, self.ontology, self.config), strict=True):
                labels = self._trusted(image, candidates, labels)
                tally.seconds += time.perf_counter() - started
                yield image, candidates, labels
                started = time.perf_counter()

    def label_one(self, sighting: Sighting) -> Labels:
        """As `decided`, of one image that was seen."""
        image, candidates = sighting.image, self._asked(sighting.candidates or Candidates.none(len(self.store.prompts)))
        (labels,) = decide_many([(candidates, image.width, image.height)], self.ontology, self.config)
        return self._trusted(image, candidates, labels)

    def _asked(self, candidates: Candidates) -> Candidates:
        """The candidates with the scores of this ontology's prompts alone."""
        columns = self._columns
        return candidates if columns is None else replace(candidates, scores=candidates.scores[:, columns])

    @cached_property
    def _columns(self) -> list[int] | None:
        """Where the ontology's prompts are among the run's, None if they are the same."""
        columns = [self.store.prompts.index(prompt) for prompt in self.ontology.prompts]
        return None if columns == list(range(len(self.store.prompts))) else columns

    def export(self, format_: str, out: Path, config: ExportConfig, tally: Tally) -> DatasetSummary:
        """Write the labels as a dataset into `out`; raises WrongRunError where the images are gone, ExportError as writers do."""
        self.require_images()
        require_apart(self.images_root, out)
        writer = plugins.find("formats", format_).load_class()
        sides, stems, notes = self.plan(config)
        left = self.store.not_looked_at()
        unfinished = [f"{left} images of the folder were not looked at yet"] if left else []
        settings: dict[str, Any] = {"stems": stems, "confidence_files": config.confidence_files}
        summary = export_dataset(
            self.labelled(tally), self.ontology.class_names, writer, out, split=lambda image: sides[image.id],
            notes=[*notes, *unfinished], **settings,
        )  # fmt: skip
        waiting = (
            (image, replace(labels, state=State.LABELLED))
            for image, labels in self.labelled(Tally())
            if labels.state is State.REVIEW
        )
        review = out / REVIEW_FOLDER
        if self.calibration is None or (first := next(waiting, None)) is None:
            take_dataset_away(writer, review)
            return summary
        apart = export_dataset(
            chain([first], waiting), self.ontology.class_names, writer, review, split=lambda image: sides[image.id], **settings
        )
        told = f"{sum(apart.images.values())} image(s) with a label below trust {self.config.trust} are in {review}, in no split"
        return replace(summary, notes=[*summary.notes, told])

    def require_images(self) -> None:
        """Raise WrongRunError where the images folder is gone."""
        root = self.images_root
        if not root.is_dir():
            raise WrongRunError(f"the images folder {root} is not there any more; say where it is now (images=, --images)")

    def _trusted(self, image: ImageRecord, candidates: Candidates, labels: Labels) -> Labels:
        """The labels with their trust; an image waits for review with all its labels if one is not trusted: neither may that one
        be taught, nor its object be taught as background."""
        if self.calibration is None:
            return labels
        trust = self.calibration.trust(facts_of(candidates, labels, image.width, image.height), labels.class_id)
        doubtful = bool((trust < self.config.trust).any())
        return replace(labels, trust=trust, state=State.REVIEW if doubtful else labels.state)

    def _told_of_reviews(self, tally: Tally) -> list[str]:
        """How many decisions of a person were applied, of each kind, and how many could not be."""
        if not self.reviews:
            return []
        names = {"", *self.ontology.class_names}
        counts = Counter(one.verdict for digest in tally.reviewed for one in self.reviews[digest])
        told = [", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"]
        changed = sum(len(own) for digest, own in self.reviews.items() if digest not in tally.reviewed)
        unknown = sum(one.class_name not in names for digest in tally.reviewed for one in self.reviews[digest])
        told += [f"{changed} of images that changed or are gone say nothing"] * bool(changed)
        told += [f"{unknown} of classes that the ontology does not have say nothing"] * bool(unknown)
        return [f"reviews applied: {'; '.join(told)}"]

    def plan(self, config: ExportConfig) -> tuple[Mapping[str, Split], Mapping[str, str], Sequence[str]]:
        """Side and file stem of every image by its id, and notes on the split. What was read for them is not kept: of millions
        of images it is most of the memory."""
        records: list[ImageRecord] = []
        hashes: list[int | None] = []
        for image, dhash in self.store.seen():
            records.append(image)
            hashes.append(dhash)
        split = plan_splits(records, config.valid, seed=config.seed, group=config.group_by == "auto", hashes=hashes)
        ids = [image.id for image in records]
        del records, hashes
        kept = read_splits(self.store.run)
        if not kept:
            return split.split, dataset_stems(ids), split.notes
        note = f"images keep the side that the imported dataset has them on; remove {self.store.run / SPLITS_FILE} to split anew"
        return {**split.split, **kept}, dataset_stems(ids), [note]

    def _settings(self) -> dict[str, Any]:
        settings = {"decide": self.config.model_dump(mode="json"), "ontology": self.ontology.document()}
        return settings if self.calibration is None else {**settings, "calibration": self.calibration.document()}


SPLITS_FILE = "splits.json"


def write_splits(run: Path, split: Mapping[str, Split]) -> None:
    """Store with the run the sides on which its images stay, by id: those of a dataset that was imported."""
    write_json(run / SPLITS_FILE, dict(split))


def read_splits(run: Path) -> dict[str, Split]:
    return {} if not (run / SPLITS_FILE).is_file() else read_json(run / SPLITS_FILE)


class Tally:
    """Counts that go along with the one pass over the labels; `seconds` without the time of whoever takes them."""

    def __init__(self) -> None:
        self.states: Counter[State] = Counter()
        self.classes: Counter[int] = Counter()
        self.maskless = 0
        self.reviewed: set[str] = set()  # digests of images of which a person said something
        self.seconds = 0.0

    def add(self, labels: Labels) -> None:
        self.states[labels.state] += 1
        self.classes.update(labels.class_id.tolist())
        self.maskless += int((labels.reasons == _NO_MASK).sum())


def read_reviews_of(run: Path) -> dict[str, list[Review]]:
    """What a person said of the images of a run, by their digest; raises DatasetError for a damaged line."""
    found: defaultdict[str, list[Review]] = defaultdict(list)
    for review in read_reviews(run / REVIEWS_FILE) if (run / REVIEWS_FILE).exists() else ():
        found[review.digest].append(review)
    return dict(found)


QUALITY_FILE = "quality.json"


def write_calibration(decision: Decision, calibration: Calibration, figures: Mapping[str, Any]) -> None:
    """Store with the run what `quality` learnt of this decision, and of which decision it did."""
    content = {**decision._settings(), "calibration": calibration.document(), "quality": figures}
    write_json(decision.store.run / QUALITY_FILE, content)


def read_calibration(run: Path, config: DecideConfig, ontology: Ontology) -> Calibration:
    """The calibration that `quality` stored with the run; raises WrongRunError if there is none, or one of another decision:
    what other thresholds or words let in was not measured."""
    path = run / QUALITY_FILE
    if not path.is_file():
        raise WrongRunError(
            f"trust needs to know how likely labels are right, and {path} is not there: measure it on some labelled images with "
            f"`grounded-sam quality {run.parent} --truth COCO.json`"
        )
    content = read_json(path)
    measured = checked(DecideConfig, content.get("decide", {}))
    same = "ontology" in content and measured == config.model_copy(update={"trust": measured.trust})
    if not same or Ontology.from_document(content["ontology"]) != ontology:
        raise WrongRunError(
            f"{path} was measured for another decision (other thresholds, settings or ontology) and says nothing of the labels "
            f"of this one: decide with these settings at trust 0 (`grounded-sam decide {run.parent} ... --trust 0`), "
            "run `quality` again, and then decide with trust"
        )
    if content["calibration"]["facts"] != list(FACTS):
        raise WrongRunError(f"{path} was measured by an older version that knew less of a label: run `quality` again")
    return Calibration.from_document(content["calibration"])


_NO_MASK = REASONS.index(Reason.MASK)


def refuse_thresholds_without_scores(identity: Mapping[str, Any], config: DecideConfig, ontology: Ontology) -> None:
    """Raise ConfigError where a threshold is set that a run's detector, which gives no scores, could not heed."""
    detector = identity["detector"]
    if detector.get("scores", True):
        return
    usual = DecideConfig()
    set_ = [name for name in ("box_threshold", "text_threshold") if getattr(config, name) != getattr(usual, name)]
    set_ += [f"box_threshold of class {one.name!r}" for one in ontology.classes if one.box_threshold is not None]
    if set_:
        raise ConfigError(
            f"the detector {detector['name']} says what is there and not how sure it is: all that it finds scores 1, so "
            f"{', '.join(set_)} would change nothing; leave it out, or take a detector with scores"
        )


def require_apart(images: Path, out: Path) -> None:
    """Neither may the dataset lie among the images, nor the images in what the dataset replaces; raises ConfigError."""
    if is_remote(images):
        return
    source, target = images.resolve(), out.resolve()
    if target.is_relative_to(source):
        raise ConfigError(
            f"the output folder {out} must not lie in the images folder {images}: its images would be labelled next time"
        )
    if source.is_relative_to(target) and source.relative_to(target).parts[0] in ("train", "valid", "run", REVIEW_FOLDER):
        raise ConfigError(
            f"the images folder {images} must not lie in the dataset {out}, which is replaced when it is written: "
            "give another --out, or copy the images elsewhere"
        )
