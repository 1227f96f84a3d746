"""Few labelled images to adapted weights: read, choose, learn, write. `adapt_weights` is the whole story."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam.adapt import card as cards
from autodistill_grounded_sam.adapt import weights_folder
from autodistill_grounded_sam.adapt.examples import Example, Fault, Labelled, read_labelled
from autodistill_grounded_sam.adapt.recipe import SIDE_STEP_PX, Recipe, choose_recipe, hold_out
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.store.lock import RunLock
from autodistill_grounded_sam.weights import FoundWeights, find_weights

if TYPE_CHECKING:
    from autodistill_grounded_sam.adapt.training import State

logger = logging.getLogger(__name__)

OnLook = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class AdaptResult:
    """Adapted weights in the folder `weights`, and how they came to be.

    `figures` are AP and AP50 on the images that were held out, `figures_before` those of the parent; both are empty where none
    could be spared. `recipe` is what was chosen or asked; `faults` are the annotations that were left out. `segmenter` is the
    folder of the adapted one, if one was asked for, and `mask_iou` holds its mean IoU `before` and `adapted` on held-out masks.
    """

    weights: Path
    parent: str
    figures: Mapping[str, float]
    figures_before: Mapping[str, float]
    recipe: Mapping[str, Any]
    images: int
    held_out: int
    steps: int
    faults: Sequence[Fault] = ()
    warnings: Sequence[str] = ()
    command: str = ""
    segmenter: Path | None = None
    mask_iou: Mapping[str, float] = field(default_factory=dict)


def adapt_weights(
    images: Path | str,
    annotations: Path | str,
    ontology: Any,
    out: Path | str,
    *,
    detector: str = "mini",
    segmenter: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    turns: bool = False,
    shorter_side_px: int | None = None,
    device: str = "auto",
    offline: bool = False,
    on_look: OnLook | None = None,
) -> AdaptResult:
    """Adapt a detector to labelled images; the weights folder `out` is a detector of its own then.

    `annotations` is a COCO json or a YOLO data.yaml of some or all of the `images`, taken to be complete. `minutes` (10 where
    neither is given) become steps at the start; the same `steps` give the same weights. `turns` learns quarter turns as well,
    for what has no upright. With a `segmenter` its mask decoder learns the masks of the annotations as well, into
    `out/segmenter`. Run again after an interruption, it goes on where it was (the segmenter from its start). `on_look` is called
    with (step, steps, figures). Raises DatasetError, OntologyError, WeightsError, ConfigError, and WrongPlaceError for an `out`
    that holds something else.
    """
    from autodistill_grounded_sam.adapt.training import Training
    from autodistill_grounded_sam.detect.grounding_dino import Loaded, load

    wishes = _wishes(minutes, steps, shorter_side_px) | {"seed": seed, "turns": turns}
    target, words = Path(out), _words_to_learn(ontology)
    labelled = read_labelled(Path(images), Path(annotations), words)
    for line in labelled.warnings:
        logger.warning("%s", line)
    parent = find_weights(detector, "detector", offline=offline)
    model, tokenizer, inputs = load(detector, offline=offline)
    recipe = choose_recipe(labelled.examples, model, (inputs.shorter_px, inputs.longer_px), **wishes)
    cutter = _segmenter_parent(segmenter, labelled, offline)
    identity = _identity(parent, labelled, words, recipe) | ({"segmenter": cutter.identity} if cutter else {})
    command = _command(images, annotations, ontology, detector, segmenter, recipe, target)
    card = weights_folder.finished(target, identity)
    if card is None:
        learn, held = hold_out(labelled.examples, words)
        loaded = Loaded(weights_folder.with_queries(model, recipe.queries), tokenizer, inputs.bounded(
            recipe.shorter_side_px, recipe.longer_side_px
        ))  # fmt: skip
        with RunLock(target / weights_folder.UNFINISHED):
            unfinished = weights_folder.begin(target, identity)
            training = Training(loaded, learn, held, words, recipe, usable_device(device))
            training.run(unfinished / "state.pt", on_look)
            card = _card(identity, parent, labelled, words, (learn, held), training.state, command)
            if cutter is not None:
                card |= _adapt_segmenter(cutter, learn, held, recipe, usable_device(device), unfinished, on_look)
            text, dtype = cards.readme(card, target.name), weights_folder.stored_dtype(parent.files)
            weights_folder.save(target, loaded._replace(model=training.mean), card, text, dtype)
    return AdaptResult(
        target, detector, card["figures"], card["figures before"], card["recipe"], len(labelled.examples), len(card["held out"]),
        card["steps"], labelled.faults, labelled.warnings, card["command"],
        target / weights_folder.SEGMENTER if segmenter else None, card.get("mask IoU", {}),
    )  # fmt: skip


def _words_to_learn(ontology: Any) -> Ontology:
    """Raises ConfigError for example images: what learns here is Grounding DINO, which would read their prompts as words."""
    words = Ontology.load(ontology)
    shown = [spec for spec in words.classes if spec.examples]
    if shown:
        mute = ", ".join(repr(spec.name) for spec in shown if not spec.prompts)
        raise ConfigError(
            f"adapting teaches words, and {', '.join(repr(spec.name) for spec in shown)} of the ontology holds example images "
            f"(examples:), which no detector that can be adapted knows: leave them out{mute and f', and give {mute} prompts'}"
        )
    return words


def _wishes(minutes: float | None, steps: int | None, shorter_side_px: int | None) -> dict[str, Any]:
    if minutes is not None and steps is not None:
        raise ConfigError("minutes and steps both say how long to learn; give one of them")
    if (steps is not None and steps < 1) or (minutes is not None and not 0 < minutes < math.inf):
        raise ConfigError(f"minutes and steps must be positive and finite, got {steps if minutes is None else minutes}")
    if shorter_side_px is not None and shorter_side_px < SIDE_STEP_PX:
        raise ConfigError(
            f"the shorter side must be {SIDE_STEP_PX} px or more, got {shorter_side_px}; leave it out to have it chosen"
        )
    minutes = 10.0 if minutes is None and steps is None else minutes
    return {"minutes": minutes, "steps": steps, "shorter_side_px": shorter_side_px}


def _segmenter_parent(name: str | None, labelled: Labelled, offline: bool) -> FoundWeights | None:
    if name is None:
        return None
    if not any(example.rle for example in labelled.examples):
        raise ConfigError(
            "a segmenter learns from masks, and the annotations hold boxes only; leave --segmenter out, or label masks"
        )
    from autodistill_grounded_sam.segment.models import family_of, load

    family = family_of(load(name, offline=offline))
    if family.model != "SamModel":
        raise ConfigError(f"the mask decoder of {name} cannot learn: it is {family.title}, and only SAM's can; give a SAM")
    return find_weights(name, "segmenter", offline=offline)


def _adapt_segmenter(
    cutter: FoundWeights,
    learn: Sequence[Example],
    held: Sequence[Example],
    recipe: Recipe,
    device: str,
    unfinished: Path,
    on_look: OnLook | None,
) -> dict[str, Any]:
    """Write the adapted segmenter among the unfinished work; what the card says of it."""
    from autodistill_grounded_sam.adapt import mask_training
    from autodistill_grounded_sam.segment.models import load

    model, looks = mask_training.train_masks(
        load(str(cutter.path)), mask_training.masked(learn), mask_training.masked(held), steps=recipe.steps, seed=recipe.seed,
        device=device, on_look=on_look,
    )  # fmt: skip
    dtype = weights_folder.stored_dtype(cutter.files)
    mask_training.save_segmenter(model, unfinished / weights_folder.WHOLE / weights_folder.SEGMENTER, dtype)
    iou = [figures["mask_iou"] for _, figures in looks if figures]
    return {
        "segmenter": {"name": cutter.name, "sha256": cutter.sha256, "licence": cards.licence_of(cutter), "looks": looks},
        "mask IoU": {"before": iou[0], "adapted": max(iou)} if iou else {},
    }


def _identity(parent: FoundWeights, labelled: Labelled, words: Ontology, recipe: Recipe) -> dict[str, Any]:
    """What an interrupted adaptation must have in common with this one, as it reads back from JSON."""
    facts = {"parent": parent.identity, "data": labelled.digest, "ontology": words.document(), "recipe": asdict(recipe)}
    content: dict[str, Any] = json.loads(json.dumps(facts))
    return content


def _card(
    identity: Mapping[str, Any],
    parent: FoundWeights,
    labelled: Labelled,
    words: Ontology,
    parts: tuple[Sequence[Example], Sequence[Example]],
    state: State,
    command: str,
) -> dict[str, Any]:
    learn, held = parts
    figures = [{name: value for name, value in of.items() if name != "loss"} for _, of in state.looks]
    return {
        "identity": identity,
        "parent": {"name": parent.name, "sha256": parent.sha256},
        "licence": cards.licence_of(parent),
        "data": {
            "digest": labelled.digest, "images": len(labelled.examples),
            "classes": cards.class_counts(labelled.examples, words.class_names),
            "left out": [asdict(fault) for fault in labelled.faults],
        },
        "recipe": identity["recipe"],
        "held out": [example.name for example in held],
        "learnt from": [example.digest for example in learn],
        "figures before": figures[0],
        "figures": figures[state.best_look] if held else {},
        "steps": state.step,
        "planned steps": state.steps,
        "looks": state.looks,
        "made with": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "command": command,
    }  # fmt: skip


def _command(
    images: Any, annotations: Any, ontology: Any, detector: str, segmenter: str | None, recipe: Recipe, out: Path
) -> str:
    """The command that repeats it; an ontology that was not given as text is named by its kind."""
    words = str(ontology) if isinstance(ontology, (str, Path)) else f"<{type(ontology).__name__}>"
    length = ["--steps", str(recipe.steps)] if recipe.steps else ["--minutes", f"{recipe.minutes:g}"]
    more = (["--turns"] if recipe.turns else []) + (["--segmenter", segmenter] if segmenter else [])
    return shlex.join(
        ["grounded-sam", "adapt", "--images", str(images), "--annotations", str(annotations), "--ontology", words, "--detector",
         detector, "--out", str(out), *length, "--seed", str(recipe.seed), "--shorter-side", str(recipe.shorter_side_px), *more]
    )  # fmt: skip
