"""The words of the mini detector: a small BERT vocabulary, and the captions that training asks."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import BertTokenizerFast

from autodistill_grounded_sam.painting import COLOURS, SEEN_PAIRS, SHAPES

COLOUR_NAMES = tuple(COLOURS)
GENERAL = ("shape", "thing", "object")
MOST_TOKENS = 256


def build_tokenizer(folder: Path) -> BertTokenizerFast:
    """Write `vocab.txt` and read it as a BERT tokenizer.

    transformers' Grounding DINO knows [CLS], [SEP], '.' and '?' by their rows in bert-base-uncased (101, 102, 1012, 1029), so
    those rows are kept. Letters and ##letters let any unknown word be spelt; the rows between are fillers.
    """
    rows = [f"[unused{i}]" for i in range(1030)]
    for row, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}.items():
        rows[row] = token
    pieces = [*COLOUR_NAMES, *SHAPES, *GENERAL, "a", "an", "the", "##s", "-", "'", ","]
    pieces += [c for c in string.ascii_lowercase + string.digits if c not in pieces]
    pieces += [f"##{c}" for c in string.ascii_lowercase + string.digits if f"##{c}" not in pieces]
    free = [row for row, token in enumerate(rows) if token.startswith("[unused") and row > 103]
    for row, piece in zip(free, pieces, strict=False):
        rows[row] = piece
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(rows) + "\n")
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True, model_max_length=MOST_TOKENS)


@dataclass(frozen=True)
class Caption:
    """A caption with, for each of its tokens, the phrase it belongs to (-1: none), and what each phrase means."""

    input_ids: torch.Tensor  # (1, T)
    phrase_of_token: np.ndarray  # (T,)
    meaning: np.ndarray  # (phrases, 2): colour and shape, -1 for any

    def targets(self, pairs: np.ndarray) -> np.ndarray:
        """(objects, T) bool: every token of every phrase that an object answers to."""
        colour, shape = self.meaning[:, 0], self.meaning[:, 1]
        answers = ((colour[None] < 0) | (colour[None] == pairs[:, :1])) & ((shape[None] < 0) | (shape[None] == pairs[:, 1:]))
        inside = self.phrase_of_token >= 0
        return answers[:, np.maximum(self.phrase_of_token, 0)] & inside[None]


_SEEN = np.array([(COLOUR_NAMES.index(c), SHAPES.index(s)) for c, s in SEEN_PAIRS])


def ask(tokenizer: BertTokenizerFast, rng: np.random.Generator, present: np.ndarray, lone_words: float) -> Caption:
    """One caption for a batch that holds the pairs `present` (n, 2): long lists, short lists, lone words.

    A share of `lone_words` asks for all shapes or all colours, one word each. Of the others two thirds ask for most of the seen
    pairs at once, as an ontology does; the rest are short, mix whole pairs with lone words, and leave some of what is present
    unasked, so that an unasked thing learns to stay silent.
    """
    if rng.random() < lone_words:
        every, any_ = np.arange(8), np.full(8, -1)
        meaning = np.stack([any_, every] if rng.random() < 2 / 3 else [every, any_], axis=1)
    elif rng.random() < 0.65:
        meaning = _SEEN[rng.permutation(len(_SEEN))[: rng.integers(24, len(_SEEN) + 1)]]
    else:
        some = present[rng.permutation(len(present))[: rng.integers(2, 9)]]
        others = _SEEN[rng.permutation(len(_SEEN))[: rng.integers(2, 8)]]
        meaning = np.unique(np.concatenate([some, others]), axis=0)
        meaning = np.where(rng.random(meaning.shape) < 0.12, -1, meaning)
        meaning = np.unique(meaning[(meaning >= 0).any(1)], axis=0)
    meaning = meaning[rng.permutation(len(meaning))]
    return caption_of(tokenizer, [_phrase(rng, *row) for row in meaning.tolist()], meaning)


def _phrase(rng: np.random.Generator, colour: int, shape: int) -> str:
    noun = SHAPES[shape] if shape >= 0 else GENERAL[rng.integers(len(GENERAL))]
    words = f"{COLOUR_NAMES[colour]} {noun}" if colour >= 0 else noun
    return f"a {words}" if rng.random() < 0.1 else words


def caption_of(tokenizer: BertTokenizerFast, phrases: list[str], meaning: np.ndarray) -> Caption:
    ids, owner = [tokenizer.cls_token_id], [-1]
    for k, phrase in enumerate(phrases):
        tokens = tokenizer(phrase, add_special_tokens=False)["input_ids"]
        ids += [*tokens, 1012]
        owner += [k] * len(tokens) + [-1]
    ids.append(tokenizer.sep_token_id)
    if len(ids) > MOST_TOKENS:
        raise ValueError(f"caption of {len(ids)} tokens, at most {MOST_TOKENS}")
    return Caption(torch.tensor([ids]), np.array([*owner, -1]), meaning)
