"""Which of our taggers runs what a name stands for."""

from __future__ import annotations

from typing import Any

from autodistill_grounded_sam.detect.choosing import DETECTORS
from autodistill_grounded_sam.tag.captions import Captioner
from autodistill_grounded_sam.tag.recognize import RecognizeAnything
from autodistill_grounded_sam.tag.vocabulary import Vocabulary
from autodistill_grounded_sam.weights import find_weights, known_models


class TaggerOfWeights:
    """Called with a hub id, a folder or an official file: gives the tagger that runs it.

    With `words` any detector is one. Without, an official file is RAM's, RAM++'s or Tag2Text's, and a folder a model that writes
    text about images. Raises WeightsError where the weights are missing, ConfigError for a detector without words.
    """

    def __new__(cls, name: str, **settings: Any) -> Any:
        roles = {model.role for model in known_models() if model.name == name}
        if settings.get("words") is not None or roles == {"detector"}:
            return Vocabulary(name, **settings)
        found = find_weights(name, "tagger", offline=bool(settings.get("offline", False)))
        if found.kind == "official":
            return RecognizeAnything(name, **settings)
        writes = found.model_type not in DETECTORS or found.model_type == "florence2"
        return (Captioner if writes else Vocabulary)(name, **settings)
