"""Benchmarks of the field with our models: SegInW by its official protocol (`evaluate.seginw`), resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.engine.ensemble import detector_of, segmenter_of
from autodistill_grounded_sam.errors import ConfigError, PluginError
from autodistill_grounded_sam.evaluate.seginw import (
    DATASETS,
    DRAWS,
    Figures,
    Predicted,
    SegInWDataset,
    SegInWRow,
    best_pairs,
    measure,
    require_tree,
)
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.ontology_io import parse_yaml, shipped_folder
from autodistill_grounded_sam.pipeline import Progress
from autodistill_grounded_sam.protocols import Detector, Segmenter
from autodistill_grounded_sam.run_setup import model_identity
from autodistill_grounded_sam.store.files import write_json
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.types import Candidates

RAW, BETTER = "names", "better"  # of --prompts: the category names as they are, and the wording that comes with the package
_PROTOCOL = 1  # of what is in a cached file; another number, and nothing cached is used

Words = Mapping[str, Mapping[str, Sequence[str]]]  # of each dataset, of each class: what is asked for it


class SegInWModels:
    """What looks and cuts, loaded when the first image is looked at; raises WeightsError at once where weights are missing,
    ConfigError for masks that are the detector's own."""

    def __init__(self, detector: str, segmenter: str, *, device: str = "auto", offline: bool = False) -> None:
        if plugins.OWN_MASKS in dict(plugins.members("segmenters", segmenter)):
            raise ConfigError(f"SegInW's protocol cuts out the boxes with a segmenter: name one instead of {plugins.OWN_MASKS!r}")
        self.detector, self.segmenter = detector, segmenter
        self._device, self._offline = device, offline
        self._loaded: tuple[Detector, Segmenter] | None = None
        self.identity = {
            "detector": model_identity("detectors", detector, offline),
            "segmenter": model_identity("segmenters", segmenter, offline),
        }

    def load(self, progress: Progress | None) -> tuple[Detector, Segmenter]:
        if self._loaded is None:
            if progress is not None:
                progress.message(f"loading {self.detector} and {self.segmenter}")
            settings: dict[str, Any] = {"device": usable_device(self._device), "offline": self._offline}
            detectors, segmenters = plugins.members("detectors", self.detector), plugins.members("segmenters", self.segmenter)
            self._loaded = (
                detector_of(detectors, lambda name, floor: plugins.load("detectors", name, floor=floor, **settings), 0.0, ()),
                segmenter_of(segmenters, lambda name: plugins.load("segmenters", name, clip_boxes=False, **settings)),
            )
        return self._loaded

    def unload(self) -> None:
        """Give the memory back; the next image loads again."""
        self._loaded = None


def run_seginw(
    root: Path,
    out: Path,
    models: SegInWModels,
    *,
    prompts: Sequence[str] = (RAW,),
    datasets: Sequence[str] = DATASETS,
    progress: Progress | None = None,
) -> list[SegInWRow]:
    """Run the benchmark on `root` (`<name>/valid/...`), a row for each of `prompts`: `names`, `better`, or a YAML of that form.

    What was found and what it scored is kept in `out` in files named after all that it depends on (models, words, the dataset's
    bytes, protocol), so that a killed run goes on with the next image and a finished one is told at once. Raises DatasetError for
    a tree that is not whole, ConfigError for wrong names.
    """
    unknown = [name for name in datasets if name not in DATASETS]
    if unknown:
        raise ConfigError(f"SegInW has no dataset {unknown[0]!r}; it has {', '.join(DATASETS)}")
    if not prompts or not datasets:
        raise ConfigError("give at least one way of asking and one dataset")
    require_tree(root, datasets)
    asked = {way: {} if way == RAW else read_words(way) for way in dict.fromkeys(prompts)}
    read = [SegInWDataset.read(root, name) for name in dict.fromkeys(datasets)]
    runs = {way: [_Run(dataset, words.get(dataset.name, {}), models, out) for dataset in read] for way, words in asked.items()}
    with RunLock(out):
        if progress is not None:
            progress.total(
                sum({run.key: run.left for of_way in runs.values() for run in of_way}.values())
            )  # words may be the same
        return [
            SegInWRow(
                way,
                {run.dataset.name: run.figures(progress) for run in of_way},
                {dataset.name: len(dataset.images) for dataset in read},
                tuple([*_notes(models, read), *(note for run in of_way for note in run.notes)]),
            )
            for way, of_way in runs.items()
        ]


