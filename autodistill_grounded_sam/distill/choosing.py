"""Which kind of student a name stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_ultralytics(name: str) -> bool:
    """Whether a target's or student's name is ultralytics': a `.pt` or `.yaml` file, or a model that begins as theirs do."""
    return Path(name).suffix in (".pt", ".yaml", ".yml") or name.startswith(("yolo", "rtdetr"))


class TargetOfWeights:
    """Called with the name of a model, a path or a hub id, and the target's settings: gives the target that trains it."""

    def __new__(cls, name: str, **settings: Any) -> Any:
        if is_ultralytics(name):
            from autodistill_grounded_sam.distill.ultralytics_target import UltralyticsTarget

            return UltralyticsTarget(name, **settings)
        from autodistill_grounded_sam.distill.detr_target import DetrTarget

        return DetrTarget(name, **settings)
