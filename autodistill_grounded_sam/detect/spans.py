"""From prompts to captions, and from token logits back to one score a prompt, over the prompt's own tokens.

Equals the spans of the official evaluation and of transformers' `build_label_maps` (the tokens between delimiters); no string
is ever decoded, so a box can only carry a prompt that was asked.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from autodistill_grounded_sam.errors import OntologyError
from autodistill_grounded_sam.types import Float32

logger = logging.getLogger(__name__)

SpanScore = Literal["mean", "max", "gate"]
DELIMITER_IDS = (101, 102, 1012, 1029)  # [CLS] [SEP] . ? of bert-base-uncased: transformers' Grounding DINO has them fixed
_ENDS = 2  # [CLS] and [SEP] of every caption
_DOT = 1  # the " ." after every prompt


@dataclass(frozen=True)
class Caption:
    """One text for the model, the prompts (indices of the run's list) it asks, and the tokens of each word of each prompt."""

    text: str
    input_ids: tuple[int, ...]
    prompts: tuple[int, ...]
    words: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def spans(self) -> tuple[tuple[int, ...], ...]:
        """For each prompt of the caption, its token positions."""
        return tuple(tuple(token for word in words for token in word) for words in self.words)


def pack_captions(
    prompts: Sequence[str],
    tokenizer: Any,
    limit: int = 256,
    groups: Sequence[Sequence[str]] = (),
    prompt_limit: int | None = None,
) -> tuple[Caption, ...]:
    """Pack prompts into as few captions of at most `limit` tokens as first-fit-decreasing finds; nothing is ever cut.

    Prompts of one group (confusable ones, which must compete) share a caption unless the group alone does not fit. A prompt
    without any token is logged and left out. `prompt_limit` is the most tokens of one prompt, where a model has such a limit.
    Raises OntologyError for a prompt that is too long by itself.
    """
    room = limit - _ENDS
    most = min(room - _DOT, prompt_limit or room)
    costs = [length + _DOT for length in _lengths(prompts, tokenizer, most)]
    askable = [index for index, cost in enumerate(costs) if cost > _DOT]
    if sum(costs[index] for index in askable) <= room:
        return (caption_of(askable, prompts, tokenizer),) if askable else ()
    captions: list[list[int]] = []
    units = [piece for unit in _units(askable, prompts, groups) for piece in _pieces(unit, costs, room)]
    for unit in sorted(units, key=lambda unit: -sum(costs[index] for index in unit)):
        used = sum(costs[index] for index in unit)
        fitting = (members for members in captions if sum(costs[index] for index in members) + used <= room)
        members = next(fitting, None)
        if members is None:
            captions.append(list(unit))
        else:
            members.extend(unit)
    return tuple(caption_of(sorted(members), prompts, tokenizer) for members in captions)


def span_scores(logits: Float32, caption: Caption, mode: SpanScore, text_threshold: float = 0.25) -> Float32:
    """One score a prompt from the token logits: (queries, tokens) to (queries, prompts of the caption), float32 in 0..1.

    `mean` of the token probabilities of the span is the official ranking score; `max` is what the published plugin compares
    with its box threshold; `gate` is max where every word has a token above `text_threshold`, else no more than the weakest
    word: a prompt of which only one word fits stays low. A logit of -inf or nan is the probability 0.
    """
    lengths = np.array([len(span) for span in caption.spans])
    starts = np.cumsum(lengths) - lengths
    tokens = [token for span in caption.spans for token in span]
    with np.errstate(over="ignore"):
        probabilities = np.nan_to_num(1 / (1 + np.exp(-logits[:, tokens].astype(np.float32))))
    mean: Float32 = (np.add.reduceat(probabilities, starts, axis=1) / lengths).astype(np.float32).clip(0, 1)
    if mode == "mean":
        return mean
    best: Float32 = np.maximum.reduceat(probabilities, starts, axis=1)
    if mode == "max":
        return best
    word_lengths = np.array([len(word) for words in caption.words for word in words])
    words_of = np.array([len(words) for words in caption.words])
    word_best = np.maximum.reduceat(probabilities, np.cumsum(word_lengths) - word_lengths, axis=1)
    weakest = np.minimum.reduceat(word_best, np.cumsum(words_of) - words_of, axis=1)
    return np.where(weakest >= text_threshold, best, np.minimum(mean, weakest))


def _lengths(prompts: Sequence[str], tokenizer: Any, most: int) -> list[int]:
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    too_long = [
        f"prompt {prompt!r} is {len(tokens)} tokens long, but this model reads at most {most} in one prompt; shorten it"
        for prompt, tokens in zip(prompts, ids, strict=True)
        if len(tokens) > most
    ]
    if too_long:
        raise OntologyError("\n".join(too_long))
    lengths = []
    for prompt, tokens in zip(prompts, ids, strict=True):
        meaningful = [token for token in tokens if token not in DELIMITER_IDS]
        if not meaningful:
            logger.warning("prompt %r has no token in this model's vocabulary; it is left out and scores 0 everywhere", prompt)
        elif all(token == tokenizer.unk_token_id for token in meaningful):
            logger.warning("prompt %r is unknown to this model's vocabulary; its scores mean nothing", prompt)
        lengths.append(len(tokens) if meaningful else 0)
    return lengths


def _units(askable: Sequence[int], prompts: Sequence[str], groups: Sequence[Sequence[str]]) -> list[list[int]]:
    """Prompts that travel together; one that is in no group travels alone, one in two groups goes with the first."""
    group_of = {prompt: number for number, group in reversed(list(enumerate(groups))) for prompt in group}
    units: dict[int, list[int]] = {}
    for index in askable:
        units.setdefault(group_of.get(prompts[index], len(groups) + index), []).append(index)
    return list(units.values())


def _pieces(unit: Sequence[int], costs: Sequence[int], room: int) -> Iterator[list[int]]:
    """The unit itself, or full captions of it where it is too large for one."""
    piece: list[int] = []
    for index in unit:
        if piece and sum(costs[member] for member in piece) + costs[index] > room:
            yield piece
            piece = []
        piece.append(index)
    yield piece


def caption_of(members: Sequence[int], prompts: Sequence[str], tokenizer: Any) -> Caption:
    """The caption that asks the prompts at `members`, however long it becomes; `pack_captions` keeps to a limit."""
    owner: list[tuple[int, int] | None] = []  # of each character: which prompt of the caption, which word of it
    words: list[list[list[int]]] = []
    for number, index in enumerate(members):
        prompt_owner: list[tuple[int, int] | None] = [None] * len(prompts[index])
        found = list(re.finditer(r"\S+", prompts[index]))
        for word, match in enumerate(found):
            prompt_owner[match.start() : match.end()] = [(number, word)] * len(match.group())
        owner += [*prompt_owner, None, None, None]
        words.append([[] for _ in found])
    text = " . ".join(prompts[index] for index in members) + " ."
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    for position, (token, (start, end)) in enumerate(zip(ids, encoded["offset_mapping"], strict=True)):
        place = owner[start] if start < end and token not in DELIMITER_IDS else None
        if place is not None:
            words[place[0]][place[1]].append(position)
    kept = tuple(tuple(tuple(word) for word in prompt_words if word) for prompt_words in words)
    return Caption(text, tuple(ids), tuple(members), kept)
