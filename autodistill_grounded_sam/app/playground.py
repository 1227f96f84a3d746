"""What the page can ask: look at an image, decide with these thresholds, save the words. No gradio here; `page` shows it."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.app.folder import FolderJob
from autodistill_grounded_sam.config import DecideConfig, SeeConfig
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.decide.reviewed import apply_reviews
from autodistill_grounded_sam.errors import ConfigError, ImageReadError, OntologyError
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.painting import FRESH_SETTINGS, PainterSettings, paint_scene
from autodistill_grounded_sam.reviews import Review
from autodistill_grounded_sam.types import Candidates, Labels, RgbImage, Sighting

LOOKS_IN_MEMORY = 32
FIRST_WORDS: Mapping[str, str] = {
    "red circle": "ball", "orange circle": "ball", "blue square": "box", "green star": "star", "purple heart": "heart"
}  # fmt: skip
# What is painted to try the built-in models on: all that the first words ask for, and two things that they do not.
_SCENE = PainterSettings(
    width=576, height=432, objects=(5, 7), size=(0.18, 0.36), backgrounds=FRESH_SETTINGS.backgrounds,
    pairs=(("red", "circle"), ("orange", "circle"), ("blue", "square"), ("green", "star"), ("purple", "heart"), ("red", "ring"),
           ("blue", "moon")),
)  # fmt: skip
FIRST_SCENE = 11  # a seed with something of every class
PICTURE_PX, JPEG_QUALITY = 1600, 90  # of the picture that is sent to the screen: its longer side


@dataclass(frozen=True)
class RunMaterial:
    """A run as the page needs it: `see` and `prompts` are what its images were seen with, `sighting` gives one by its number,
    `said` what a person decided of it, by its digest; `decide` is that of the whole run, and gives a summary."""

    name: str
    see: SeeConfig
    images: int
    prompts: tuple[str, ...]
    sighting: Callable[[int], Sighting]
    said: Callable[[str], Sequence[Review]]
    decide: Callable[[DecideConfig, Ontology], Any]


@dataclass(frozen=True)
class Material:
    """What the page works with. `load` brings models into memory that are then asked these words about images; `label` is that
    of a folder: images, ontology, output folder (None: beside the images), models, thresholds, formats, progress; `listen` makes
    text of (samples a second, samples)."""

    see: SeeConfig
    decide: DecideConfig
    ontology: Ontology
    load: Callable[[SeeConfig, Ontology], Callable[[RgbImage], Candidates]]
    label: Callable[[Path, Ontology, Path | None, SeeConfig, DecideConfig, tuple[str, ...], FolderJob], Any]
    run: RunMaterial | None = None
    listen: Callable[[tuple[int, Any]], str] | None = None


@dataclass(frozen=True)
class Settings:
    """The sliders: the score that a label must reach, that of single classes, and when two labels are one object."""

    score: float
    of_class: Mapping[str, float] = field(default_factory=dict)
    duplicate_iou: float = DecideConfig().duplicate_iou
    duplicate_containment: float = DecideConfig().duplicate_containment

    @staticmethod
    def of(config: DecideConfig, ontology: Ontology) -> Settings:
        own = {spec.name: spec.box_threshold for spec in ontology.classes if spec.box_threshold is not None}
        score = max(config.box_threshold, config.text_threshold)  # a label must reach both
        return Settings(score, own, config.duplicate_iou, config.duplicate_containment)

    def config(self, base: DecideConfig) -> DecideConfig:
        """`base` with these settings, without trust: what waits for review is a matter of the run, not of thresholds."""
        return base.model_copy(
            update={
                "box_threshold": self.score,
                "text_threshold": min(base.text_threshold, self.score),
                "duplicate_iou": self.duplicate_iou,
                "duplicate_containment": self.duplicate_containment,
                "trust": 0.0,
            }
        )

    def applied(self, ontology: Ontology) -> Ontology:
        """The ontology with the thresholds of its classes as they stand here."""
        return replace(
            ontology, classes=tuple(replace(spec, box_threshold=self.of_class.get(spec.name)) for spec in ontology.classes)
        )

    def written(self, ontology: Ontology, run: DecideConfig) -> Ontology:
        """The ontology to save: `label` with its defaults, and `decide` with those of `run`, then keep what these settings keep.

        So only a score that is the default of both is left out.
        """
        defaults = {max(config.box_threshold, config.text_threshold) for config in (DecideConfig(), run)}
        default = None if defaults == {self.score} else self.score
        return replace(
            ontology,
            classes=tuple(replace(spec, box_threshold=self.of_class.get(spec.name, default)) for spec in ontology.classes),
        )


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in one upright image. `number` is its place in the run, `digest` that of its file; `seconds` is what the
    models in memory took, None where the run knew it already; `warnings` is what was said of it beside the answer."""

    key: str
    name: str
    image_rgb: RgbImage
    see: SeeConfig
    ontology: Ontology
    candidates: Candidates
    seconds: float | None
    digest: str
    number: int | None = None
    warnings: Sequence[str] = ()

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image_rgb.shape[1], self.image_rgb.shape[0]

    @cached_property
    def picture(self) -> bytes:
        """A JPEG for the screen."""
        from PIL import Image

        picture = Image.fromarray(self.image_rgb)
        picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=JPEG_QUALITY)
        return content.getvalue()