def read_words(source: str) -> Words:
    """The wording of `better`, or of a YAML file of its form; raises ConfigError for anything else."""
    path = shipped_folder() / "seginw" / "better.yaml" if source == BETTER else Path(source)
    if not path.is_file():
        raise ConfigError(f"--prompts takes {RAW}, {BETTER} or a YAML file, got {source!r}")
    content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    form = "version: 1, then datasets: {Rail: {rail: railway rail}}"
    if not isinstance(content, dict) or content.get("version") != 1 or not isinstance(content.get("datasets"), dict):
        raise ConfigError(f"{path} must hold {form}")
    words: dict[str, dict[str, Sequence[str]]] = {}
    for name, classes in content["datasets"].items():
        if name not in DATASETS or not isinstance(classes, dict):
            raise ConfigError(f"{path}: {name!r} is no dataset of SegInW with its classes; expected {form}")
        words[name] = {of: [said] if isinstance(said, str) else said for of, said in classes.items()}
        lists = list(words[name].values())
        every = [word for said in lists for word in said] if all(isinstance(said, list) and said for said in lists) else [""]
        if not all(isinstance(word, str) and word.strip() for word in every) or len(set(every)) < len(every):
            raise ConfigError(f"{path}: every class of {name} needs words that no other has, got {classes}")
    return words


def _notes(models: SegInWModels, datasets: Sequence[SegInWDataset]) -> list[str]:
    notes = []
    if not models.identity["detector"].get("scores", True):
        notes.append(f"{models.detector} gives no scores, so its boxes are in no order and AP says little")
    from_0 = [dataset.name for dataset in datasets if any(one["id"] == 0 for one in dataset.content["annotations"])]
    if from_0:
        notes.append(f"COCOeval never finds an annotation with id 0, in the published figures neither: {', '.join(from_0)}")
    return notes


class _Run:
    """One dataset, asked in one way, by files in `out` whose names hold a digest of all that they depend on."""

    def __init__(self, dataset: SegInWDataset, words: Mapping[str, Sequence[str]], models: SegInWModels, out: Path) -> None:
        self.dataset, self._models = dataset, models
        said = [list(words.get(name, [name])) for name in dataset.class_names]
        self._prompts = [prompt for of_class in said for prompt in of_class]
        self._starts = np.cumsum([0, *map(len, said[:-1])])  # of each class's prompts
        self._depends = {
            "protocol": _PROTOCOL, "draws": DRAWS, **models.identity, "dataset": dataset.digest, "classes": dataset.class_names,
            "prompts": said,
        }  # fmt: skip
        self.key = hashlib.sha256(json.dumps(self._depends, sort_keys=True).encode()).hexdigest()[:16]
        self._found_file, self._figures_file = out / f"{dataset.name}-{self.key}.jsonl", out / f"{dataset.name}-{self.key}.json"
        strangers = ", ".join(map(repr, sorted(words.keys() - set(dataset.class_names))))
        self.notes = [f"{dataset.name} has no class {strangers}: words for it were not used"] if strangers else []

    @property
    def left(self) -> int:
        """How many images are still to be looked at."""
        return 0 if self._figures_file.is_file() else len(self.dataset.images) - len(self._found())

    def figures(self, progress: Progress | None) -> Figures:
        """Look at what is left, and measure; of a dataset that was finished before, what was measured then."""
        if self._figures_file.is_file():
            content = json.loads(self._figures_file.read_text(encoding="utf-8"))
            return Figures(**content["figures"])
        found = self._found()
        with self._found_file.open("a", encoding="utf-8") as file:
            for image in self.dataset.images[len(found) :]:
                found.append(self._look(image, progress))
                file.write(json.dumps(found[-1]._asdict()) + "\n")
                file.flush()
                if progress is not None:
                    progress.advance(1, {self.dataset.name: 1})
        figures = measure(self.dataset, found)
        write_json(self._figures_file, {**self._depends, "figures": figures._asdict()})
        return figures

    def _found(self) -> list[Predicted]:
        """What earlier runs found, an image a line; a line that a kill tore is cut off."""
        if not self._found_file.is_file():
            return []
        text = self._found_file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            self._found_file.write_bytes(whole)
        return [Predicted(**json.loads(line)) for line in whole.splitlines()]

    def _look(self, image: Mapping[str, Any], progress: Progress | None) -> Predicted:
        detector, segmenter = self._models.load(progress)
        pixels = self.dataset.pixels(image)
        (seen,) = getattr(detector, "queries", detector.detect)([pixels], self._prompts)
        scores = np.maximum.reduceat(seen.scores, self._starts, axis=1)  # of a class: that of its best prompt
        rows, classes = best_pairs(scores)
        used, box = np.unique(rows, return_inverse=True)
        (masked,) = segmenter.segment([pixels], [seen.select(used)]) if len(used) else [Candidates.none(0)]
        if masked.rle is None:
            raise PluginError(f"the segmenter {self._models.segmenter} gave no masks; SegInW measures masks")
        counts = [code["counts"] for code in masked.rle]
        score = scores[rows, classes].tolist()
        return Predicted(image["id"], classes.tolist(), score, box.tolist(), seen.xyxy[used].tolist(), counts)
