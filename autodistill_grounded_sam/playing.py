"""`app`: the playground over a run or over nothing yet: brings models, the store and `label` to the page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam import pipeline
from autodistill_grounded_sam.app.folder import FolderJob
from autodistill_grounded_sam.app.playground import FIRST_WORDS, Material, Playground, RunMaterial
from autodistill_grounded_sam.config import DecideConfig, ExportConfig, LabelConfig, RunConfig, SeeConfig
from autodistill_grounded_sam.decisions import Decision, read_reviews_of
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.errors import MissingExtraError, WrongRunError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.reviews import FILE as REVIEWS_FILE
from autodistill_grounded_sam.reviews import Review
from autodistill_grounded_sam.run_setup import see_of
from autodistill_grounded_sam.store.lookup import Lookup
from autodistill_grounded_sam.types import Candidates, RgbImage

if TYPE_CHECKING:
    from autodistill_grounded_sam.app.server import AppServer

WORKERS_IN_MEMORY = 2  # a comparison may be of two models


def open_app(
    run: Path | str | None = None,
    *,
    detector: str | None = None,
    segmenter: str | None = None,
    ontology: Any = None,
    device: str = "auto",
    offline: bool = False,
    images: Path | str | None = None,
    speech: str | None = None,
    port: int = 0,
) -> AppServer:
    """A server of the playground; `serve_forever` it, and hand its `url` to the person.

    With a run, its models, words and last settings are the start, and its images are shown as they were seen, without a model.
    `speech` names a speech recognition model of transformers. Raises MissingExtraError without gradio.
    """
    try:
        import fastapi  # noqa: F401
        import gradio  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("the playground", extra="app") from error
    from autodistill_grounded_sam.app.server import AppServer

    return AppServer(Playground(material_of(run, detector, segmenter, ontology, device, offline, images, speech)), port)


def material_of(
    run: Path | str | None = None,
    detector: str | None = None,
    segmenter: str | None = None,
    ontology: Any = None,
    device: str = "auto",
    offline: bool = False,
    images: Path | str | None = None,
    speech: str | None = None,
) -> Material:
    """What the page works with; the arguments are those of `open_app`."""
    models = {role: name for role, name in (("detector", detector), ("segmenter", segmenter)) if name is not None}
    how = RunConfig(device=device, offline=offline)
    listen = None
    if speech is not None:
        from autodistill_grounded_sam.app.speech import Listener

        listen = Listener(speech, device, offline)
    if run is None:
        see = SeeConfig(detector="mini", segmenter="mini").model_copy(update=models)
        words = Ontology.load(FIRST_WORDS if ontology is None else ontology)
        return Material(see, DecideConfig(), words, Models(how), _labelled(how), listen=listen)
    decision = Decision.untrusted(run, ontology, images)
    decision.require_images()
    see = see_of(decision.store).model_copy(update=models)
    return Material(
        see, decision.config, decision.ontology, Models(how), _labelled(how), run=_run_material(decision, see_of(decision.store)),
        listen=listen,
    )  # fmt: skip


class Models:
    """Models that are asked some words about images; the last two sets of them stay in memory, whatever the words."""

    def __init__(self, how: RunConfig) -> None:
        self._how = how
        self._workers: OrderedDict[Any, SeeWorker] = OrderedDict()

    def __call__(self, see: SeeConfig, ontology: Ontology) -> Callable[[RgbImage], Candidates]:
        if see.masks == "kept":  # of what no settings but today's keep, while the page slides them
            see = see.model_copy(update={"masks": "all"})
        key = (see, tuple(ontology.examples.items()))
        worker = self._workers.pop(key, None)
        if worker is None:
            while len(self._workers) >= WORKERS_IN_MEMORY:
                self._workers.popitem(last=False)  # before another is loaded, or both would be in memory
            worker = pipeline.build_worker(LabelConfig(see=see, run=self._how), ontology)
        worker.ask(ontology.prompts, ontology.prompt_groups)
        self._workers[key] = worker
        return worker.look_at


def _labelled(how: RunConfig) -> Any:
    def label(
        images: Path,
        ontology: Ontology,
        out: Path | None,
        see: SeeConfig,
        decide: DecideConfig,
        formats: tuple[str, ...],
        job: FolderJob,
    ) -> pipeline.RunSummary:
        export = ExportConfig(formats=formats) if formats else ExportConfig()
        config = LabelConfig(see=see, run=how, decide=decide, export=export)
        return pipeline.label(images, ontology, out, config, progress=job)

    return label


def _run_material(decision: Decision, see: SeeConfig) -> RunMaterial:
    lookup = Lookup(decision.store, decision.images_root)
    if not len(lookup):
        raise WrongRunError(f"no image of {decision.store.run} was seen yet: run `label` first")

    def decide(config: DecideConfig, ontology: Ontology) -> pipeline.RunSummary:
        return redecide(decision.store.run, config, ontology, decision.images_root)

    return RunMaterial(
        name=str(decision.store.run.parent.absolute().name),
        see=see,
        images=len(lookup),
        prompts=decision.store.prompts,
        sighting=lookup.__getitem__,
        said=_Said(decision.store.run),
        decide=decide,
    )


class _Said:
    """What a person said of an image, by its digest, as it stands now: a review may go on while the page is open."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: tuple[Any, Mapping[str, Sequence[Review]]] = (None, {})  # one value, as several threads ask

    def __call__(self, digest: str) -> Sequence[Review]:
        try:
            found = (self._run / REVIEWS_FILE).stat()
            stamp = (found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            stamp = None
        known, reviews = self._known
        if stamp != known:
            reviews = {} if stamp is None else read_reviews_of(self._run)
            self._known = stamp, reviews
        return reviews.get(digest, ())


def redecide(run: Path, config: DecideConfig, ontology: Ontology, images: Path) -> pipeline.RunSummary:
    """Decide the run anew with these settings, at the trust that it had where that was measured with the very same ones."""
    trust = pipeline.last_settings(run)[0].trust
    try:
        return pipeline.redecide(run, config.model_copy(update={"trust": trust}), ontology, images=images)
    except WrongRunError:
        if not trust:
            raise
        summary = pipeline.redecide(run, config, ontology, images=images)
        note = f"images no longer wait for review: trust {trust:g} was measured with other settings; run `quality` again"
        return replace(summary, notes=[*summary.notes, note])
