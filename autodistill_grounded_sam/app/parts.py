"""What is on the page: gradio's components, laid out. `page` says what they do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from autodistill_grounded_sam.app import views
from autodistill_grounded_sam.app.playground import Playground
from autodistill_grounded_sam.app.words import lines_of, negatives_of
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.plugins import list_plugins
from autodistill_grounded_sam.weights import known_models

EVERY_CLASS = ""
TICK_SECONDS = 0.5  # between two looks at how far a folder is
WORDS_HINT = "red circle\nbox: blue square, purple square"


@dataclass(frozen=True)
class Source:
    """Which image is looked at: a file that was dropped, one of the run by its number, or a painted scene by its seed."""

    path: Path | None = None
    name: str = ""
    number: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Side:
    """One side of the page: words and models, what was seen with them, and where picture and scores are shown."""

    lines: Any
    negatives: Any
    detector: Any
    segmenter: Any
    look: Any
    picture: Any = None
    scores: Any = None


class Parts:
    """The components of the page, made within a gradio.Blocks; two sides, of which the second is for comparing."""

    def __init__(self, playground: Playground) -> None:
        self._playground, self._material = playground, playground.material
        run = self._material.run
        gr.HTML(views.show_title("" if run is None else run.name), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("One image"), gr.Row(equal_height=False, elem_classes="bench"):
                with gr.Column(scale=1, min_width=300, elem_classes="controls"):
                    self._lay_questions()
                with gr.Column(scale=3, min_width=320, elem_classes="answers"):
                    self._lay_answers()
            with gr.Tab("A folder"):
                self._lay_folder()

    def _lay_questions(self) -> None:
        """The costly half: which image, which words, which models."""
        self._lay_image()
        self.a = self._lay_side("", shown=True)
        self.go = gr.Button("Look", variant="primary")
        self.compare = gr.Checkbox(False, label="Compare with other words or models")
        with gr.Column(visible=False) as self.other:
            self.b = self._lay_side(", other side", shown=False)
            self.go_other = gr.Button("Look at both", variant="primary")

    def _lay_answers(self) -> None:
        """The cheap half: what was found at these scores."""
        plain: dict[str, Any] = {"elem_classes": "view", "apply_default_css": False}
        with gr.Row(elem_classes="views"):
            pictures = gr.HTML(views.show_welcome(self._material.run is not None), **plain), gr.HTML("", visible=False, **plain)
        self._lay_sliders()
        with gr.Row(elem_classes="views"):
            scores = gr.HTML("", **plain), gr.HTML("", visible=False, **plain)
        self.a, self.b = (
            replace(side, picture=picture, scores=own)
            for side, picture, own in zip((self.a, self.b), pictures, scores, strict=True)
        )
        self._lay_ontology()

    def _lay_image(self) -> None:
        run = self._material.run
        self.source = gr.State(Source())
        self.image = gr.Image(label="Image", sources=["upload", "clipboard"], height=150, buttons=[])
        self.image.preprocess = _as_it_came
        self.number = gr.Slider(
            1, max(2, run.images if run else 2), value=1, step=1, label=f"Image of the run, of {run.images if run else 0}",
            visible=run is not None and run.images > 1,
        )  # fmt: skip
        self.paint = gr.Button("Paint a scene instead", size="sm", variant="secondary", visible=run is None)

    def _lay_side(self, suffix: str, *, shown: bool) -> Side:
        material = self._material
        lines = gr.Textbox(
            lines_of(material.ontology) if shown else "", label=f"What to look for{suffix}", lines=3, max_lines=12,
            info="One class a line; prompts after a colon.", placeholder=WORDS_HINT,
        )  # fmt: skip
        if shown and material.listen is not None:
            self.said = gr.Audio(sources=["microphone", "upload"], label="Say it", format="wav")
            self.said.preprocess = _as_it_came
        negatives = gr.Textbox(
            negatives_of(material.ontology) if shown else "", label=f"Negatives{suffix}", lines=1,
            info="What it is often confused with: asked for, never labelled.", placeholder="red moon, orange ring",
        )  # fmt: skip
        with gr.Accordion(f"Models{suffix}", open=False):
            detector = gr.Dropdown(
                _names("detectors", material.see.detector), value=material.see.detector, label=f"Detector{suffix}",
                allow_custom_value=True, filterable=True,
            )  # fmt: skip
            segmenter = gr.Dropdown(
                _names("segmenters", material.see.segmenter), value=material.see.segmenter, label=f"Segmenter{suffix}",
                allow_custom_value=True, filterable=True,
            )  # fmt: skip
        return Side(lines, negatives, detector, segmenter, gr.State(None), None)

    def _lay_sliders(self) -> None:
        start = self._playground.start
        self.scores = gr.State({EVERY_CLASS: start.score, **start.of_class})
        with gr.Row(elem_classes="sliders"):
            self.score = gr.Slider(
                0, 1, value=start.score, step=0.01, label="Score that a label must reach", buttons=[], scale=3, min_width=240
            )
            self.of = gr.Dropdown(class_choices(self._material.ontology), value=EVERY_CLASS, label="of", scale=1, min_width=140)
            self.dropped = gr.Checkbox(False, label="Show what was dropped", container=False, scale=1, min_width=200)
        self.told = gr.HTML("", visible=False, apply_default_css=False)
        self.same = gr.Button("One score for every class", size="sm", visible=False)
        with gr.Accordion("Duplicates", open=False), gr.Row(elem_classes="sliders"):
            self.iou = gr.Slider(
                0, 1, value=min(1, start.duplicate_iou), step=0.01, buttons=[], label="Two labels are one object from this IoU"
            )
            self.containment = gr.Slider(
                0, 1, value=min(1, start.duplicate_containment), step=0.01, buttons=[],
                label="or where this share of the smaller lies inside",
            )  # fmt: skip

    def _lay_ontology(self) -> None:
        with gr.Accordion("Save the ontology", open=False):
            self.yaml = gr.Textbox("", label="Ontology", lines=4, max_lines=20, interactive=False, buttons=["copy"])
            with gr.Row():
                self.path = gr.Textbox("playground.yaml", label="File", scale=4, min_width=160)
                self.save = gr.Button("Save", scale=1, min_width=100)
            self.saved = gr.HTML("", apply_default_css=False)
        with gr.Accordion("Decide the whole run", open=False, visible=self._material.run is not None):
            gr.HTML(
                "<p class='soft'>Applies these words and scores to every image of the run, as `grounded-sam decide` does.</p>"
            )
            self.decide = gr.Button("Decide")
            self.decided = gr.HTML("", apply_default_css=False)

    def _lay_folder(self) -> None:
        formats = [plugin.name for plugin in list_plugins("formats")]
        with gr.Column(elem_classes="folder"):
            gr.HTML("<p class='soft'>Labels a folder on this machine with the words, models and scores of the first tab.</p>")
            self.folder = gr.Textbox("", label="Images", placeholder="/data/images")
            self.out = gr.Textbox("", label="Dataset", placeholder="beside the images, with _labeled after its name")
            self.formats = gr.Dropdown(formats, value=["yolo-seg"], multiselect=True, label="Formats")
            with gr.Row():
                self.label = gr.Button("Label", variant="primary")
                self.stop = gr.Button("Stop", interactive=False)
            self.standing = gr.HTML("", apply_default_css=False)
            self.timer = gr.Timer(TICK_SECONDS, active=False)


def theme() -> Any:
    """Plain, with the fonts of the system: none are fetched."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    mono = ["ui-monospace", "SF Mono", "Menlo", "monospace"]
    base = gr.themes.Base(primary_hue="blue", neutral_hue="stone", font=fonts, font_mono=mono)
    soft, soft_dark = "*neutral_600", "*neutral_300"  # gradio's own greys and blue are too light to be read (WCAG AA)
    return base.set(
        body_text_color_subdued=soft, body_text_color_subdued_dark=soft_dark,
        block_info_text_color=soft, block_info_text_color_dark=soft_dark,
        block_label_text_color=soft, block_label_text_color_dark=soft_dark,
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        input_placeholder_color=soft, input_placeholder_color_dark=soft_dark,
        color_accent="*primary_600", link_text_color="*primary_700", link_text_color_dark="*primary_300",
        button_primary_background_fill="*primary_600", button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700", button_primary_background_fill_hover_dark="*primary_700",
    )  # fmt: skip


def page_file(name: str) -> str:
    return (resources.files("autodistill_grounded_sam.app") / "page" / name).read_text(encoding="utf-8")


def _names(role: str, start: str) -> list[str]:
    known = [model.name for model in known_models() if model.role == role[:-1]]
    return list(dict.fromkeys([start, *(plugin.name for plugin in list_plugins(role)), *known]))


def class_choices(ontology: Ontology) -> list[tuple[str, str]]:
    return [("every class", EVERY_CLASS), *((name, name) for name in ontology.class_names)]


def _as_it_came(payload: Any) -> tuple[str, str] | None:
    """Path and name of what was dropped, in place of gradio's reading: ours turns pictures upright, and tells faults in words.

    (gradio writes a stub file beside every subclass of a component, so this is no subclass.)
    """
    return None if payload is None else (payload.path, payload.orig_name or Path(payload.path).name)
