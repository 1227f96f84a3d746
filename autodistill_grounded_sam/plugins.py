"""From a name to a detector, segmenter, tagger, format or target: built-ins, entry points and `pkg.module:Class`.

Third parties add to a role by an entry point of the group `autodistill_grounded_sam.<role>`; the built-ins below are of the same
form. Listing imports nothing. A built-in model is given its name and settings; what comes from others is built without arguments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import MissingExtraError, PluginError
from autodistill_grounded_sam.protocols import DatasetWriter, Detector, Segmenter, Tagger, Target

GROUP = "autodistill_grounded_sam"
OURS = "autodistill-grounded-sam"
OWN_MASKS = "detector"  # the segmenter that hands on the masks of a detector which makes them

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "detectors": {"mini": "autodistill_grounded_sam.detect.choosing:DetectorOfWeights"},
    "segmenters": {
        "mini": "autodistill_grounded_sam.segment.sam:Sam",
        "ellipse": "autodistill_grounded_sam.segment.cheap:Ellipse",
        "grabcut": "autodistill_grounded_sam.segment.cheap:GrabCut",
        OWN_MASKS: "autodistill_grounded_sam.segment.own:OwnMasks",
    },
    "taggers": {
        "mini": "autodistill_grounded_sam.tag.vocabulary:Vocabulary",
        "ram": "autodistill_grounded_sam.tag.recognize:RecognizeAnything",
        "ram-plus": "autodistill_grounded_sam.tag.recognize:RecognizeAnything",
        "tag2text": "autodistill_grounded_sam.tag.recognize:RecognizeAnything",
    },
    "formats": {
        "yolo-seg": "autodistill_grounded_sam.export.yolo:YoloSegWriter",
        "yolo": "autodistill_grounded_sam.export.yolo:YoloBoxWriter",
        "yolo-obb": "autodistill_grounded_sam.export.yolo_obb:YoloObbWriter",
        "coco": "autodistill_grounded_sam.export.coco:CocoWriter",
        "coco-panoptic": "autodistill_grounded_sam.export.painted_masks:PanopticWriter",
        "masks": "autodistill_grounded_sam.export.painted_masks:PngMasksWriter",
        "voc": "autodistill_grounded_sam.export.voc:VocWriter",
        "labelme": "autodistill_grounded_sam.export.labelme:LabelmeWriter",
        "cvat": "autodistill_grounded_sam.export.cvat:CvatWriter",
        "label-studio": "autodistill_grounded_sam.export.label_studio:LabelStudioWriter",
        "hf": "autodistill_grounded_sam.export.shards:HuggingFaceWriter",
        "webdataset": "autodistill_grounded_sam.export.shards:WebDatasetWriter",
    },
    "targets": {
        "yolov8n-seg.pt": "autodistill_grounded_sam.distill.ultralytics_target:UltralyticsTarget",
        **dict.fromkeys(
            (
                "rf-detr-nano",
                "rf-detr-seg-nano",
                "d-fine-n",
                "rt-detr-r18",
                "rf-detr-mini",
                "rf-detr-seg-mini",
                "d-fine-mini",
                "rt-detr-mini",
            ),
            "autodistill_grounded_sam.distill.detr_target:DetrTarget",
        ),
    },
}
SEAMS: Mapping[str, type] = {
    "detectors": Detector,
    "segmenters": Segmenter,
    "taggers": Tagger,
    "formats": DatasetWriter,
    "targets": Target,
}
# A name that is no plugin's may name weights of these: a hub id, a folder, an official .pth, any model of ultralytics.
WEIGHTS_OF: Mapping[str, str] = {
    "detectors": "autodistill_grounded_sam.detect.choosing:DetectorOfWeights",
    "segmenters": "autodistill_grounded_sam.segment.sam:Sam",
    "taggers": "autodistill_grounded_sam.tag.choosing:TaggerOfWeights",
    "targets": "autodistill_grounded_sam.distill.choosing:TargetOfWeights",
}
# `original:` before an official file runs it by its authors' own package, where that is installed.
ORIGINAL = "original:"
BY_THE_AUTHORS: Mapping[str, str] = {
    "detectors": "autodistill_grounded_sam.detect.authors:AuthorsGroundingDino",
    "segmenters": "autodistill_grounded_sam.segment.authors:AuthorsSam",
}
_WEIGHTS_HINT: Mapping[str, str] = {
    "detectors": ", a hub id (owner/name), a path to weights",
    "segmenters": ", a hub id (owner/name), a path to weights",
    "taggers": ", a hub id (owner/name), a path to weights",
    "targets": ", another size (rf-detr-small, d-fine-s), a model of ultralytics (yolo11n-seg.pt), a hub id, a path to weights",
}
_WITH_THRESHOLD = re.compile(r"(.*)@(\d*\.?\d+)")
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Plugin:
    """One name of a role. `target` is `pkg.module:Class`, `clash` the other distributions that claim the name."""

    role: str
    name: str
    target: str
    distribution: str
    clash: tuple[str, ...] = ()

    @property
    def built_in(self) -> bool:
        return self.distribution == OURS

    @property
    def has_weights(self) -> bool:
        """Whether its name is that of weights, by which its results are known."""
        return self.built_in and self.target in (WEIGHTS_OF.get(self.role), BY_THE_AUTHORS.get(self.role))

    def problem(self) -> str:
        """Why this plugin cannot be used, in one line; "" if it can. Imports it."""
        try:
            self.load_class()
        except Exception as error:
            return str(error)
        return ""

    def load_class(self) -> type:
        """Import the class; raises PluginError if it does not load, or if two distributions claim the name."""
        if self.clash:
            owners = " and ".join([self.distribution, *self.clash])
            raise PluginError(
                f"{self.role[:-1]} {self.name!r} is claimed by {owners}; uninstall one of them, or give pkg.module:Class instead"
            )
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except MissingExtraError:
            raise
        except Exception as error:  # a plugin may fail to import with anything
            raise PluginError(
                f"{self.role[:-1]} {self.name!r} ({self.target}, {self.distribution}) does not load: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, type):
            raise PluginError(f"{self.role[:-1]} {self.name!r} must be a class, but {self.target} is a {type(found).__name__}")
        return found


def list_plugins(role: str) -> list[Plugin]:
    """Every name of a role, sorted; imports nothing."""
    _check_role(role)
    claims: dict[str, list[Plugin]] = {}
    for name, target in BUILT_IN[role].items():
        claims.setdefault(name, []).append(Plugin(role, name, target, OURS))
    for point in entry_points(group=f"{GROUP}.{role}"):
        distribution = point.dist.name if point.dist is not None else "an unknown distribution"
        claims.setdefault(point.name, []).append(Plugin(role, point.name, point.value, distribution))
    return [_joined(claims[name]) for name in sorted(claims)]


def members(role: str, name: str) -> list[tuple[str, float | None]]:
    """The models that `a+b` names, each with the threshold that it may carry (`a@0.3+b`); one alone for any other name.

    Raises PluginError for a part without a name, and for a threshold outside of 0..1.
    """
    if Path(name).exists():
        return [(name, None)]
    found: list[tuple[str, float | None]] = []
    for part in name.split("+"):
        matched = _WITH_THRESHOLD.fullmatch(part)
        own, threshold = (matched[1], float(matched[2])) if matched and role == "detectors" else (part, None)
        if not own or (threshold is not None and not 0 < threshold < 1):
            raise PluginError(
                f"{role[:-1]} {name!r}: several are joined as a+b, and a score between 0 and 1 after a name is that which counts "
                f"as 0.35 (a@0.3+b); {part!r} is neither"
            )
        found.append((own, threshold))
    return found


def find(role: str, name: str) -> Plugin:
    """What a name stands for: a plugin, `pkg.module:Class`, or weights; raises PluginError with the nearest name otherwise."""
    plugins = {plugin.name: plugin for plugin in list_plugins(role)}
    if name in plugins:
        return plugins[name]
    if _DOTTED.fullmatch(name):
        return Plugin(role, name, name, "given as pkg.module:Class")
    if role in BY_THE_AUTHORS and name.startswith(ORIGINAL):
        return Plugin(role, name, BY_THE_AUTHORS[role], OURS)
    if role in WEIGHTS_OF and _names_weights(role, name):
        return Plugin(role, name, WEIGHTS_OF[role], OURS)
    nearest = difflib.get_close_matches(name, plugins, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    known = ", ".join(plugins) or "none is installed"
    raise PluginError(
        f"no {role[:-1]} is named {name!r}{hint} (known: {known}){_WEIGHTS_HINT.get(role, '')} or pkg.module:Class also work"
    )


def load(role: str, name: str, **settings: Any) -> Any:
    """Build what `name` stands for; `settings` (device, offline, ...) go to built-in models only.

    Raises PluginError if it does not load or lacks the method of its role.
    """
    plugin = find(role, name)
    kind = plugin.load_class()
    if plugin.built_in:
        return kind(name, **settings)
    try:
        built = kind()
    except MissingExtraError:
        raise
    except Exception as error:
        raise PluginError(
            f"{role[:-1]} {name!r} could not be built without arguments: {type(error).__name__}: {error}"
        ) from error
    seam = SEAMS[role]
    if not isinstance(built, seam):
        methods = [method for method in vars(seam) if not method.startswith("_") and callable(getattr(seam, method))]
        lacking = [method for method in methods if not hasattr(built, method)]
        raise PluginError(f"{role[:-1]} {name!r} ({plugin.target}) lacks the method {', '.join(lacking)} of {seam.__name__}")
    return built


def _joined(claims: list[Plugin]) -> Plugin:
    first, *others = claims
    return Plugin(first.role, first.name, first.target, first.distribution, tuple(other.distribution for other in others))


def _names_weights(role: str, name: str) -> bool:
    looks_like_path = "/" in name or Path(name).suffix in (".pth", ".pt", ".yaml", ".safetensors") or Path(name).exists()
    return looks_like_path or (role == "targets" and name.startswith(("yolo", "rtdetr", "rf-detr", "d-fine", "rt-detr")))


def _check_role(role: str) -> None:
    if role not in BUILT_IN:
        raise PluginError(f"no role is named {role!r}; the roles are {', '.join(BUILT_IN)}")