class Playground:
    """Looks are kept, so that thresholds and words that were asked before need no model; models meet one thread at a time."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.start = Settings.of(material.decide, material.ontology)
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._models, self._kept = threading.Lock(), threading.Lock()
        self._saved: set[Path] = set()

    def look_at_file(self, path: Path, name: str, see: SeeConfig, ontology: Ontology) -> Look:
        """What the models see in an image file; raises ImageReadError for one that cannot be read."""
        try:
            pixels = read_image(path, max_megapixels=see.max_megapixels)
        except ImageReadError as error:  # of the name that the person knows, not of where it was put
            raise ImageReadError(error.reason, error.detail.replace(str(path), name)) from error
        return self._look(pixels, name, hashlib.sha256(path.read_bytes()).hexdigest(), see, ontology, None)

    def look_at_scene(self, seed: int, see: SeeConfig, ontology: Ontology) -> Look:
        """What they see in a painted scene, the same for the same seed."""
        return self._look(paint_scene(_SCENE, seed).image_rgb, f"painted scene {seed}", f"scene {seed}", see, ontology, None)

    def look_at_run(self, number: int, see: SeeConfig, ontology: Ontology) -> Look:
        """An image of the run, from 0: as the run saw it, or by the models where they or the words are others."""
        run = self.material.run
        if run is None or not 0 <= number < run.images:
            raise ConfigError(f"there is no image {number + 1} in the run; it holds {0 if run is None else run.images}")
        sighting = run.sighting(number)
        image = sighting.image
        try:
            pixels = read_image(image, max_megapixels=see.max_megapixels)
        except ImageReadError as error:
            moved = (
                "; were the images moved? begin with `grounded-sam app RUN --images FOLDER`" if error.reason == "missing" else ""
            )
            raise ImageReadError(error.reason, f"{image.id}: {error.detail}{moved}") from error
        known = see == run.see and set(ontology.prompts) <= set(run.prompts)
        if not known or sighting.candidates is None:
            return self._look(pixels, image.id, image.digest, see, ontology, number)
        columns = [run.prompts.index(prompt) for prompt in ontology.prompts]
        candidates = replace(sighting.candidates, scores=sighting.candidates.scores[:, columns])
        key = _key(image.digest, see, ontology, "run")
        return self._keep(Look(key, image.id, pixels, see, ontology, candidates, None, image.digest, number))

    def labels(self, look: Look, settings: Settings) -> Labels:
        """The labels of a look, as `label` and `decide` make them."""
        config, words, (width, height) = settings.config(self.material.decide), settings.applied(look.ontology), look.size_wh
        labels = decide(look.candidates, words, config, width, height)
        run = self.material.run
        said = run.said(look.digest) if run is not None and look.number is not None else ()
        return apply_reviews(labels, said, words, width, height) if said else labels

    def picture(self, key: str) -> bytes | None:
        """The picture of a look that is still in memory."""
        with self._kept:
            look = self._looks.get(key)
        return None if look is None else look.picture

    def save(self, ontology: Ontology, path: str) -> Path:
        """Write the ontology as YAML; a file that was not written here is not replaced."""
        target = typed_path(path).absolute()
        if target.suffix not in (".yaml", ".yml"):
            raise OntologyError(f"the file of an ontology ends in .yaml, got {path!r}")
        if not target.parent.is_dir():
            raise OntologyError(f"there is no folder {target.parent} to save the ontology in")
        if target.exists() and target not in self._saved:
            raise OntologyError(f"{target} is there already and was not saved by this page; choose another name")
        try:
            ontology.to_yaml(target)
        except OSError as error:
            raise OntologyError(f"{target} cannot be written: {error}") from error
        self._saved.add(target)
        return target

    def _look(self, pixels: RgbImage, name: str, digest: str, see: SeeConfig, ontology: Ontology, number: int | None) -> Look:
        key = _key(digest, see, ontology, "")
        with self._models:
            with self._kept:
                known = self._looks.get(key)
            if known is not None:
                return self._keep(replace(known, name=name, ontology=ontology, number=number))
            with _warnings() as said:
                ask = self.material.load(see, ontology)
                started = time.perf_counter()
                candidates = ask(pixels)
                seconds = time.perf_counter() - started
        return self._keep(Look(key, name, pixels, see, ontology, candidates, seconds, digest, number, said))

    def _keep(self, look: Look) -> Look:
        with self._kept:
            self._looks[look.key] = look
            self._looks.move_to_end(look.key)
            while len(self._looks) > LOOKS_IN_MEMORY:
                self._looks.popitem(last=False)
        return look


class _Listening(logging.Handler):
    """Keeps what is warned of in the thread that made it: another may be labelling a folder."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the package warns of within, such as words that a model does not know; the log has it as before."""
    listening, package = _Listening(), logging.getLogger("autodistill_grounded_sam")
    package.addHandler(listening)
    try:
        yield listening.said
    finally:
        package.removeHandler(listening)


def typed_path(text: str) -> Path:
    """The path that a person typed, of something that is there or not; raises ConfigError for one that nothing can have."""
    try:
        path = Path(text.strip()).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:  # too long or forbidden, ~ of nobody, a NUL byte
        raise ConfigError(f"{text!r} cannot be used as a path: {error}") from error
    return path


def _key(digest: str, see: SeeConfig, ontology: Ontology, where: str) -> str:
    """Stands for all that the candidates of an image depend on. Prompts in another order are other columns."""
    examples = {prompt: one.document() for prompt, one in ontology.examples.items()}
    facts = (digest, where, see.model_dump_json(), ontology.prompts, ontology.prompt_groups, examples)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
