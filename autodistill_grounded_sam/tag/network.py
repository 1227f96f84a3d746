"""RAM, RAM++ and Tag2Text: the network, on transformers' Swin, and their authors' files read into it.

Images are squares of 384 pixels, whatever their proportions. Every tag looks at Swin's cells, with their mean put first, through
layers of cross-attention, and then says how likely it is. The arithmetic is the authors' (tests/tag/test_recognize.py). Captions
are not made here.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autodistill_grounded_sam.detect.official import SWIN, infer_swin, read_state, rename_official
from autodistill_grounded_sam.errors import WeightsError

logger = logging.getLogger(__name__)

Family = Literal["ram", "ram-plus", "tag2text"]
HEADS = 4  # of the tagging layers, in every release; the shapes do not tell it
EPS = 1e-12  # of their layer norms: BERT's
LISTED = 6  # names of tensors in an error

# Of a tag's layer: the authors' names of its parts and ours.
_PARTS = {
    "crossattention.self.": "",
    "crossattention.output.dense.": "attended.",
    "crossattention.output.LayerNorm.": "attended_norm.",
    "intermediate.dense.": "fc1.",
    "output.dense.": "fc2.",
    "output.LayerNorm.": "norm.",
}
_LAYER = re.compile(r"tagging_head\.encoder\.layer\.(\d+)\.")
# For captions and for training (old files name the tagging head vision_multi), or computed by transformers.
_DROPPED = re.compile(r"(tag_encoder|text_decoder)\..*|.*\.(relative_position_index|attn_mask)")


class TagLayer(nn.Module):
    """Each tag attends to the cells of the image, not to other tags; then an MLP."""

    def __init__(self, width: int, image_width: int, inner: int) -> None:
        super().__init__()
        self.query, self.attended = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(image_width, width), nn.Linear(image_width, width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.attended_norm, self.norm = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)

    def forward(self, tags: Tensor, cells: Tensor) -> Tensor:
        """(b, tags, width) and (b, cells, image width) to (b, tags, width)."""
        query, key, value = (
            made.unflatten(-1, (HEADS, -1)).transpose(1, 2) for made in (self.query(tags), self.key(cells), self.value(cells))
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tags = self.attended_norm(self.attended(seen) + tags)
        answer: Tensor = self.norm(self.fc2(nn.functional.gelu(self.fc1(tags))) + tags)
        return answer


class TagModel(nn.Module):
    """One of the three families; `forward` gives the logit of every tag. `tags` is how many there are."""

    def __init__(self, family: Family, swin: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        from transformers import SwinConfig, SwinModel

        super().__init__()
        self.family: Family = family
        self.swin = SwinModel(SwinConfig(**swin), add_pooling_layer=False)
        self.side_px = int(swin["image_size"])
        inner, width = shapes["layers.0.fc1.weight"]
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
        self.layers = nn.ModuleList(TagLayer(width, shapes["layers.0.key.weight"][1], inner) for _ in range(depth))
        self.label_embed = nn.Parameter(torch.zeros(shapes["label_embed"]))
        if family == "tag2text":  # every tag has its own last layer
            self.fc_weight, self.fc_bias = (
                nn.Parameter(torch.zeros(shapes["fc_weight"])),
                nn.Parameter(torch.zeros(shapes["fc_bias"])),
            )
        else:
            words, cells = shapes["label_embed"][1], shapes["image_proj.weight"][1]
            self.image_proj = nn.Linear(cells, shapes["image_proj.weight"][0])
            self.wordvec_proj = nn.Linear(words, width) if "wordvec_proj.weight" in shapes else nn.Identity()
            self.fc = nn.Linear(width, 1)
        if family == "ram-plus":
            self.reweight_scale = nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor, tags: int) -> Tensor:
        """(b, 3, side, side) to (b, tags). RAM++ has several descriptions a tag: how many is told by `tags`."""
        cells = self.swin(pixels).last_hidden_state
        cells = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
        if self.family == "tag2text":
            asked = self.label_embed.expand(len(pixels), -1, -1)
        else:
            cells = self.image_proj(cells)
            asked = nn.functional.relu(self.wordvec_proj(self._described(cells[:, 0], tags)))
        for layer in self.layers:
            asked = layer(asked, cells)
        if self.family == "tag2text":
            return (self.fc_weight * asked).sum(dim=-1) + self.fc_bias
        logits: Tensor = self.fc(asked)
        return logits.squeeze(-1)

    def _described(self, image: Tensor, tags: int) -> Tensor:
        """What each tag is asked as, (b, tags, words): in RAM++ its descriptions, those that fit the image before the others."""
        if self.family == "ram":
            return self.label_embed.expand(len(image), -1, -1)
        descriptions = self.label_embed.reshape(tags, -1, self.label_embed.shape[-1])
        image = image / image.norm(dim=-1, keepdim=True)
        fit = torch.einsum("bw,tdw->btd", self.reweight_scale.exp() * image, descriptions)
        return torch.einsum("btd,tdw->btw", fit.softmax(dim=-1), descriptions)


def load_official(path: Path) -> TagModel:
    """The float32 model of an official file, in eval mode; its architecture is read off the names and shapes.

    Raises WeightsError where the file is damaged, holds code, or lacks a weight of the model.
    """
    state = {
        key.replace("vision_multi", "tagging_head"): value
        for key, value in read_state(path).items()
        if not _DROPPED.fullmatch(key)
    }
    try:
        family, swin = _family(state), infer_swin(_as_backbone(state))
        renamed = _renamed(state)
        with torch.random.fork_rng(devices=[]):  # the random start is overwritten; the caller's random numbers stay as they were
            model = TagModel(family, swin, {name: tuple(value.shape) for name, value in renamed.items()})
    except KeyError as error:
        lacking = error.args[0].replace("backbone.0.", "visual_encoder.")
        raise WeightsError(f"{path} is no official file of RAM, RAM++ or Tag2Text: it has no {lacking!r}") from error
    _load(model, renamed, path)
    return model.float().eval()


def _family(state: dict[str, Tensor]) -> Family:
    if "reweight_scale" in state:
        return "ram-plus"
    return "tag2text" if "label_embed.weight" in state else "ram"


def _as_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of Swin under the names that Grounding DINO's authors give to the very same network."""
    prefix = "visual_encoder."
    return {"backbone.0." + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `TagModel`; a name that no rule knows stays as it is."""
    renamed = {
        key.replace("backbone.0.norm.", "swin.layernorm.").replace(SWIN, "swin."): value
        for key, value in rename_official(_as_backbone(state)).items()
    }
    whole = {"label_embed.weight": "label_embed", "fc.W": "fc_weight", "fc.b": "fc_bias"}
    for key, value in state.items():
        if match := _LAYER.match(key):
            rest = key[match.end() :]
            old = next((part for part in _PARTS if rest.startswith(part)), "")
            renamed[f"layers.{match[1]}.{_PARTS.get(old, '')}{rest.removeprefix(old)}"] = value
        elif not key.startswith("visual_encoder."):
            renamed[whole.get(key, key)] = value
    return renamed


def _load(model: TagModel, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    if strange := [key for key in state if key not in own]:  # the authors' own loader drops them without a word
        logger.warning("%s holds %d tensors that tagging does not need: %s", path, len(strange), ", ".join(strange[:LISTED]))
    wrong = [f"missing: {key}" for key in own if key not in state and "relative_position_index" not in key]
    wrong += [
        f"{key} is {tuple(value.shape)}, the model has {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if wrong:
        shown = "\n  ".join(wrong[:LISTED]) + (f"\n  and {len(wrong) - LISTED} more" if len(wrong) > LISTED else "")
        raise WeightsError(f"{path} does not fit the {model.family} model built for it ({len(wrong)} tensors):\n  {shown}")
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
