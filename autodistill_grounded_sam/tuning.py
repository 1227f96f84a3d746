"""`tune`: words, thresholds and duplicate settings from some labelled images, or from what a person accepted and rejected."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.config import DecideConfig, LabelConfig
from autodistill_grounded_sam.datasets import read_dataset
from autodistill_grounded_sam.decisions import Decision
from autodistill_grounded_sam.errors import ConfigError, DatasetError
from autodistill_grounded_sam.evaluate.matching import Objects, class_key, join, match_names
from autodistill_grounded_sam.learnt import fit_to_judge
from autodistill_grounded_sam.ontology import Ontology, sanitize
from autodistill_grounded_sam.reviews import FILE, HOW_TO_REVIEW, Box, Review, read_reviews
from autodistill_grounded_sam.run_setup import identity_of, see_of
from autodistill_grounded_sam.store.files import write_whole
from autodistill_grounded_sam.store.store import Store
from autodistill_grounded_sam.tune.choosing import Fixed, Gain
from autodistill_grounded_sam.tune.searching import (
    Choice,
    as_given,
    choose_duplicates,
    choose_thresholds,
    choose_words,
    refused,
    tuned_ontology,
    worse_together,
)
from autodistill_grounded_sam.tune.trials import Example
from autodistill_grounded_sam.tune.words import candidate_words, with_words, word_sets
from autodistill_grounded_sam.tune.writing import evidence_of, gain_text, yaml_with_evidence
from autodistill_grounded_sam.types import DatasetImage, ImageRecord

FEWEST_UNSEEN = 10  # images: from fewer of them nothing is proven, so images that the detector has learnt from judge too
LOOKS = "tune"  # the folder of the stores that new words needed

Said = dict[str, tuple[Objects, Objects | None]]  # by image id: its objects, and rejected labels where only labels were judged


@dataclass(frozen=True)
class Tuning:
    """What was chosen: `out` holds the ontology, `decide` the settings that go with it. `together` is what all choices are worth
    on the images they were made on, `duplicates` the evidence for the duplicate settings. `label_again` says that words were
    chosen that the run never asked for; `command` is how to go on."""

    out: Path
    ontology: Ontology
    decide: DecideConfig
    choices: Sequence[Choice]
    evidence: Sequence[str]
    together: Gain
    duplicates: Gain | None
    images: int
    label_again: bool
    command: str
    notes: Sequence[str] = ()


def tune(
    source: Path | str,
    truth: Path | str | None = None,
    *,
    out: Path | str | None = None,
    ontology: Any = None,
    words: Mapping[str, Sequence[str]] | None = None,
    forms: bool = False,
    config: LabelConfig | None = None,
    images: Path | str | None = None,
    progress: pipeline.Progress | None = None,
) -> Tuning:
    """Search words, thresholds and duplicate settings on the images of `source` that `truth` (COCO json, or YOLO) labels.

    `source` is a run, or a folder of images (then `ontology` is needed, and `config` says with which models). Without `truth` the
    reviews of the run are used: labels accepted and rejected in `run/reviews.jsonl`. `words` lists more words to try by class
    name; `forms` tries articles, singular, plural and the class name too. New words are shown to the models on the labelled
    images alone, into stores of their own. Writes the ontology with the evidence for every choice to `out` (run/tuned.yaml).

    Reviews say nothing of labels that the run did not show, and these would cost nothing: by reviews alone no other words, no
    lower threshold and no looser duplicate settings are tried. Raises ConfigError for words to try without `truth`.
    """
    by_reviews = truth is None
    if by_reviews and (words or forms):
        raise ConfigError(
            "other words (--word, --forms) need labelled images (--truth): reviews say nothing of what other words would find"
        )
    work = _Work.of(Path(source), truth, ontology, config, images, progress)
    plain = with_words(work.ontology, {spec.name: _sanitized(spec.prompts) for spec in work.ontology.classes})
    candidates = candidate_words(plain, words or {}, forms=forms)
    sets = {} if by_reviews else {spec.name: word_sets(spec.prompts, candidates[spec.name]) for spec in plain.classes}
    base = work.examples(work.store)
    given = as_given(base, plain, work.decide)
    found = choose_words(given, work.examples_of(with_words(plain, candidates), base), plain, work.decide, sets)
    chosen = with_words(plain, {name: choice.words for name, choice in found.items()})
    final = work.examples_of(chosen, base)  # a score depends a little on what else is asked, so thresholds are of this look
    choices = choose_thresholds(given, final, plain, work.decide, found, never_lower=by_reviews)
    choices, final, together = _settled(work, base, given, plain, choices)
    tuned = tuned_ontology(work.ontology, choices)
    decide, duplicates = choose_duplicates(final, tuned, work.decide, never_looser=by_reviews)
    evidence = [evidence_of(choice, spec.prompts) for choice, spec in zip(choices, plain.classes, strict=True)]
    label_again = work.is_folder or not set(tuned.prompts) <= set(work.store.prompts)
    target = Path(out) if out is not None else work.home / "tuned.yaml"
    command = work.command(target, decide, label_again)
    head = [f"tuned on {len(base)} labelled images of {work.root} by {work.told}", f"use: {command}"]
    head.append(f"all choices together, over all classes, on the very images they were made on: {gain_text(together)}")
    if duplicates is not None:
        same = "kept" if decide == work.decide else "changed"
        head.append(
            f"duplicate settings {same}: best of the others on images left out, over all classes: {gain_text(duplicates)}"
        )
    write_whole(target, yaml_with_evidence(tuned, evidence, head).encode())
    return Tuning(target, tuned, decide, choices, evidence, together, duplicates, len(base), label_again, command, work.notes)


def _settled(
    work: _Work, base: list[Example], given: Sequence[Fixed], plain: Ontology, choices: list[Choice]
) -> tuple[list[Choice], list[Example], Gain]:
    """The choices that still serve once all decide together, the examples with just their words, and what they are worth."""
    while True:
        tuned = tuned_ontology(plain, choices)
        final = work.examples_of(tuned, base)
        worse, together = worse_together(given, final, tuned, work.decide, choices)
        if not worse:
            return choices, final, together
        choices = refused(choices, plain, worse)


def is_run(source: Path) -> bool:
    """If the folder is a run or holds one, rather than images."""
    return any((folder / "run.json").is_file() for folder in (source, source / "run"))


def tuning_to_json(tuning: Tuning) -> dict[str, Any]:
    """The choices and their evidence as plain data for `json.dumps`."""
    facts = {
        "images": tuning.images, "choices": [asdict(choice) for choice in tuning.choices], "evidence": list(tuning.evidence),
        "label_again": tuning.label_again,
        "together": asdict(tuning.together), "duplicates": None if tuning.duplicates is None else asdict(tuning.duplicates),
        "command": tuning.command, "notes": list(tuning.notes),
    }  # fmt: skip
    return {
        **facts,
        "ontology": tuning.ontology.document(),
        "decide": tuning.decide.model_dump(mode="json"),
        "out": str(tuning.out),
    }


@dataclass
class _Work:
    """What is tuned: the store with the given words, the settings that decide it now, and what a person said of its images."""

    store: Store
    root: Path
    ontology: Ontology
    decide: DecideConfig
    looking: LabelConfig
    home: Path  # of the tuned ontology and of the stores of new words
    truth: Path | None
    is_folder: bool
    progress: pipeline.Progress | None
    notes: list[str] = field(default_factory=list)
    _said: Said = field(default_factory=dict)

    @staticmethod
    def of(
        source: Path,
        truth: Path | str | None,
        ontology: Any,
        config: LabelConfig | None,
        images: Path | str | None,
        progress: pipeline.Progress | None,
    ) -> _Work:
        reference = None if truth is None else Path(truth)
        if is_run(source):
            decision = Decision.untrusted(source, ontology, images)
            looking = (config or LabelConfig()).model_copy(update={"see": see_of(decision.store)})
            home = decision.store.run
            work = _Work(
                decision.store,
                decision.images_root,
                decision.ontology,
                decision.config,
                looking,
                home,
                reference,
                False,
                progress,
            )
        else:
            work = _Work._of_folder(source, reference, ontology, config or LabelConfig(), progress)
        work._said = work._reviewed() if reference is None else work._labelled(reference)
        return work

    @staticmethod
    def _of_folder(
        source: Path, truth: Path | None, ontology: Any, config: LabelConfig, progress: pipeline.Progress | None
    ) -> _Work:
        if truth is None or ontology is None:
            raise ConfigError(f"{source} is no run: to tune on a folder of images, give --truth and --ontology")
        home, words = pipeline.default_out(source).with_name(f"{source.resolve().name}_tuning"), Ontology.load(ontology)
        store = _look(source, words, home, config, _named_in(truth), progress)
        return _Work(store, source, words, config.decide, config, home, truth, True, progress)

    @property
    def told(self) -> str:
        return str(self.truth) if self.truth is not None else str(self.store.run / FILE)

    def examples_of(self, ontology: Ontology, base: list[Example]) -> list[Example]:
        """The examples with the scores of these words: those of the run where it asked for all, or of a look of their own."""
        if set(ontology.prompts) <= set(self.store.prompts):
            return base
        wanted = {example.name for example in base}
        store = _look(
            self.root,
            ontology,
            self.home,
            self.looking,
            lambda found: [image for image in found if image.id in wanted],
            self.progress,
        )
        examples = self.examples(store)
        if [example.name for example in examples] != [example.name for example in base]:
            raise DatasetError(f"not all of the {len(base)} labelled images could be looked at again in {self.root}")
        return examples

    def examples(self, store: Store) -> list[Example]:
        """Every image that a person said something of, with what this store saw in it, in the order of ids."""
        return [
            Example(
                sighting.image.id, sighting.image.width, sighting.image.height, sighting.candidates, store.prompts,
                *self._said[sighting.image.id],
            )
            for sighting in store.sightings(self.root)
            if sighting.image.id in self._said and sighting.candidates is not None
        ]  # fmt: skip

    def command(self, tuned: Path, decide: DecideConfig, label_again: bool) -> str:
        """How to go on with what was tuned."""
        what = ["label", str(self.root)] if label_again else ["decide", str(self.store.run.parent)]
        see = self.looking.see
        more = ["--detector", see.detector, "--segmenter", see.segmenter] if label_again else []
        more += [
            word
            for key in ("duplicate_iou", "duplicate_containment")
            if getattr(decide, key) != getattr(DecideConfig() if label_again else self.decide, key)
            for word in (f"--{key.replace('_', '-')}", str(getattr(decide, key)))
        ]
        return shlex.join(["grounded-sam", *what, "--ontology", str(tuned), *more])

    def _labelled(self, truth: Path) -> Said:
        """The objects of every image that is in the store and in the reference, numbered by the classes of the ontology."""
        records = [image for image, _ in self.store.seen()]
        joined = join(map(_without_labels, records), self.ontology.class_names, truth, only_labelled=True)
        if not joined.pairs:
            raise DatasetError(f"no image of {truth} was seen by {self.store.run}; truth and run must be of the same images")
        self.notes += joined.notes
        digest = {image.id: image.digest for image in records}
        judges, told = fit_to_judge([digest[pair.source] for pair in joined.pairs], self.store.learnt_from, FEWEST_UNSEEN)
        self.notes += told
        own = {class_key(name): place for place, name in enumerate(self.ontology.class_names)}
        number = np.array([own.get(class_key(name), -1) for name in joined.class_names], np.int32)
        said: Said = {}
        for pair in compress(joined.pairs, judges):
            truth_of = replace(pair.truth, class_id=number[pair.truth.class_id])
            said[pair.source] = (truth_of.select(truth_of.class_id >= 0), None)
        return said

    def _reviewed(self) -> Said:
        """What a person said is there as objects, and rejected labels, of every image that was not changed since."""
        reviews, digests = read_reviews(self.store.run / FILE), self.store.digests()
        names = self.ontology.class_names
        reviews = [one for one in reviews if one.xyxy is not None]
        usable = [one for one in reviews if digests.get(one.image) == one.digest and one.class_name in names]
        if len(usable) < len(reviews):
            self.notes.append(
                f"{len(reviews) - len(usable)} review(s) are of images that changed, or of unknown classes: left out"
            )
        if not usable:
            raise DatasetError(f"{self.store.run / FILE} holds no review of this run; {HOW_TO_REVIEW}")
        self.notes.append(
            "by reviews alone: recall is that of the objects reviewed, and neither other words nor lower thresholds are tried"
        )
        by_image: dict[str, list[Review]] = defaultdict(list)
        for one in usable:
            by_image[one.image].append(one)
        return {image: (_objects(_right(own), names), _objects(_wrong(own), names)) for image, own in by_image.items()}


def _look(
    images: Path,
    ontology: Ontology,
    home: Path,
    config: LabelConfig,
    only: Callable[[Sequence[ImageRecord]], Sequence[ImageRecord]],
    progress: pipeline.Progress | None,
) -> Store:
    """Show some images to the models, asked for these words; the same words asked again of the same models are answered from the
    same store."""
    key = hashlib.sha256(json.dumps(identity_of(config, ontology), sort_keys=True).encode()).hexdigest()[:12]
    return Store(pipeline.see(images, ontology, home / LOOKS / key, config, only=only, progress=progress).run)


def _named_in(truth: Path) -> Callable[[Sequence[ImageRecord]], Sequence[ImageRecord]]:
    """Picks the images that a reference names."""

    def only(found: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
        names = [image.name for image in read_dataset(truth)]
        places = match_names(names, [image.id for image in found])
        if not places:
            raise DatasetError(f"none of the {len(names)} images of {truth} is among the {len(found)} images of the folder")
        return [found[place] for place in sorted(places.values())]

    return only


def _without_labels(image: ImageRecord) -> DatasetImage:
    return DatasetImage(
        None, image.id, "train", image.width, image.height, np.zeros(0, np.int32), np.zeros((0, 4), np.float32), None
    )


def _right(reviews: Sequence[Review]) -> list[tuple[Box, str]]:
    return [one.stands for one in reviews if one.stands is not None]


def _wrong(reviews: Sequence[Review]) -> list[tuple[Box, str]]:
    """Labels that should not be: rejected ones, and those that are of another class."""
    return [
        (one.xyxy, one.class_name)
        for one in reviews
        if one.xyxy is not None and (one.verdict == "rejected" or one.to_class not in ("", one.class_name))
    ]


def _objects(places: Sequence[tuple[Box, str]], names: Sequence[str]) -> Objects:
    known = [(box, names.index(name)) for box, name in places if name in names]
    return Objects.of(
        np.array([class_id for _, class_id in known], np.int32), np.array([box for box, _ in known], np.float32).reshape(-1, 4)
    )


def _sanitized(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(map(sanitize, words)))
