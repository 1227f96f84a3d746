"""What a store belongs to: models, prompts and image settings; and what changed, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autodistill_grounded_sam.errors import WrongRunError

Identity = Mapping[
    str, Any
]  # plain JSON data: "prompts", "detector", "segmenter", "see"; a model is {"name", "sha256"} and, if known, "identity"


def check_identity(run: Path, old: Identity, new: Identity) -> None:
    """Raise StoreError saying exactly what changed, if anything did."""
    changes = describe_changes(old, new)
    if changes:
        raise WrongRunError(
            f"the run folder {run} belongs to other models, prompts or image settings:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nGive another --out (or delete this one) to look at the images anew, or go back to the old settings. Thresholds, "
            "classes, formats, and which of the prompts count, can change on the same run: use `decide` and `export`."
        )


def describe_changes(old: Identity, new: Identity, prefix: str = "") -> list[str]:
    """One line a difference, `name: old -> new`; models are the same if their files are, whatever they are called.

    Their files are compared by `identity` (weights, config, processor, tokenizer) where both sides have it, else by `sha256`
    (the weights alone).
    """
    changes: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if before == after or _same_model(before, after):
            continue
        name = f"{prefix}{key}"
        if _is_model(before) or _is_model(after):
            same = _same(before, after, "sha256")
            why = "; the weights are the same, but the config, processor or tokenizer files of the model changed" if same else ""
            changes.append(f"{name}: {_model(before)} -> {_model(after)}{why}")
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            changes.extend(describe_changes(before, after, f"{name}."))
        elif key == "prompts" and isinstance(before, Sequence) and isinstance(after, Sequence):
            changes.append(f"{name}: {_list_change(before, after)}")
        else:
            changes.append(f"{name}: {before!r} -> {after!r}")
    return changes


def _is_model(value: Any) -> bool:
    return isinstance(value, Mapping) and "sha256" in value


def _same_model(before: Any, after: Any) -> bool:
    if not (_is_model(before) and _is_model(after)):
        return False
    return _same(before, after, "identity" if before.get("identity") and after.get("identity") else "sha256")


def _same(before: Any, after: Any, key: str) -> bool:
    if not (_is_model(before) and _is_model(after)):
        return False
    return before.get(key) is not None and before.get(key) == after.get(key)


def _model(value: Any) -> str:
    if not _is_model(value):
        return "none"
    return f"{value['name']} (sha256 {value['sha256'][:12]})" if value["sha256"] else str(value["name"])


def _list_change(before: Sequence[str], after: Sequence[str]) -> str:
    gone = [repr(item) for item in before if item not in after]
    come = [repr(item) for item in after if item not in before]
    parts = [f"without {', '.join(gone)}"] * bool(gone) + [f"new {', '.join(come)}"] * bool(come)
    return "; ".join(parts) or f"another order, {list(before)} -> {list(after)}"
