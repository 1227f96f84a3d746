"""RAM, RAM++ and Tag2Text as taggers: the network, the names of its tags, and from which probability on each is believed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autodistill_grounded_sam.about import About
from autodistill_grounded_sam.detect.common import check_image
from autodistill_grounded_sam.errors import ConfigError, WeightsError
from autodistill_grounded_sam.loading import Precision, inference
from autodistill_grounded_sam.protocols import Tag
from autodistill_grounded_sam.types import Float32, RgbImage
from autodistill_grounded_sam.weights import find_weights

if TYPE_CHECKING:
    import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The names of the tags, and the probability from which each counts, are in the authors' package and not in their checkpoints.
RAM_TAGS, RAM_THRESHOLDS, TAG2TEXT_TAGS = "ram_tag_list.txt", "ram_tag_list_threshold.txt", "tag2text_ori_tag_list.txt"
REPOSITORY = "github.com/xinyu1205/recognize-anything"
# Tag2Text's are in the authors' code, by place in its list: person, man and woman count from 0.7 on, words for numbers, "back"
# and "quarter" never.
TAG2TEXT_COUNT, TAG2TEXT_THRESHOLD = 3429, 0.68
TAG2TEXT_STRICTER = {2701: 0.7, 2828: 0.7, 1167: 0.7}
TAG2TEXT_SILENT = (127, 2961, 3351, 3265, 3338, 3355, 3359)
_PROVEN = (
    "logits of the authors' code to {} on their file at tiny size, and its tags from photographs (`tests/tag/test_recognize.py`)"
)
_NEEDS = "the list of its tags (`docs/discover.md`)"


class TagList(NamedTuple):
    """The names of the tags by place, and what the probability of each must be above."""

    names: tuple[str, ...]
    thresholds: Float32


class RecognizeAnything:
    """Tagger on the authors' files: `ram-plus`, `ram` and `tag2text` bring them from the hub, or `name` is the path of one.

    Which of the three it is is read off the file. The list of its tags is looked for beside the file, then in the authors'
    package `ram` if that is installed (it is not imported). `batch_size` is the most images in one forward pass; None is 1 on a
    CPU, else all. Raises WeightsError where the file or the list is missing or does not fit, ConfigError for `words`.
    """

    about = (
        About("ram-plus", _PROVEN.format("2e-6"), "ram-plus", needs=_NEEDS),
        About("ram", _PROVEN.format("3e-6"), "ram", needs=_NEEDS),
        About("tag2text", _PROVEN.format("2e-6") + "; its captions are not made", "tag2text", needs=_NEEDS),
    )

    def __init__(
        self,
        name: str = "ram-plus",
        *,
        words: Sequence[str] | None = None,
        device: str = "cpu",
        offline: bool = False,
        precision: Precision = "float32",
        batch_size: int | None = None,
    ) -> None:
        from autodistill_grounded_sam.tag.network import load_official

        if words is not None:
            raise ConfigError(f"{name} has a list of tags of its own; words are for a detector as tagger, leave them out")
        path = find_weights(name, "tagger", offline=offline).path
        self._model = load_official(path).to(device)
        self._list = read_tag_list(path, self._model.family)
        rows = len(self._model.label_embed)
        if rows % len(self._list.names) or (rows != len(self._list.names) and self._model.family != "ram-plus"):
            raise WeightsError(
                f"{path} has {rows} tags, but the list for it names {len(self._list.names)}; they must be of one release"
            )
        self._device, self._precision = device, precision
        self._batch_size = batch_size or (1 if device.startswith("cpu") else None)

    def tag(self, images: Sequence[RgbImage]) -> list[list[Tag]]:
        """The tags of each image whose probability is above their threshold, in the order of the list; each name once."""
        for image in images:
            check_image(image)
        step = self._batch_size or max(1, len(images))
        answers = [self._probabilities(images[start : start + step]) for start in range(0, len(images), step)]
        return [self._above(row) for rows in answers for row in rows]

    def _above(self, probabilities: Float32) -> list[Tag]:
        best: dict[str, float] = {}
        for place in np.flatnonzero(probabilities > self._list.thresholds):
            name = self._list.names[place]
            best[name] = max(best.get(name, 0.0), float(probabilities[place]))
        return [Tag(name, score) for name, score in best.items()]

    def _probabilities(self, images: Sequence[RgbImage]) -> Float32:
        """(b, tags)."""
        import torch

        pixels = torch.from_numpy(np.stack([square(image, self._model.side_px) for image in images])).to(self._device)
        with inference(self._device, self._precision):
            logits: torch.Tensor = self._model(pixels, len(self._list.names))
        return np.asarray(logits.float().sigmoid().cpu().numpy())


def square(image_rgb: RgbImage, side_px: int) -> Float32:
    """(3, side, side): the picture squeezed into the square, as the authors do, and brought to ImageNet's mean and deviation."""
    from PIL import Image

    small = Image.fromarray(image_rgb).resize((side_px, side_px), Image.Resampling.BILINEAR)
    normal = (np.asarray(small, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def read_tag_list(path: Path, family: str) -> TagList:
    """The list for an official file; raises WeightsError, saying where to get it, if it is nowhere."""
    if family == "tag2text":
        names = _lines(path, TAG2TEXT_TAGS)
        thresholds = np.full(len(names), TAG2TEXT_THRESHOLD, np.float32)
        if len(names) == TAG2TEXT_COUNT:
            thresholds[list(TAG2TEXT_STRICTER)] = list(TAG2TEXT_STRICTER.values())
            thresholds[list(TAG2TEXT_SILENT)] = 1  # nothing is above it
        return TagList(names, thresholds)
    names, written = _lines(path, RAM_TAGS), _lines(path, RAM_THRESHOLDS)
    try:
        thresholds = np.array([float(line) for line in written], np.float32)
    except ValueError as error:
        raise WeightsError(f"{RAM_THRESHOLDS} must hold a number a line: {error}") from error
    if len(thresholds) != len(names):
        raise WeightsError(
            f"{RAM_TAGS} has {len(names)} lines and {RAM_THRESHOLDS} {len(thresholds)}; they must be of one release"
        )
    return TagList(names, thresholds)


def _lines(path: Path, file: str) -> tuple[str, ...]:
    package = find_spec("ram")
    installed = [Path(home) / "data" for home in (package.submodule_search_locations or ())] if package else []
    for folder in (path.parent, *installed):
        if (folder / file).is_file():
            return tuple((folder / file).read_text(encoding="utf-8").splitlines())
    raise WeightsError(
        f"{file} is missing: the names of the tags are not in {path.name}, and are not shipped here. Put {file} of ram/data in "
        f"{REPOSITORY} into {path.parent}, with its neighbours, or install that package: pip install git+https://{REPOSITORY}.git"
    )
