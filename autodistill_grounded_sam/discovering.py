"""A folder of which nobody knows what is in it, to an ontology: sample, tag, ask a detector for the tags, propose, show.

`discover` is the whole story; `label_auto` labels with what it finds.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from autodistill_grounded_sam import pipeline, plugins
from autodistill_grounded_sam.config import DiscoverConfig, LabelConfig
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.decisions import require_apart
from autodistill_grounded_sam.discover.concepts import merge_tags
from autodistill_grounded_sam.discover.grounding import Grounding, Look
from autodistill_grounded_sam.discover.proposing import Limits, Proposal, images_text, propose
from autodistill_grounded_sam.drawing import contact_sheet, draw_labels
from autodistill_grounded_sam.errors import ConfigError, ImageReadError, NoImagesError, OntologyError
from autodistill_grounded_sam.images import FoundImage, find_images, read_image
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.ontology import ClassSpec, Ontology
from autodistill_grounded_sam.pipeline import Progress, RunSummary
from autodistill_grounded_sam.places import place
from autodistill_grounded_sam.protocols import Tag, Tagger
from autodistill_grounded_sam.similar import NEAR_BITS, dhash
from autodistill_grounded_sam.store.files import disk_errors, write_whole
from autodistill_grounded_sam.tag.choosing import load_tagger
from autodistill_grounded_sam.tune.writing import yaml_with_evidence
from autodistill_grounded_sam.types import Candidates, Labels, RgbImage
from autodistill_grounded_sam.weights import Role, find_weights

ASKED_PER_CLASS = 3  # concepts that the detector is asked for, to a class that may stay: the others drop out, or are negatives
AT_ONCE = 4  # images tagged together
MOST_READ = 4  # times the sample: in a folder of hardly anything but near-duplicates it stays smaller
DISCOVERED = "discovered.yaml"  # in the run folder of a dataset that was labelled with what was found
_LEFT_OUT_SHOWN = 30


@dataclass(frozen=True)
class Sample:
    """The images that were looked at, in order of id; how many of the folder were passed over and why."""

    images: tuple[FoundImage, ...]
    folder: int
    near_duplicates: int
    unreadable: int


@dataclass(frozen=True)
class Discovery:
    """What was found in a folder: the ontology, its evidence, where both were written (None: nowhere).

    `tags` counts the different tags, `unasked` what they were merged into and was too rare for the detector to be asked.
    """

    proposal: Proposal
    sample: Sample
    tags: int
    unasked: int
    path: Path | None = None
    sheet: Path | None = None

    @property
    def ontology(self) -> Ontology:
        return self.proposal.ontology


def discover(
    images: Path | str,
    out: Path | str | None = None,
    settings: DiscoverConfig | None = None,
    config: LabelConfig | None = None,
    *,
    extension: str | None = None,
    progress: Progress | None = None,
) -> Discovery:
    """Find out what is in a folder of images, and propose an ontology for it.

    A tagger says what is in a sample of the images, the detector of `config` says which of that it finds as objects. `out` is the
    YAML to write, with the evidence beside each class and a picture a class in the PNG beside it; it is not overwritten.
    Raises ConfigError for a place that is taken, NoImagesError without images, OntologyError where no class is found.
    """
    settings, config = settings or DiscoverConfig(), config or LabelConfig()
    target = None if out is None else _free_place(Path(out))
    config = config.model_copy(update={"see": config.see.model_copy(update={"masks": "none"})})
    _require_weights(config)
    found = find_images(place(images), extension=extension).images
    run = {"device": usable_device(config.run.device), "offline": config.run.offline, "precision": config.see.precision}
    tagger = load_tagger(settings.tagger, settings.words, **run)
    if progress is not None:
        progress.message(f"tagging up to {min(settings.sample, len(found))} of {len(found)} images with {settings.tagger}")
    sample, tags = _tag_sample(found, tagger, settings.sample, config.see.max_megapixels, progress)
    del tagger  # its memory, before the detector is loaded
    merged = merge_tags(tags)
    if not merged:
        raise OntologyError(f"{settings.tagger} found nothing in {len(sample.images)} images; try another tagger")
    concepts = merged[: ASKED_PER_CLASS * settings.max_classes]
    if progress is not None:
        progress.message(f"asking {config.see.detector} for {len(concepts)} of the things that were tagged")
    asked = Ontology(tuple(ClassSpec(concept.name, concept.words) for concept in concepts))
    looks = _look(sample.images, asked, config, progress)
    limits = Limits(config.decide.box_threshold, settings.min_images, settings.max_classes)
    proposal = propose(concepts, Grounding.of(looks, asked.prompt_class), limits)
    different = len({tag.name for of_image in tags for tag in of_image})
    discovery = Discovery(proposal, sample, different, len(merged) - len(concepts), target)
    if target is None:
        return discovery
    picture, sheet = _draw_sheet(discovery, asked, looks, config), target.with_suffix(".png")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, yaml_text(discovery, settings, config).encode())
    write_whole(sheet, _png(picture))
    return replace(discovery, sheet=sheet)


def label_auto(
    images: Path | str,
    out: Path | str | None = None,
    settings: DiscoverConfig | None = None,
    config: LabelConfig | None = None,
    *,
    extension: str | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Label a folder with the ontology that `discover` finds for it; that is written to `run/discovered.yaml` in the dataset.

    Where that file is there already, from an interrupted call or changed by hand, it is what is labelled with.
    """
    target = pipeline.default_out(images) if out is None else Path(out)
    path = discovered_ontology(images, target, settings, config, extension=extension, progress=progress)
    return pipeline.label(images, path, target, config, extension=extension, progress=progress)


