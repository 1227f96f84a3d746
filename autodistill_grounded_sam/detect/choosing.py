"""Which of our detectors runs the weights that a name stands for: their config.json says the architecture."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.weights import find_weights

# By `model_type`; the module is imported when its model is asked for.
DETECTORS = {
    "florence2": "florence:Florence2",
    "grounding-dino": "grounding_dino:GroundingDino",
    "mm-grounding-dino": "grounding_dino:GroundingDino",
    "omdet-turbo": "omdet_turbo:OmDetTurbo",
    "owlvit": "owl:Owl",
    "owlv2": "owl:Owl",
    "sam3": "sam3:Sam3",
    "sam3_video": "sam3:Sam3",
}
SCORELESS = frozenset({"florence2"})  # say what is there, not how sure they are: all that they find scores 1
TAKES_EXAMPLES = frozenset({"owlvit", "owlv2", "sam3", "sam3_video"})  # example images instead of words


class DetectorOfWeights:
    """Called with a hub id, a folder or an official file and the settings of `GroundingDino`: gives the detector that runs it.

    Raises WeightsError where the weights are missing or of an architecture that is no detector here.
    """

    def __new__(cls, name: str, **settings: Any) -> Any:
        found = find_weights(name, "detector", offline=bool(settings.get("offline", False)))
        model_type = found.model_type if found.kind == "transformers" else "grounding-dino"  # official files are its only
        if model_type not in DETECTORS:
            raise WeightsError(f"{found.path} holds a {model_type!r} model; the detectors here run {', '.join(DETECTORS)}")
        module, _, kind = DETECTORS[model_type].partition(":")
        return getattr(import_module(f"autodistill_grounded_sam.detect.{module}"), kind)(name, **settings)
