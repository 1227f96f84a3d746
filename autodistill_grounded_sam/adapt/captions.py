"""What is asked while learning: one caption a batch, of the prompts of the classes that are there and of some that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodistill_grounded_sam.detect.spans import DELIMITER_IDS, caption_of
from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.ontology import Ontology
from autodistill_grounded_sam.types import Int32

# Asked beside the prompts of the ontology where no prompt and no class name holds them: words for what a photograph may hold, so
# that a detector of one class does not learn to answer to every caption.
DISTRACTORS = ("person", "car", "dog", "tree", "house", "chair", "bottle", "flower", "sign", "hand")
MOST_DISTRACTORS = 2
UNASKED = 0.1  # share of batches in which one class is not asked: its objects then learn to be silent


@dataclass(frozen=True)
class Asked:
    """One caption: `input_ids` (1, T); `class_tokens` (classes, T) float, 1 at the tokens of the class's prompts."""

    input_ids: Tensor
    class_tokens: Tensor

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]


class Captions:
    """Draws captions for the prompts of an ontology; `taught` are the classes that have labels, the others are never asked.

    `limit` is the most tokens of a caption. Raises OntologyError where no prompt of a taught class can be asked.
    """

    def __init__(self, ontology: Ontology, taught: Sequence[int], tokenizer: Any, limit: int) -> None:
        told = " ".join((*ontology.prompts, *ontology.class_names)).casefold()
        distractors = [word for word in DISTRACTORS if word not in told]  # "bottle" beside "a bottle" would teach that it is none
        asked = [(p, c) for p, c in zip(ontology.prompts, ontology.prompt_class.tolist(), strict=True) if c < 0 or c in taught]
        asked += [(word, -1) for word in distractors]
        lengths = {prompt: self._length(prompt, tokenizer) for prompt, _ in asked}
        asked = [(prompt, class_id) for prompt, class_id in asked if 0 < lengths[prompt] <= limit - 3]
        self._prompts = [prompt for prompt, _ in asked]
        self._class_of = np.array([class_id for _, class_id in asked], np.int32)
        self._costs = np.array([lengths[prompt] + 1 for prompt in self._prompts])
        self._distractor = np.array([prompt in distractors for prompt in self._prompts])
        self._classes, self._taught, self._tokenizer, self._limit = len(ontology.classes), tuple(taught), tokenizer, limit
        if not (self._class_of >= 0).any():
            raise OntologyError("no prompt of a labelled class has a token in this model's vocabulary; use other words")
        self._of = lru_cache(maxsize=256)(self._caption)

    def draw(self, rng: np.random.Generator, present: Int32) -> Asked:
        """A caption for a batch that holds objects of the classes `present`: theirs first, then as many others as fit."""
        left_out = rng.choice(self._taught) if len(self._taught) > 1 and rng.random() < UNASKED else -2
        order = rng.permutation(len(self._prompts))
        order = order[np.argsort(~np.isin(self._class_of[order], present), kind="stable")]
        distractors = order[self._distractor[order]][: rng.integers(MOST_DISTRACTORS + 1)]
        order = order[~self._distractor[order] & (self._class_of[order] != left_out)]
        order = np.concatenate([order, distractors])
        fits = 2 + self._costs[order].cumsum() <= self._limit  # [CLS] and [SEP]
        return self._of(tuple(sorted(order[fits].tolist())))

    def _caption(self, members: tuple[int, ...]) -> Asked:
        caption = caption_of(members, self._prompts, self._tokenizer)
        tokens = torch.zeros(self._classes, len(caption.input_ids))
        for place, span in zip(caption.prompts, caption.spans, strict=True):
            if self._class_of[place] >= 0:
                tokens[self._class_of[place], list(span)] = 1
        return Asked(torch.tensor([caption.input_ids]), tokens)

    @staticmethod
    def _length(prompt: str, tokenizer: Any) -> int:
        """How many tokens a prompt has, 0 where none means anything."""
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return len(ids) if any(token not in DELIMITER_IDS for token in ids) else 0
