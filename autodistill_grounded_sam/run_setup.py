"""What a run is set up with: its worker, its batch size, what its store belongs to, and what run.json tells people about it."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam import plugins, weights
from autodistill_grounded_sam.config import DecideConfig, LabelConfig, SeeConfig, checked
from autodistill_grounded_sam.decide.chain import decide
from autodistill_grounded_sam.detect.choosing import MAKES_MASKS, SCORELESS, TAKES_EXAMPLES
from autodistill_grounded_sam.engine.local import LocalEngine
from autodistill_grounded_sam.engine.ray import RayEngine, import_ray
from autodistill_grounded_sam.engine.worker import SeeWorker
from autodistill_grounded_sam.errors import ConfigError
from autodistill_grounded_sam.learnt import learnt_from
from autodistill_grounded_sam.loading import pick_device
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.protocols import Engine, WorkerSpec
from autodistill_grounded_sam.store.store import Store, StoreWriter, recorded_batch_size
from autodistill_grounded_sam.types import REASONS, Candidates, ImageRecord, Reason

AUTO_BATCH = 4  # a CPU gains nothing from more
# On an NVIDIA card as many as its free memory holds. Both are estimates on the high side, of the default models and 800 x 1333;
# where they are too bold after all, the worker halves the batch and goes on.
MODELS_GB, IMAGE_GB, MOST_IMAGES = 4.0, 1.5, 32
_PACKAGES = ("autodistill-grounded-sam", "torch", "transformers", "numpy", "pillow", "opencv-python-headless", "pyarrow")


class KeptMasksWorker(SeeWorker):
    """Makes masks only for candidates that `decide` would look at today: those that pass thresholds and negatives."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self._decide = checked(DecideConfig, dict(spec["decide"]))
        self._ontology = Ontology.from_document(spec["ontology"])

    def wanted(self, image: ImageRecord, candidates: Candidates) -> npt.NDArray[np.bool_]:
        reasons = decide(candidates, self._ontology, self._decide, image.width, image.height).reasons
        by_score = [REASONS.index(Reason.THRESHOLD), REASONS.index(Reason.NEGATIVE)]
        return ~np.isin(reasons, by_score)


def refuse_impossible(config: LabelConfig, ontology: Ontology) -> None:
    """Raise ConfigError for example images if a detector knows words alone, and for a detector's own masks if it makes none."""
    see = config.see
    detectors = plugins.members("detectors", see.detector)
    types = {name: _model_type(name, config.run.offline) for name, _ in detectors}
    for name in types if ontology.examples else ():
        if types[name] not in TAKES_EXAMPLES:
            raise ConfigError(
                f"the ontology holds example images, but {name} knows words alone; OWLv2, OWL-ViT and SAM 3 can use them "
                "(docs/detectors.md)"
            )
    if see.masks == "none" or plugins.OWN_MASKS not in dict(plugins.members("segmenters", see.segmenter)):
        return
    if len(detectors) > 1 or see.views or see.tiles != "none":
        raise ConfigError(
            f"segmenter {plugins.OWN_MASKS!r} hands on the detector's own masks, and boxes of several detectors, views or tiles "
            "have none: name a segmenter"
        )
    for name, model_type in types.items():
        if model_type is not None and model_type not in MAKES_MASKS:
            raise ConfigError(
                f"segmenter {plugins.OWN_MASKS!r} hands on the detector's own masks, but {name} makes none (SAM 3 does): name a "
                "segmenter"
            )


def _model_type(name: str, offline: bool) -> str | None:
    """The `model_type` of a built-in detector's weights, None of a plugin."""
    if not plugins.find("detectors", name).built_in:
        return None
    found = weights.find_weights(name.removeprefix(plugins.ORIGINAL), "detector", offline=offline)
    return found.model_type if found.kind == "transformers" else "official"


def worker_type_of(config: LabelConfig) -> type[SeeWorker]:
    return KeptMasksWorker if config.see.masks == "kept" else SeeWorker


def planner_of(config: LabelConfig, worker_type: type[SeeWorker], spec: WorkerSpec) -> SeeWorker:
    """The worker that tells input sizes while batches are planned: with the local engine the one that looks as well; with ray,
    where others look, one without a segmenter."""
    if config.run.engine == "ray":
        import_ray()  # what is missing is told before a model is loaded
        return SeeWorker({**spec, "see": {**spec["see"], "masks": "none"}})
    return worker_type(spec)


def engine_of(config: LabelConfig, worker: SeeWorker) -> Engine:
    if config.run.engine == "ray":
        return RayEngine(config.run.workers, config.run.gpus_per_worker)
    return LocalEngine(worker)


def worker_spec(config: LabelConfig, ontology: Ontology, prompt_groups: Sequence[Sequence[str]] | None = None) -> WorkerSpec:
    """All that a worker is built from, as plain data. `prompt_groups` decide which prompts share a caption: a run keeps those
    of its first day."""
    return {
        "see": config.see.model_dump(),
        "device": config.run.device,
        "offline": config.run.offline,
        "prompts": list(ontology.prompts),
        "prompt_groups": [list(group) for group in (ontology.prompt_groups if prompt_groups is None else prompt_groups)],
        "examples": {prompt: example.document() for prompt, example in ontology.examples.items()},
        "decide": config.decide.model_dump(),
        "ontology": ontology.document(),
    }


