"""Multi-scale deformable attention by gathering: the arithmetic of Deformable DETR without a copy of every sampled value.

`grid_sample` writes each sampled value to memory before it is weighted. On a CPU the four corners of every sampled point are rows
of one table here, and `embedding_bag` sums them, weighted, while it reads. Other devices sample, level by level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Levels(NamedTuple):
    """The feature maps of one input size, finest first: (height, width) of each; sides (L,) in cells, float32; the first row of
    each in the flattened sequence."""

    shapes: tuple[tuple[int, int], ...]
    width: Tensor
    height: Tensor
    start: Tensor

    @staticmethod
    def of(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Levels:
        import torch

        sides = torch.tensor(shapes, dtype=torch.float32, device=device)
        area = sides[:, 0] * sides[:, 1]
        return Levels(shapes, sides[:, 1], sides[:, 0], (area.cumsum(0) - area).to(torch.int32))


def attend(values: Tensor, x: Tensor, y: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """Weighted sums of bilinear samples, (queries, heads * channels).

    `values` (cells, heads, channels), contiguous; `x`, `y` (queries, heads, L, points) in cells, 0 the centre of the first one;
    `weights` of that shape. What lies outside a map counts as 0, as with grid_sample's `padding_mode="zeros"`.
    """
    return (gather if values.device.type == "cpu" else sample)(values, x, y, weights, levels)


def sample(values: Tensor, x: Tensor, y: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """`attend` by grid_sample."""
    import torch
    from torch.nn.functional import grid_sample

    total, start = torch.zeros((), device=values.device), 0
    for level, (height, width) in enumerate(levels.shapes):
        cells = values[start : start + height * width]
        picture = cells.permute(1, 2, 0).unflatten(2, (height, width))  # type: ignore[no-untyped-call]
        grid = torch.stack([(2 * x[:, :, level] + 1) / width - 1, (2 * y[:, :, level] + 1) / height - 1], dim=-1)
        taken = grid_sample(picture, grid.transpose(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + (taken * weights[:, :, level].transpose(0, 1)[:, None]).sum(dim=-1)
        start += height * width
    return total.permute(2, 0, 1).flatten(1)


def gather(values: Tensor, x: Tensor, y: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """`attend` by embedding_bag."""
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
        per_sample_weights=shares.view(queries * heads, -1).to(values.dtype),
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
