"""Multi-scale deformable attention by gathering: the arithmetic of Deformable DETR without a copy of every sampled value.

`grid_sample` writes each sampled value to memory before it is weighted. Here the four corners of every sampled point are rows of
one table, and `embedding_bag` sums them, weighted, while it reads: on a CPU a tenth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Levels(NamedTuple):
    """The feature maps of one input size: sides (L,) in cells, float32; the first row of each in the flattened sequence."""

    width: Tensor
    height: Tensor
    start: Tensor

    @staticmethod
    def of(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Levels:
        """`shapes` are (height, width), finest first."""
        import torch

        sides = torch.tensor(shapes, dtype=torch.float32, device=device)
        area = sides[:, 0] * sides[:, 1]
        return Levels(sides[:, 1], sides[:, 0], (area.cumsum(0) - area).to(torch.int32))


def gather(values: Tensor, x: Tensor, y: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """Weighted sums of bilinear samples, (queries, heads * channels).

    `values` (cells, heads, channels), contiguous; `x`, `y` (queries, heads, L, points) in cells, 0 the centre of the first one;
    `weights` of that shape. What lies outside a map counts as 0, as with grid_sample's `padding_mode="zeros"`.
    """
    import torch
    from torch.nn.functional import embedding_bag

    cells, heads, channels = values.shape
    queries = len(x)
    left, right_step, left_weight, right_weight = _corners(x, levels.width[:, None])
    top, bottom_step, top_weight, bottom_weight = _corners(y, levels.height[:, None])
    wide = levels.width[:, None].to(torch.int32)
    head = torch.arange(heads, dtype=torch.int32, device=x.device)[:, None, None]
    first = (levels.start[:, None] + top * wide + left) * heads + head
    right, below = right_step * heads, bottom_step * wide * heads
    rows = torch.stack([first, first + right, first + below, first + below + right], dim=-1)
    top_weight, bottom_weight = top_weight * weights, bottom_weight * weights
    shares = torch.stack(
        [top_weight * left_weight, top_weight * right_weight, bottom_weight * left_weight, bottom_weight * right_weight], dim=-1
    )
    summed = embedding_bag(
        rows.view(queries * heads, -1),
        values.view(cells * heads, channels),
        per_sample_weights=shares.view(queries * heads, -1),
        mode="sum",
    )
    return summed.view(queries, heads * channels)


def _corners(at: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis: the lower of the two cells beside each place, the step to the other, and the share of both.

    The lower one is kept so that both are inside; a share is a hat one cell wide on either side, so what lies outside gets none.
    On a map of one cell the step is 0 and the other has no share.
    """
    import torch

    lower = at.floor().clamp_(min=0).minimum((cells - 2).clamp_(min=0))
    step = (cells > 1).to(at.dtype)
    beside = at - lower
    return (
        lower.to(torch.int32),
        step.to(torch.int32),
        (1 - beside.abs()).clamp_(min=0),
        (1 - (beside - 1).abs()).clamp_(min=0) * step,
    )