def identity_of(config: LabelConfig, ontology: Ontology) -> dict[str, Any]:
    """What a store belongs to. With masks of the kept ones only, also what decided which those are."""
    not_of_images = {"detector", "segmenter", "max_megapixels"}
    if config.see.masks == "none" or config.see.mask_guess == "single":  # stores older than this setting hold single ones
        not_of_images.add("mask_guess")
    if not config.see.views:  # as those older than views
        not_of_images.add("views")
    image_settings = config.see.model_dump(mode="json", exclude=not_of_images)
    identity: dict[str, Any] = {
        "prompts": list(ontology.prompts),
        "detector": model_identity("detectors", config.see.detector, config.run.offline),
        "segmenter": None,
        "see": image_settings,
    }
    if config.see.masks != "none":
        identity["segmenter"] = model_identity("segmenters", config.see.segmenter, config.run.offline)
    if config.see.masks == "kept":
        decide_settings = config.decide.model_dump(mode="json", exclude={"trust"})  # which drops no candidate
        identity["masks of"] = {"decide": decide_settings, "ontology": ontology.document()}
    return identity


def model_identity(role: str, name: str, offline: bool) -> dict[str, Any]:
    """What a store remembers of a model; of several that are joined, one digest of all and of their thresholds."""
    members = plugins.members(role, name)
    if members == [(name, None)]:
        return _one_model(role, name, offline)
    parts = [(_one_model(role, own, offline), threshold) for own, threshold in members]
    texts = {key: [f"{part.get(key) or part['name']} {threshold}" for part, threshold in parts] for key in ("sha256", "identity")}
    digests = {key: hashlib.sha256("\n".join(lines).encode()).hexdigest() for key, lines in texts.items()}
    return {"name": name, **digests}


def _one_model(role: str, name: str, offline: bool) -> dict[str, Any]:
    plugin = plugins.find(role, name)
    if not plugin.built_in:
        return {"name": f"{plugin.target} of {plugin.distribution}", "sha256": None}
    if not plugin.has_weights:
        return {"name": name, "sha256": None}
    found = weights.find_weights(name.removeprefix(plugins.ORIGINAL), cast(weights.Role, role[:-1]), offline=offline)
    if name.startswith(plugins.ORIGINAL):  # another forward pass, so another model, if only by its rounding
        return {"name": name, "sha256": hashlib.sha256(f"{plugins.ORIGINAL}{found.sha256}".encode()).hexdigest()}
    scoreless = role == "detectors" and found.kind == "transformers" and found.model_type in SCORELESS
    return {"name": name, "sha256": found.sha256, "identity": found.identity, **({"scores": False} if scoreless else {})}


def see_of(store: Store) -> SeeConfig:
    """The models and image settings of a run, to look with them again."""
    identity = store.info["identity"]
    models = {role: _name_of(identity[role]) for role in ("detector", "segmenter") if identity.get(role)}
    return checked(SeeConfig, {**identity.get("see", {}), **models})


def _name_of(model: Mapping[str, Any]) -> str:
    """The name that a model of a run was asked for with; that of a plugin, which has no checksum, is told with its package."""
    name = str(model["name"])
    return name.partition(" of ")[0] if model["sha256"] is None else name


def learnt_by(config: LabelConfig) -> list[str]:
    """The digests of the images that the detector was adapted to, if it was."""
    names = [name for name, _ in plugins.members("detectors", config.see.detector) if plugins.find("detectors", name).built_in]
    found = [weights.find_weights(name.removeprefix(plugins.ORIGINAL), "detector", offline=config.run.offline) for name in names]
    return list(dict.fromkeys(digest for one in found for digest in learnt_from(one.path)))


def batch_size_of(config: LabelConfig, run: Path) -> int:
    if config.run.batch_size != "auto":
        return config.run.batch_size
    recorded = recorded_batch_size(run)
    if recorded is not None:
        return recorded
    built_in = any(plugins.find("detectors", name).built_in for name, _ in plugins.members("detectors", config.see.detector))
    device = pick_device(config.run.device) if built_in else "cpu"
    return _fitting(device) if device.startswith("cuda") else AUTO_BATCH


def _fitting(device: str) -> int:
    """How many images fit in the free memory of an NVIDIA card, as a power of two."""
    import torch

    try:
        free_gb = torch.cuda.mem_get_info(device)[0] / 2**30
    except (RuntimeError, AssertionError):  # of the workers' machines, or of none: theirs to tell
        return AUTO_BATCH
    fits = min(MOST_IMAGES, max(1, int((free_gb - MODELS_GB) / IMAGE_GB)))
    return 1 << (fits.bit_length() - 1)


def session_note(store: StoreWriter, config: LabelConfig, looked_at: int, stages: Mapping[str, float]) -> dict[str, Any]:
    """This call, for people who read run.json."""
    session = {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": _command(),
        "device": config.run.device,
        "images": looked_at,
        "seconds": {stage: round(seconds, 3) for stage, seconds in stages.items()},
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }
    return {"sessions": [*store.info.get("sessions", []), session]}


def peak_memory_mb() -> float | None:
    """The most memory that this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def _command() -> str:
    """Our own command line in full; of any other program its name alone, since its arguments may hold secrets."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if sys.argv and Path(sys.argv[0]) == Path(__file__).with_name("cli.py"):  # python -m autodistill_grounded_sam.cli
        program = "grounded-sam"
    return shlex.join([program, *sys.argv[1:]]) if program.startswith("grounded-sam") else program


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
