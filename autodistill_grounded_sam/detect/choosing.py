"""Which of our detectors runs the weights that a name stands for: their config.json says the architecture."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from autodistill_grounded_sam.about import About
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
MAKES_MASKS = frozenset({"sam3", "sam3_video"})  # of its own, with the boxes


ABOUT = (
    About("mini", "box AP50 0.95 on 1,200 painted scenes (`benchmarks/mini_quality.py`)", "mini"),
    About(
        "Grounding DINO",
        "equal to the authors' code and to transformers, on random weights (`tests/detect/test_official.py`, `test_fast.py`)",
        "IDEA-Research/grounding-dino-*",
    ),
    About(
        "MM Grounding DINO",
        "logits, boxes, scores and pixels of transformers (`tests/detect/test_fast.py`, `test_grounding_dino.py`)",
        "openmmlab-community/mm_grounding_dino_*",
    ),
    About("LLMDet", "architecture and code of MM Grounding DINO; nothing of its own", "iSEE-Laboratory/llmdet_*"),
    About(
        "OWLv2",
        "boxes and scores of transformers over seven shapes of image, then cut and NMS (`tests/detect/test_owl.py`)",
        "google/owlv2-*",
    ),
    About("OWL-ViT", "as OWLv2 (`tests/detect/test_owl.py`)", "google/owlvit-*"),
    About(
        "OmDet-Turbo",
        "boxes, scores and class-wise NMS of transformers over seven shapes; with a Swin of transformers, timm's was not here "
        "(`tests/detect/test_omdet_turbo.py`)",
        "omlab/omdet-turbo-*",
        needs="extra [omdet]",
    ),
    About(
        "Florence-2",
        "what it writes, word for word, and the places in it, but for transformers' rounding (`tests/detect/test_florence.py`)",
        "florence-community/Florence-2-*",
    ),
    About(
        "SAM 3",
        "boxes, scores and masks of transformers over seven shapes, prompt by prompt (`tests/detect/test_sam3.py`)",
        "facebook/sam3",
    ),
)


class DetectorOfWeights:
    """Called with a hub id, a folder or an official file and the settings of `GroundingDino`: gives the detector that runs it.

    Raises WeightsError where the weights are missing or of an architecture that is no detector here.
    """

    about = ABOUT

    def __new__(cls, name: str, **settings: Any) -> Any:
        found = find_weights(name, "detector", offline=bool(settings.get("offline", False)))
        model_type = found.model_type if found.kind == "transformers" else "grounding-dino"  # official files are its only
        if model_type not in DETECTORS:
            raise WeightsError(f"{found.path} holds a {model_type!r} model; the detectors here run {', '.join(DETECTORS)}")
        module, _, kind = DETECTORS[model_type].partition(":")
        return getattr(import_module(f"autodistill_grounded_sam.detect.{module}"), kind)(name, **settings)
