"""The page: what each of its parts asks the playground, and what is shown of the answer."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from autodistill_grounded_sam.app import views
from autodistill_grounded_sam.app.folder import FolderJob
from autodistill_grounded_sam.app.parts import EVERY_CLASS, Parts, Side, Source, class_choices
from autodistill_grounded_sam.app.playground import FIRST_SCENE, Look, Playground, Settings, typed_path
from autodistill_grounded_sam.app.words import ontology_of, spoken_classes
from autodistill_grounded_sam.config import DecideConfig, SeeConfig
from autodistill_grounded_sam.errors import ConfigError, GroundedSamError, ImageReadError
from autodistill_grounded_sam.ontology import Ontology

logger = logging.getLogger(__name__)

# Settings that `label` has a flag for, and those that the saved ontology or the flags of the models say.
_FLAGS = ("masks", "mask_guess", "precision", "tiles", "tile_px", "views", "duplicate_iou", "duplicate_containment")
_SAID = ("detector", "segmenter", "box_threshold", "text_threshold")

Values = Mapping[Any, Any]  # what the components hold, by component


class Page:
    """The gradio page of a playground; `base_url` is where pictures and the report are served."""

    def __init__(self, playground: Playground, base_url: str) -> None:
        self._playground, self._material, self._base_url = playground, playground.material, base_url
        self.job = FolderJob()
        with gr.Blocks(title="grounded-sam playground", analytics_enabled=False, fill_width=True) as self.blocks:
            self._on = Parts(playground)
            self._wire()

    # what happens when

    def _wire(self) -> None:
        on = self._on
        sides = {field for side in (on.a, on.b) for field in (side.lines, side.negatives, side.detector, side.segmenter)}
        sliders = {on.score, on.of, on.scores, on.iou, on.containment, on.dropped}
        looks = {on.a.look, on.b.look}
        results = [one for side in (on.a, on.b) for one in (side.picture, side.scores)]
        shown = [*results, on.yaml, on.told, on.same]
        asked = {on.source, on.compare} | sides | sliders | looks
        seen = [on.a.look, on.b.look, on.of, on.score, *shown]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        models: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "models", "concurrency_limit": 1}
        choosing = [
            on.image.input(_dropped, on.image, on.source, **quiet),
            on.number.input(_of_run, on.number, on.source, trigger_mode="always_last", **quiet),
            on.paint.click(_next_scene, on.source, [on.source, on.image], **quiet),
            self.blocks.load(self._first, None, on.source, **quiet),
        ]
        asking = [on.go.click, on.go_other.click, on.a.lines.submit, on.a.negatives.submit,
                  *(choice.then for choice in choosing)]  # fmt: skip
        again = {**quiet, "queue": False, "trigger_mode": "always_last"}
        decided = sliders | looks
        for ask in asking:
            ask(
                self._look, asked, seen, show_progress_on=[on.a.picture, on.b.picture], trigger_mode="always_last", **models
            ).then(self._settle, decided, [on.score, *shown], **again)
        on.score.input(self._slide, decided, [on.scores, *shown], **again)
        for change in (on.iou.input, on.containment.input, on.dropped.input):
            change(self._redecide, decided, shown, **again)
        on.of.input(self._score_of, {on.of, on.scores}, [on.score], **again)
        on.same.click(self._forget, decided, [on.scores, on.of, on.score, *shown], **again)
        opened = [on.other, on.b.picture, on.b.scores, on.b.lines, on.b.negatives, on.b.detector, on.b.segmenter]
        on.compare.input(self._open_other, {on.compare, *sides}, opened, **quiet)
        on.save.click(self._write, asked | {on.path}, [on.saved], **quiet)
        on.decide.click(self._decide_run, asked, [on.decided], **models)
        self._wire_folder(asked)
        if self._material.listen is not None:
            on.said.input(self._hear, {on.said, on.a.lines}, [on.a.lines, on.told], **models)

    def _wire_folder(self, asked: set[Any]) -> None:
        on = self._on
        shown = [on.standing, on.label, on.stop, on.timer]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        wanted = asked | {on.folder, on.out, on.formats}
        on.label.click(self._start_folder, wanted, shown, **quiet)
        on.stop.click(self._stop_folder, None, shown, **quiet)
        on.timer.tick(self._tick, None, shown, queue=False, **quiet)
        self.blocks.load(self._tick, None, shown, queue=False, **quiet)

    # the answers

    def _first(self) -> Source:
        """What is looked at when the page opens: the run's first image, or a scene that the built-in models know."""
        if self._material.run is not None:
            return Source(number=0)
        return Source(seed=FIRST_SCENE) if self._material.see.detector == "mini" else Source()

    def _look(self, values: Values) -> list[Any]:
        settings, looks, shown = self._settings(values), list[Look | None](), list[Markup]()
        for side in (self._on.a, self._on.b) if values[self._on.compare] else (self._on.a,):
            look, *own = self._look_at(side, values, settings)
            looks.append(look)
            shown += own
        ontology = looks[0].ontology if looks[0] is not None else None
        looks += [None] * (2 - len(looks))
        shown += [Markup("")] * (4 - len(shown))
        chosen = [gr.skip(), gr.skip()] if ontology is None else self._chosen(values, ontology)
        return [*looks, *chosen, *shown, *self._written(ontology, settings)]

    def _chosen(self, values: Values, ontology: Ontology) -> list[Any]:
        """The classes that a score can be for, and the slider; a class that is gone gives way to every class."""
        scores, own = values[self._on.scores], values[self._on.of]
        own = own if own in ontology.class_names else EVERY_CLASS
        return [gr.update(choices=class_choices(ontology), value=own), scores.get(own, scores[EVERY_CLASS])]

    def _look_at(self, side: Side, values: Values, settings: Settings) -> tuple[Look | None, Markup, Markup]:
        source: Source = values[self._on.source]
        try:
            ontology = ontology_of(values[side.lines], values[side.negatives] or "", self._material.ontology)
            see = self._see(values[side.detector], values[side.segmenter])
            if source.path is not None:
                look = self._playground.look_at_file(source.path, source.name, see, ontology)
            elif source.number is not None:
                look = self._playground.look_at_run(source.number, see, ontology)
            elif source.seed is not None:
                look = self._playground.look_at_scene(source.seed, see, ontology)
            else:
                return None, views.show_welcome(self._material.run is not None), Markup("")
            return look, *self._show(look, settings, bool(values[self._on.dropped]))
        except Exception as error:
            return None, _fault(error), Markup("")

    def _redecide(self, values: Values) -> list[Any]:
        settings, dropped = self._settings(values), bool(values[self._on.dropped])
        looks: list[Look | None] = [values[self._on.a.look], values[self._on.b.look]]
        try:
            shown = [one for look in looks for one in ((gr.skip(),) * 2 if look is None else self._show(look, settings, dropped))]
        except Exception as error:
            shown = [_fault(error), *(gr.skip(),) * 3]
        return [*shown, *self._written(looks[0].ontology if looks[0] is not None else None, settings)]

    def _settle(self, values: Values) -> list[Any]:
        """After a look, which answers by the scores of when it was asked: they may have been slid meanwhile."""
        return [self._score_of(values), *self._redecide(values)]

    def _show(self, look: Look, settings: Settings, dropped: bool) -> tuple[Markup, Markup]:
        """Picture and scores."""
        labels = self._playground.labels(look, settings)
        picture = views.show_picture(look, labels, f"{self._base_url}/picture/{look.key}", dropped=dropped)
        return picture, views.show_scores(look, labels, settings, dropped=dropped)

    def _written(self, ontology: Ontology | None, settings: Settings) -> list[Any]:
        if ontology is None:
            return [gr.skip()] * 3
        told = views.show_own_scores(settings, ontology)
        return [
            settings.written(ontology, self._material.decide).to_yaml_text(),
            gr.update(value=told, visible=bool(told)),
            gr.update(visible=bool(told)),
        ]

    def _settings(self, values: Values) -> Settings:
        of_class, start = dict(values[self._on.scores]), self._playground.start
        return Settings(
            of_class.pop(EVERY_CLASS),
            of_class,
            _limit(values[self._on.iou], start.duplicate_iou),
            _limit(values[self._on.containment], start.duplicate_containment),
        )

    def _slide(self, values: Values) -> list[Any]:
        scores = {**values[self._on.scores], values[self._on.of]: float(values[self._on.score])}
        return [scores, *self._redecide({**values, self._on.scores: scores})]

    def _forget(self, values: Values) -> list[Any]:
        """Every class is held to the same score again."""
        scores = {EVERY_CLASS: values[self._on.scores][EVERY_CLASS]}
        return [scores, EVERY_CLASS, scores[EVERY_CLASS], *self._redecide({**values, self._on.scores: scores})]

    def _score_of(self, values: Values) -> float:
        scores: dict[str, float] = values[self._on.scores]
        return scores.get(values[self._on.of], scores[EVERY_CLASS])

    def _see(self, detector: str, segmenter: str) -> SeeConfig:
        if not detector or not segmenter:
            raise ConfigError("choose a detector and a segmenter under Models")
        return self._material.see.model_copy(update={"detector": detector, "segmenter": segmenter})

    def _open_other(self, values: Values) -> list[Any]:
        """The other side begins as this one: then whatever is changed there is all that differs."""
        a, b = self._on.a, self._on.b
        opened, side = gr.update(visible=bool(values[self._on.compare])), b if values[b.lines] else a
        return [*(opened,) * 3, *(values[one] for one in (side.lines, side.negatives, side.detector, side.segmenter))]

    def _write(self, values: Values) -> Markup:
        def save() -> Markup:
            settings = self._settings(values)
            ontology = ontology_of(values[self._on.a.lines], values[self._on.a.negatives] or "", self._material.ontology)
            path = self._playground.save(settings.written(ontology, self._material.decide), values[self._on.path])
            return views.show_note(f"Saved. {self._command(values, settings, path)}")

        return _told(save)

    def _command(self, values: Values, settings: Settings, path: Path) -> str:
        """The `label` that does the same elsewhere, and what of it no flag can say; the scores are in the ontology."""
        words = ["grounded-sam", "label", "IMAGES", "--ontology", str(path)]
        words += ["--detector", values[self._on.a.detector], "--segmenter", values[self._on.a.segmenter]]
        see, decide = self._material.see, settings.config(self._material.decide)
        unusual = {name: value for name, value in see if value != getattr(SeeConfig(), name)}
        unusual |= {name: value for name, value in decide if value != getattr(DecideConfig(), name)}
        unsaid = []
        for name, value in unusual.items():
            said = ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
            if name in _FLAGS:
                words += [f"--{name.replace('_', '-')}", said]
            elif name not in _SAID:
                unsaid.append(f"{name} {said}")
        rest = f"\nThe run also has {', '.join(unsaid)}, for which `label` has no flag." if unsaid else ""
        return shlex.join(words) + rest

    def _decide_run(self, values: Values) -> Markup:
        def decide() -> Markup:
            run, settings = self._material.run, self._settings(values)
            if run is None:
                raise ConfigError("no run is open: start with `grounded-sam app RUN`")
            ontology = ontology_of(values[self._on.a.lines], values[self._on.a.negatives] or "", self._material.ontology)
            return views.show_decided(run.decide(settings.config(self._material.decide), settings.applied(ontology)))

        return _told(decide)

    def _hear(self, values: Values) -> list[Any]:
        listen, said = self._material.listen, values[self._on.said]
        if listen is None or said is None:  # it was taken away
            return [gr.skip(), gr.update(visible=False)]
        try:
            heard = listen(_sound(*said))
        except Exception as error:
            return [gr.skip(), gr.update(value=_fault(error), visible=True)]
        lines = [line for line in (values[self._on.a.lines] or "").splitlines() if line.strip()]
        lines += [name for name in spoken_classes(heard) if name not in lines]
        return ["\n".join(lines), gr.update(value=views.show_note(f"Heard: {heard}"), visible=True)]

    # a folder

    def _start_folder(self, values: Values) -> list[Any]:
        try:
            folder, settings = str(values[self._on.folder] or "").strip(), self._settings(values)
            if not folder:
                raise ConfigError("say which folder to label")
            images = typed_path(folder)
            ontology = settings.applied(
                ontology_of(values[self._on.a.lines], values[self._on.a.negatives] or "", self._material.ontology)
            )
            see = self._see(values[self._on.a.detector], values[self._on.a.segmenter])
            out = str(values[self._on.out] or "").strip()
            target = typed_path(out) if out else None
            config, formats = settings.config(self._material.decide), tuple(values[self._on.formats] or ())
            label = self._material.label
            self.job.start(lambda job: label(images, ontology, target, see, config, formats, job))
        except Exception as error:
            return [_fault(error), *self._tick()[1:]]
        return self._tick()

    def _stop_folder(self) -> list[Any]:
        self.job.stop()
        return self._tick()

    def _tick(self) -> list[Any]:
        standing = self.job.standing
        shown = views.show_standing(standing, f"{self._base_url}/report")
        return [
            shown,
            gr.update(interactive=not standing.running),
            gr.update(interactive=standing.phase == "working"),
            gr.Timer(active=standing.running),
        ]


