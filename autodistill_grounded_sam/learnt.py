"""Labelled images that a detector has learnt from, kept apart where its labels are judged."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

ADAPTED_CARD = "adapted.json"  # in the folder of adapted weights


def learnt_from(weights: Path) -> list[str]:
    """The sha256 of every image file that the weights in this folder learnt from, where they were adapted; else none."""
    card = weights / ADAPTED_CARD
    return list(json.loads(card.read_text(encoding="utf-8")).get("learnt from", ())) if card.is_file() else []


def fit_to_judge(digests: Sequence[str], learnt: Collection[str], fewest: int) -> tuple[list[bool], list[str]]:
    """Which of the labelled images may judge labels of a detector that learnt from some of them, and what people should know.

    A detector labels what it has learnt better than anything else. Where fewer than `fewest` other images are labelled, all
    judge, and the note says what to think of it.
    """
    unseen = [digest not in learnt for digest in digests]
    seen = len(unseen) - sum(unseen)
    if not seen:
        return unseen, []
    if sum(unseen) >= fewest:
        return unseen, [f"{seen} labelled image(s) that the detector has learnt from do not judge it; {sum(unseen)} others do"]
    told = f"the detector has learnt from {seen} of the {len(unseen)} labelled images, so these figures flatter it"
    return [True] * len(unseen), [f"{told}: label {fewest - sum(unseen)} more images that it has not learnt from"]
