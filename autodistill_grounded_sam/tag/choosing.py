"""Which of our taggers runs what a name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from autodistill_grounded_sam import plugins
from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.detect.choosing import DETECTORS
from autodistill_grounded_sam.protocols import Tagger
from autodistill_grounded_sam.tag.captions import Captioner
from autodistill_grounded_sam.tag.recognize import RecognizeAnything
from autodistill_grounded_sam.tag.vocabulary import Vocabulary
from autodistill_grounded_sam.weights import find_weights, known_models


def load_tagger(name: str, words: Sequence[str] | None = None, **settings: Any) -> Tagger:
    """The tagger of this name; with `words`, a built-in one that takes them, else the detector of this name asked for them.

    Raises PluginError, WeightsError, ConfigError as they do.
    """
    built_in = any(plugin.name == name and plugin.built_in for plugin in plugins.list_plugins("taggers"))
    if words is not None and not built_in:
        return Vocabulary(name, words=words, **settings)
    return cast(Tagger, plugins.load("taggers", name, words=words, **settings))


_WRITES = "what transformers' own example writes{}, word for word (`tests/tag/test_captions.py`)"
ABOUT = (
    About("BLIP", _WRITES.format(""), "Salesforce/blip-*"),
    About("Florence-2", _WRITES.format(" of regions"), "florence-community/Florence-2-*"),
    About("models that write", _WRITES.format(" (a small LLaVA)"), "any image-text-to-text model of transformers", "of its own"),
    About("any detector", "with `--words` (`tests/tag/test_vocabulary.py`)", "as of detectors", "as of detectors"),
)


class TaggerOfWeights:
    """Called with a hub id, a folder or an official file: gives the tagger that runs it.

    An official file is of RAM, RAM++ or Tag2Text, a folder holds a model that writes about images. Raises WeightsError where the
    weights are missing, ConfigError for those of a detector, which needs words (`load_tagger`).
    """

    about = ABOUT

    def __new__(cls, name: str, **settings: Any) -> Any:
        if {model.role for model in known_models() if model.name == name} == {"detector"}:
            return Vocabulary(name, **settings)
        found = find_weights(name, "tagger", offline=bool(settings.get("offline", False)))
        if found.kind == "official":
            return RecognizeAnything(name, **settings)
        writes = found.model_type not in DETECTORS or found.model_type == "florence2"
        return (Captioner if writes else Vocabulary)(name, **settings)