def _limit(slid: float, start: float) -> float:
    """A limit that begins beyond the end of its slider, as NEVER does, stands at that end."""
    return start if slid >= 1 and start > 1 else slid


def _dropped(image: tuple[str, str] | None) -> Source:
    return Source() if image is None else Source(path=Path(image[0]), name=image[1])


def _sound(path: str, name: str) -> tuple[int, Any]:
    """Samples a second, and the samples, of a file."""
    try:
        return gr.processing_utils.audio_from_file(path)  # type: ignore[no-any-return]
    except Exception as error:  # whatever its readers raise; but for WAV they need ffmpeg, and say so
        raise ConfigError(f"{name} cannot be read as sound: {error}") from error


def _of_run(number: float) -> Source:
    return Source(number=int(number) - 1)


def _next_scene(source: Source) -> tuple[Source, None]:
    """The scene to look at, and no image that was dropped."""
    return Source(seed=FIRST_SCENE if source.seed is None else source.seed + 1), None


def _told(work: Callable[[], Markup]) -> Markup:
    try:
        return work()
    except Exception as error:
        return _fault(error)


def _fault(error: Exception) -> Markup:
    """A fault in words: ours say themselves what to do; any other is told by its kind, and the terminal has the rest."""
    if isinstance(error, ImageReadError):  # its short reason is for counting
        return views.show_fault(f"The image cannot be read: {error.detail}")
    if isinstance(error, GroundedSamError):
        return views.show_fault(str(error))
    logger.error("the page could not do it", exc_info=error)
    return views.show_fault(f"This went wrong: {type(error).__name__}: {error}\nThe terminal says more.")
