"""Label a folder of images from words: Grounding DINO and SAM behind autodistill's `label()`.

Importing this package loads neither torch nor autodistill; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "1.0.0.dev0"

_EXPORTS = {
    "GroundedSAM": "grounded_sam",
    "Ontology": "ontology",
    "LabelConfig": "config",
    "label": "pipeline",
    "discover": "discovering",
    "label_auto": "discovering",
    "adapt_weights": "adapting",
    "YOLOv8": "grounded_sam",
    "GroundedSamError": "errors",
}
__all__ = [*_EXPORTS, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