def discovered_ontology(
    images: Path | str,
    out: Path | str | None,
    settings: DiscoverConfig | None,
    config: LabelConfig | None,
    *,
    extension: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """The file with what is in a folder that will be labelled into `out`: the one that is there, or a new one."""
    target = pipeline.default_out(images) if out is None else Path(out)
    require_apart(place(images), target)
    path = target / "run" / DISCOVERED
    if not path.is_file():
        _require_weights(config or LabelConfig())
        discover(images, path, settings, config, extension=extension, progress=progress)
    elif progress is not None:
        progress.message(f"{path} is there already, and is what is labelled with")
    return path


def words_of(spec: str) -> tuple[str, ...]:
    """The words to ask for: the lines of a .txt file, or the prompts of whatever `Ontology.load` takes."""
    if not spec.lower().endswith(".txt"):
        return Ontology.load(spec).prompts
    try:
        lines = Path(spec).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the words {spec} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def discovery_to_json(discovery: Discovery) -> dict[str, Any]:
    """Plain data: the ontology, the evidence of each class, what was left out and why, and what was looked at."""
    proposal, sample = discovery.proposal, discovery.sample
    return {
        "out": str(discovery.path) if discovery.path else None,
        "sheet": str(discovery.sheet) if discovery.sheet else None,
        "sampled": len(sample.images),
        "folder": sample.folder,
        "near_duplicates": sample.near_duplicates,
        "unreadable": sample.unreadable,
        "tags": discovery.tags,
        "unasked": discovery.unasked,
        "ontology": proposal.ontology.document(),
        "evidence": {
            spec.name: {**asdict(one), "box_threshold": spec.box_threshold}
            for spec, one in zip(proposal.ontology.classes, proposal.evidence, strict=True)
        },
        "negatives": dict(proposal.negatives),
        "left_out": dict(proposal.left_out),
    }


def yaml_text(discovery: Discovery, settings: DiscoverConfig, config: LabelConfig) -> str:
    """The ontology as YAML that reads back as the same, with its evidence in comments."""
    sample, proposal = discovery.sample, discovery.proposal
    aside = f"{sample.near_duplicates} near-duplicates and {sample.unreadable} unreadable ones passed over"
    head = [
        f"Found by grounded-sam discover: {settings.tagger} tagged {len(sample.images)} of {images_text(sample.folder)}",
        f"({aside}), {discovery.tags} different tags; {config.see.detector} was asked for them.",
        "A proposal: look at the pictures beside it, then rename, reorder and take out what you like before you label with it.",
    ]
    head += [f"negative {name}: else {boxes} boxes of it would be labelled" for name, boxes in proposal.negatives.items()]
    head += [f"left out: {name}: {reason}" for name, reason in list(proposal.left_out.items())[:_LEFT_OUT_SHOWN]]
    if rest := max(0, len(proposal.left_out) - _LEFT_OUT_SHOWN) + discovery.unasked:
        head.append(f"left out: {rest} more, {discovery.unasked} of them too rare for the detector to be asked")
    evidence = [
        f"tagged in {images_text(one.tagged)}, best name of {one.boxes} box(es) in {one.images} of them; {one.threshold}"
        for one in proposal.evidence
    ]
    return yaml_with_evidence(proposal.ontology, evidence, head)


def _require_weights(config: LabelConfig) -> None:
    """Raise WeightsError now, not after all images were tagged, where a model that is needed then is not here."""
    needed: list[tuple[Role, str]] = [("detector", config.see.detector)]
    if config.see.masks != "none":
        needed.append(("segmenter", config.see.segmenter))
    for role, name in needed:
        if plugins.find(f"{role}s", name).has_weights:
            find_weights(name, role, offline=config.run.offline)


class _Draw:
    """Images from all over the folder that can be read and are not near-duplicates, by their number in it, at most so many.

    What it passed over is counted; it also ends where `MOST_READ` times as many were read.
    """

    def __init__(self, found: Sequence[FoundImage], most: int, max_megapixels: int) -> None:
        self._found, self._most, self._max_megapixels = found, most, max_megapixels
        self.near_duplicates = self.unreadable = 0

    def __iter__(self) -> Iterator[tuple[int, RgbImage]]:
        hashes: list[int] = []
        for number in islice(evenly(len(self._found)), MOST_READ * self._most):
            try:
                pixels = read_image(self._found[number].path, max_megapixels=self._max_megapixels)
            except ImageReadError:
                self.unreadable += 1
                continue
            own = dhash(pixels)
            if any((own ^ other).bit_count() <= NEAR_BITS for other in hashes):
                self.near_duplicates += 1
                continue
            hashes.append(own)
            yield number, pixels
            if len(hashes) == self._most:
                return


def _tag_sample(
    found: Sequence[FoundImage], tagger: Tagger, most: int, max_megapixels: int, progress: Progress | None
) -> tuple[Sample, list[list[Tag]]]:
    """The images that are looked at, and the tags of each."""
    draw = _Draw(found, most, max_megapixels)
    drawn = iter(draw)
    tags: dict[int, list[Tag]] = {}
    if progress is not None:
        progress.total(min(most, len(found)))
    while batch := list(islice(drawn, AT_ONCE)):
        answers = tagger.tag([pixels for _, pixels in batch])
        tags.update(zip((number for number, _ in batch), answers, strict=True))
        if progress is not None:
            progress.advance(len(batch), Counter(tag.name for answer in answers for tag in answer))
    if not tags:
        raise NoImagesError(f"none of the {draw.unreadable} images that were tried could be read")
    order = sorted(tags)
    sample = Sample(tuple(found[number] for number in order), len(found), draw.near_duplicates, draw.unreadable)
    return sample, [tags[number] for number in order]


def evenly(count: int) -> Iterator[int]:
    """0 .. count - 1 in an order of which every beginning lies evenly over the whole: by the bits of a counter, backwards."""
    bits = max(1, (count - 1).bit_length())
    for turn in range(1 << bits):
        number = int(f"{turn:0{bits}b}"[::-1], 2)
        if number < count:
            yield number


def _look(images: Sequence[FoundImage], asked: Ontology, config: LabelConfig, progress: Progress | None) -> list[Look]:
    """What the detector sees in each image; nothing in one that it cannot hold."""
    worker = pipeline.build_worker(config, asked)
    if progress is not None:
        progress.total(len(images))
    looks = []
    for image in images:
        pixels = read_image(image.path, max_megapixels=config.see.max_megapixels)
        try:
            seen = worker.look_at(pixels)
        except ImageReadError:  # too large for the memory of the device
            seen = Candidates.none(len(asked.prompts))
        looks.append(Look(seen, pixels.shape[1], pixels.shape[0]))
        if progress is not None:
            progress.advance(1, {})
    return looks


def _draw_sheet(discovery: Discovery, asked: Ontology, looks: Sequence[Look], config: LabelConfig) -> RgbImage:
    """A picture a class, the one with its surest label, in the order of the classes."""
    ontology = discovery.ontology
    columns = [asked.prompts.index(prompt) for prompt in ontology.prompts]
    labels = [
        decide(
            Candidates(look.candidates.xyxy, look.candidates.scores[:, columns]), ontology, config.decide, look.width, look.height
        )
        for look in looks
    ]
    pictures = []
    for class_id, evidence in enumerate(discovery.proposal.evidence):
        surest = max(range(len(labels)), key=lambda number: _best_score(labels[number], class_id))
        own = labels[surest].class_id == class_id
        pixels = read_image(discovery.sample.images[surest].path, max_megapixels=config.see.max_megapixels)
        names = [f"{name} ({evidence.images})" for name in ontology.class_names]
        pictures.append(draw_labels(pixels, labels[surest].xyxy[own], labels[surest].class_id[own], names))
    return contact_sheet(pictures)


def _best_score(labels: Labels, class_id: int) -> float:
    return float(labels.score[labels.class_id == class_id].max(initial=0))


def _free_place(out: Path) -> Path:
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"the ontology is written as YAML, but --out is {out}: give a name that ends in .yaml")
    for path in (out, out.with_suffix(".png")):
        if path.exists():
            raise ConfigError(f"{path} is already there, and may hold what you changed: move it away, or give another --out")
    return out


def _png(image_rgb: RgbImage) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image_rgb).save(content, format="PNG")
    return content.getvalue()
