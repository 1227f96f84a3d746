"""What adapting writes: a weights folder that every command takes as `--detector PATH`, with its model card.

While learning, the folder holds only `unfinished/`, so nothing takes it for weights; the card is the last to come.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.detect.grounding_dino import Loaded
from autodistill_grounded_sam.errors import WrongPlaceError
from autodistill_grounded_sam.learnt import ADAPTED_CARD
from autodistill_grounded_sam.loading import quiet_loading

UNFINISHED, WHOLE, SEGMENTER = "unfinished", "weights", "segmenter"
CARD, IDENTITY = ADAPTED_CARD, "identity.json"


def with_queries(model: Any, queries: int) -> Any:
    """The model with so many queries: of two-stage models the queries stand for ranks of proposals, best first, so each old one
    is repeated in its place. The model itself where it has as many already."""
    import torch

    old = model.model.query_position_embeddings
    if old.num_embeddings == queries:
        return model
    new = torch.nn.Embedding(queries, old.embedding_dim)
    new.weight.data = old.weight.data[torch.arange(queries) * old.num_embeddings // queries].clone()
    model.model.query_position_embeddings = new
    model.config.num_queries = model.model.config.num_queries = queries
    return model


def finished(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card, if the very same adaptation is finished there already; None where it may begin or go on. Writes nothing.

    Raises WrongPlaceError where anything else lies at `out`.
    """
    for note in (out / CARD, out / UNFINISHED / IDENTITY):
        if not note.is_file():
            continue
        content: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        before = content["identity"]
        if before == identity:
            return content if note.name == CARD else None
        other = ", ".join(name for name in sorted({*before, *identity}) if before.get(name) != identity.get(name))
        raise WrongPlaceError(f"{out} holds an adaptation of another {other}; give another --out, or delete it")
    if out.exists() and (not out.is_dir() or any(entry.name != UNFINISHED for entry in out.iterdir())):
        raise WrongPlaceError(f"{out} is there already and is no adaptation; give another --out")
    return None


def begin(out: Path, identity: Mapping[str, Any]) -> Path:
    """The folder of unfinished work, which says whose it is."""
    unfinished = out / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    _write(unfinished / IDENTITY, json.dumps({"identity": identity}, indent=2))
    return unfinished


def save(out: Path, loaded: Loaded, card: Mapping[str, Any], readme: str, dtype: str) -> None:
    """Write the folder and take the unfinished work away. `dtype` is the one that the parent was stored in."""
    import torch
    from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

    whole = out / UNFINISHED / WHOLE
    model, tokenizer, inputs = loaded
    with quiet_loading():
        model.to("cpu", getattr(torch, dtype)).save_pretrained(whole)
    images = GroundingDinoImageProcessor(
        size={"shortest_edge": inputs.shorter_px, "longest_edge": inputs.longer_px},
        image_mean=list(inputs.mean), image_std=list(inputs.std),
    )  # fmt: skip
    GroundingDinoProcessor(images, tokenizer).save_pretrained(whole)
    _write(whole / "README.md", readme)
    _write(whole / CARD, json.dumps(card, indent=2, ensure_ascii=False))
    for path in sorted(whole.iterdir(), key=lambda path: (path.name == CARD, path.suffix == ".safetensors", path.name)):
        if path.is_dir():  # of an earlier try that was killed right here
            shutil.rmtree(out / path.name, ignore_errors=True)
        path.replace(out / path.name)
    shutil.rmtree(out / UNFINISHED)


def stored_dtype(files: tuple[Path, ...]) -> str:
    """The floating-point type that most weights of a file are stored in; float32 for an official `.pth`."""
    from safetensors import safe_open

    if not files or files[0].suffix != ".safetensors":
        return "float32"
    with safe_open(files[0], "pt") as content:
        kinds = [content.get_slice(name).get_dtype() for name in content.keys()]  # noqa: SIM118 - no dict
    names = {"F16": "float16", "BF16": "bfloat16"}
    return names.get(max(kinds, key=kinds.count), "float32")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
