"""How well a detector that is in memory finds what is labelled: the live figure of learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import batched_nms

from autodistill_grounded_sam.adapt.examples import Example
from autodistill_grounded_sam.evaluate.average_precision import average_precision
from autodistill_grounded_sam.evaluate.matching import Objects, Pair
from autodistill_grounded_sam.images import read_image
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.protocols import Detector
from autodistill_grounded_sam.types import Candidates

DUPLICATE_IOU = 0.7  # as `decide` has it


def average_precision_of(detector: Detector, examples: Sequence[Example], ontology: Ontology) -> dict[str, float]:
    """AP and AP50 of boxes over the classes that have a label, each object named by its best prompt, best of duplicates kept."""
    pairs = []
    for example in examples:
        (seen,) = detector.detect([read_image(example.path)], ontology.prompts)
        truth = Objects.of(example.class_id, example.xyxy)
        pairs.append(Pair(example.name, example.width, example.height, truth, named_objects(seen, ontology)))
    overall = average_precision(pairs, len(ontology.classes), "box").overall
    return {name: overall[name] for name in ("AP", "AP50")}


def named_objects(seen: Candidates, ontology: Ontology) -> Objects:
    """Each candidate as an object of the class of its best prompt, best of duplicates kept; those of negatives go."""
    best = seen.scores.argmax(axis=1) if len(seen) else np.zeros(0, np.intp)
    score = seen.scores[np.arange(len(seen)), best]
    class_id = ontology.prompt_class[best]
    kept = batched_nms(*(torch.from_numpy(array.copy()) for array in (seen.xyxy, score, class_id)), DUPLICATE_IOU).numpy()
    kept = kept[class_id[kept] >= 0]  # a negative that scores highest takes the object away
    return Objects.of(class_id[kept], seen.xyxy[kept], score[kept])
