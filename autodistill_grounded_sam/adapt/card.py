"""What the model card says: the facts as JSON for programs, the README for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autodistill_grounded_sam.adapt.weights_folder import CARD
from autodistill_grounded_sam.weights import FoundWeights, known_models

_UNKNOWN_LICENCE = "not known to this tool: ask whoever made the parent"


def licence_of(found: FoundWeights) -> str:
    """The licence of a known model, or the one that the card of an adapted parent hands on."""
    own = [model.licence for model in known_models() if model.name == found.name]
    card = found.path / CARD
    if not own and card.is_file():
        own = [json.loads(card.read_text(encoding="utf-8")).get("licence", _UNKNOWN_LICENCE)]
    return own[0] if own else _UNKNOWN_LICENCE


def readme(card: Mapping[str, Any], name: str) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    recipe, data, held = card["recipe"], card["data"], card["held out"]
    before, after = card["figures before"], card["figures"]
    counts = "\n".join(f"| {of} | {count['images']} | {count['labels']} |" for of, count in data["classes"].items())
    if after:
        told = (
            f"| | AP | AP50 |\n|---|---|---|\n| before | {before['AP']:.3f} | {before['AP50']:.3f} |\n"
            f"| adapted | {after['AP']:.3f} | {after['AP50']:.3f} |\n\nOn {len(held)} labelled images that were held out. They "
            "also chose which weights were kept, so expect a little less on new ones."
        )
    else:
        told = "No image could be held out, so how well these weights find anything was not measured."
    iou, cutter = card.get("mask IoU"), card.get("segmenter")
    if cutter:
        told += f"\n\n`segmenter/` is {cutter['name']} with a mask decoder that learnt the masks ({cutter['licence']})"
        told += f": mean mask IoU from true boxes {iou['before']:.3f} before, {iou['adapted']:.3f} after." if iou else "."
    frozen = ", ".join(recipe["frozen"]) or "nothing"
    return f"""---
base_model: {card["parent"]["name"]}
library_name: transformers
pipeline_tag: zero-shot-object-detection
---
# {name}

A detector for `grounded-sam label --detector {name}`: {card["parent"]["name"]} adapted to {data["images"]} labelled images.

{told}

| class | images | labels |
|---|---|---|
{counts}

- Input: shorter side {recipe["shorter_side_px"]} px, at most {recipe["longer_side_px"]} px; {recipe["queries"]} queries an image.
- Learnt: {card["steps"]} of {card["planned steps"]} steps of {recipe["batch"]} pictures, seed {recipe["seed"]}, frozen: {frozen}.
- Annotations were taken to be complete: what is not labelled in them was learnt as not there.
- Licence of the parent: {card["licence"]}. Parent sha256: {card["parent"]["sha256"]}.
- Digest of the learnt data: {data["digest"]}.
- Made by: `{card["command"]}`

All facts are in `{CARD}`."""


def class_counts(examples: Any, class_names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images and labels of each class."""
    return {
        name: {
            "images": sum(bool((example.class_id == k).any()) for example in examples),
            "labels": sum(int((example.class_id == k).sum()) for example in examples),
        }
        for k, name in enumerate(class_names)
    }
