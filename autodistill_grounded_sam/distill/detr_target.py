"""Students of transformers (RF-DETR for boxes or masks, D-FINE, RT-DETR): train one on a labelled dataset."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.datasets import dataset_class_names
from autodistill_grounded_sam.distill.detr_recipe import Recipe
from autodistill_grounded_sam.errors import ConfigError, WrongPlaceError
from autodistill_grounded_sam.loading import usable_device
from autodistill_grounded_sam.protocols import OnEpoch
from autodistill_grounded_sam.types import TrainResult

if TYPE_CHECKING:
    from autodistill_grounded_sam.distill.detr_training import Training

logger = logging.getLogger(__name__)

CARD, UNFINISHED = "training.json", "unfinished"
_LEARNS = (
    "learns painted scenes (`tests/journeys/test_detr_students.py`), its ONNX file answers alike "
    "(`tests/distill/test_onnx_student.py`)"
)
_TUNED = (
    "trained from saved tiny weights, begun anew after a kill (`tests/distill/test_detr_target.py`); no pretrained ones were here"
)
SCRATCH_SETTINGS = {"lr": 1e-3, "backbone_share": 1.0}  # from random weights all learns alike, and faster


class DetrTarget:
    """A detection transformer: `rf-detr-nano`, `rf-detr-seg-small`, `d-fine-s`, `rt-detr-r18`, a hub id, a folder of weights.

    Pretrained weights come from the hub; without them it does not start. `rf-detr-mini`, `rf-detr-seg-mini`, `d-fine-mini`,
    `rt-detr-mini` and a folder that holds only a config.json start from random weights.
    """

    about = (
        About("rf-detr-nano", _TUNED, "Roboflow/rf-detr-*", "Apache-2.0", "transformers 5.9"),
        About("rf-detr-seg-nano", _TUNED, "Roboflow/rf-detr-seg-*", "Apache-2.0", "transformers 5.9"),
        About("d-fine-n", _TUNED, "ustc-community/dfine-*-coco", "Apache-2.0"),
        About("rt-detr-r18", _TUNED, "PekingU/rtdetr_*", "Apache-2.0"),
        *(About(name, _LEARNS) for name in ("rf-detr-mini", "rf-detr-seg-mini", "d-fine-mini", "rt-detr-mini")),
    )

    def __init__(self, model: str = "rf-detr-nano", *, offline: bool | None = None) -> None:
        self.model = str(model)
        self._offline = bool(offline)

    def train(
        self,
        dataset: Path,
        *,
        out: Path,
        epochs: int = 50,
        imgsz: int | None = None,
        batch: int = 16,
        seed: int = 0,
        device: str = "auto",
        on_epoch: OnEpoch | None = None,
        **settings: Any,
    ) -> TrainResult:
        """Train on a YOLO or COCO dataset; `out/best` and `out/last` are folders of transformers, `out/training.json` the facts.

        `imgsz` None is the size that the model was made for; `settings` are those of `detr_recipe.Recipe` (`lr`,
        `backbone_share`, `mirror`, ...). Figures are those of the best epoch on the validation split. Run again
        after a kill it goes on where it was; with other settings it raises WrongPlaceError. Raises DatasetError for a dataset
        that this student cannot learn from, ConfigError for an unknown model or a wrong setting, WeightsError without weights.
        """
        import torch

        from autodistill_grounded_sam.distill.detr_dataset import read_training_set
        from autodistill_grounded_sam.distill.detr_models import model_to_train
        from autodistill_grounded_sam.distill.detr_training import Training

        out, dataset = Path(out).resolve(), Path(dataset)
        torch.manual_seed(seed)
        detr = model_to_train(self.model, dataset_class_names(dataset), imgsz, offline=self._offline)
        own = SCRATCH_SETTINGS if detr.started_from.startswith("random") else {}
        recipe = _recipe(epochs, batch, seed, {**own, **settings})
        data = read_training_set(dataset, masks=detr.makes_masks)
        card = {
            "started from": detr.started_from, "input side": detr.inputs.side_px, "data": data.digest,
            "recipe": dataclasses.asdict(recipe),
        }  # fmt: skip
        command = _command(self.model, dataset, out, imgsz, device, recipe, settings)
        done = _finished(out, card)
        if done is not None:
            logger.info("%s is trained already", out)
            return TrainResult(out / "best", done["started from"], done["figures"], done["command"])
        training = Training(detr, data, recipe, usable_device(device))
        training.run(_begin(out, card), on_epoch)
        figures = _finish(out, training, {**card, "command": command})
        logger.info("trained %s from %s: %s", out / "best", detr.started_from, figures)
        return TrainResult(out / "best", detr.started_from, figures, command)


def _recipe(epochs: int, batch: int, seed: int, settings: Mapping[str, Any]) -> Recipe:
    names = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("epochs", "batch", "seed")]
    for name, value in settings.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(
                f"this student has no training setting {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}")
            )
        if isinstance(getattr(Recipe, name), bool) != isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"setting {name} must be like {getattr(Recipe, name)!r}, got {value!r}")
    for flag, value in (("epochs", epochs), ("batch-size", batch)):
        if value < 1:
            raise ConfigError(f"{flag} must be 1 or more, got {value}; set it with --{flag}")
    return Recipe(epochs, batch, seed, **settings)


def _finished(out: Path, card: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card, if the very same student is trained there already; None where training may begin or go on. Writes nothing.

    Raises WrongPlaceError where anything else lies at `out`.
    """
    for note in (out / CARD, out / UNFINISHED / CARD):
        if note.is_file():
            content: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
            other = ", ".join(name for name in card if content.get(name) != card[name])
            if other:
                raise WrongPlaceError(f"{out} holds a student of another {other}; give another --out, or delete it")
            return content if note.parent == out else None
    if (out / "best").exists():
        raise WrongPlaceError(f"{out / 'best'} is there already and is no student of ours; give another --out")
    return None


def _begin(out: Path, card: Mapping[str, Any]) -> Path:
    """The file of unfinished work, in a folder that says whose it is."""
    (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
    _write(out / UNFINISHED / CARD, card)
    return out / UNFINISHED / "state.pt"


def _finish(out: Path, training: Training, card: Mapping[str, Any]) -> dict[str, float]:
    """Write the last weights, the best, and then the card, by which the student counts as whole; returns the best's figures."""
    from autodistill_grounded_sam.distill.detr_models import save

    state = training.state
    weights = {"last": dict(training.mean.model.state_dict())}
    weights["best"] = state.best or weights["last"]
    for name, content in weights.items():
        training.mean.model.load_state_dict(content)
        partial = out / UNFINISHED / name
        save(partial, training.mean)
        shutil.rmtree(out / name, ignore_errors=True)  # of an earlier try that was killed right here
        partial.replace(out / name)
    figures = dict(state.history).get(state.best_epoch, {})
    _write(out / CARD, {**card, "figures": figures, "best epoch": state.best_epoch, "history": state.history})
    shutil.rmtree(out / UNFINISHED)
    return figures


def _write(file: Path, content: Mapping[str, Any]) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def _command(
    model: str, dataset: Path, out: Path, imgsz: int | None, device: str, recipe: Recipe, settings: Mapping[str, Any]
) -> str:
    words = ["grounded-sam", "distill", str(dataset), "--target", model, "--out", str(out), "--epochs", str(recipe.epochs)]
    words += [] if imgsz is None else ["--imgsz", str(imgsz)]
    words += ["--batch-size", str(recipe.batch), "--seed", str(recipe.seed), "--device", device]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)
