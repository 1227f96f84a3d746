"""Multi-scale deformable attention by gathering: the arithmetic of Deformable DETR without a copy of every sampled value.

`grid_sample` writes each sampled value to memory before it is weighted. On a CPU the four corners of every sampled point are rows
of one table here, and `embedding_bag` sums them, weighted, while it reads. Other devices sample, level by level.

A query looks at n = heads * levels * points places, in this order. What is constant for a place is kept in rows of n numbers, so
that the arithmetic on places runs over whole rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shapes = tuple[tuple[int, int], ...]  # (height, width) of the feature maps, finest first


class Looking:
    """Where one deformable attention of transformers looks, and how much each place counts; both by one product."""

    def __init__(self, attention: Any) -> None:
        import torch

        self._sizes = attention.n_heads, attention.n_points
        places, shares = attention.sampling_offsets, attention.attention_weights
        width = places.in_features
        weight = places.weight.detach().view(-1, 2, width).transpose(0, 1).flatten(0, 1)  # all x, then all y
        bias = places.bias.detach().view(-1, 2).T.flatten()
        self._weight = torch.cat([weight, shares.weight.detach()])
        self._bias = torch.cat([bias, shares.bias.detach()])

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of `states` (queries, d): offsets (queries, 2, n), x before y, and weights (queries, n)."""
        import torch
        from torch.nn.functional import linear

        offsets, shares = linear(states, self._weight, self._bias).tensor_split([2 * len(self._bias) // 3], dim=1)
        weights = torch.unflatten(shares, 1, (self._sizes[0], -1)).softmax(dim=-1)
        return torch.unflatten(offsets, 1, (2, -1)), weights.flatten(1)

    def maps(self, shapes: Shapes, device: torch.device) -> Maps:
        return Maps.of(shapes, *self._sizes, device)


class Maps(NamedTuple):
    """Feature maps as n places see them. Of each place, x before y: `sides` (2, n), width and height of its map in cells; `last`
    (2, n), the highest cell that has another beside it; `beside` (2, n), the distance to that one, out of reach on a map of one
    cell; `strides` (2, n), the rows of the table from cell to cell. `first` (n,) is the row of its map's first cell and of its
    head; `right` and `below` (heads, levels * points) the rows from a cell to those beside it."""

    shapes: Shapes
    heads: int
    sides: Tensor
    last: Tensor
    beside: Tensor
    strides: Tensor
    first: Tensor
    right: Tensor
    below: Tensor

    @staticmethod
    @lru_cache(maxsize=32)
    def of(shapes: Shapes, heads: int, points: int, device: torch.device) -> Maps:
        import torch

        sides = torch.tensor([[width, height] for height, width in shapes], dtype=torch.float32, device=device).T
        areas = sides.prod(dim=0)
        several = sides > 1
        strides = heads * torch.stack([torch.ones_like(areas), sides[0]])
        head = torch.arange(heads, device=device)[:, None, None]

        def row(values: Tensor) -> Tensor:  # (..., levels) -> (..., n)
            return values[..., None, :, None].expand(*values.shape[:-1], heads, -1, points).flatten(-3).contiguous()

        first = (heads * (areas.cumsum(0) - areas))[:, None].expand(heads, -1, points) + head
        right, below = row((strides * several).to(torch.int32)).view(2, heads, -1).unbind()
        beside = torch.where(several, 1.0, float("inf"))
        return Maps(
            shapes, heads, row(sides), row((sides - 2).clamp(min=0)), row(beside), row(strides), first.flatten(), right, below
        )


def attend(values: Tensor, at: Tensor, weights: Tensor, maps: Maps) -> Tensor:
    """Weighted sums of bilinear samples, (queries, heads * channels).

    `values` (cells, heads, channels), contiguous; `at` (queries, 2, n) in cells, 0 the centre of the first one; `weights`
    (queries, n). What lies outside a map counts as 0, as with grid_sample's `padding_mode="zeros"`.
    """
    return (gather if values.device.type == "cpu" else sample)(values, at, weights, maps)


def sample(values: Tensor, at: Tensor, weights: Tensor, maps: Maps) -> Tensor:
    """`attend` by grid_sample."""
    import torch
    from torch.nn.functional import grid_sample

    total, start = torch.zeros((), device=values.device), 0
    by_level = (len(at), maps.heads, len(maps.shapes), -1)
    grids = ((2 * at + 1) / maps.sides - 1).view(len(at), 2, *by_level[1:])
    shares = weights.view(by_level)
    for level, (height, width) in enumerate(maps.shapes):
        cells = values[start : start + height * width]
        picture = cells.permute(1, 2, 0).unflatten(2, (height, width))  # type: ignore[no-untyped-call]
        grid = grids[:, :, :, level].permute(2, 0, 3, 1)
        taken = grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + (taken * shares[:, :, level].transpose(0, 1)[:, None]).sum(dim=-1)
        start += height * width
    return total.permute(2, 0, 1).flatten(1)


def gather(values: Tensor, at: Tensor, weights: Tensor, maps: Maps) -> Tensor:
    """`attend` by embedding_bag.

    Along each axis a place has two cells, the lower one kept so that both are inside. A cell's share is a hat one cell wide on
    either side, so what lies outside gets none.
    """
    import torch
    from torch.nn.functional import embedding_bag

    queries, heads, channels = len(at), maps.heads, values.shape[-1]
    lower = at.floor().minimum(maps.last).clamp_(min=0)
    beyond = at - lower
    lower_share = (1 - beyond.abs()).clamp_(min=0)
    upper_share = (1 - beyond.sub_(maps.beside).abs_()).clamp_(min=0)

    corners = (queries, heads, 4, maps.right.shape[1])
    rows = torch.empty(corners, dtype=torch.int32)
    shares = torch.empty(corners)
    left_top, right_top, left_bottom, right_bottom = rows.unbind(2)
    first = torch.addcmul(maps.first, lower[:, 0], maps.strides[0]).addcmul_(lower[:, 1], maps.strides[1])
    left_top.copy_(first.to(torch.int32).clamp_(min=0).view_as(left_top))  # what is not a number became a negative one
    torch.add(left_top, maps.right, out=right_top)
    torch.add(left_top, maps.below, out=left_bottom)
    torch.add(left_bottom, maps.right, out=right_bottom)

    (left, top), (right, bottom) = (
        share.view(queries, 2, heads, -1).unbind(1)  # each (queries, heads, levels * points)
        for share in (lower_share, upper_share)
    )
    weights = weights.view_as(left)
    top, bottom = top * weights, bottom * weights
    for share, (across, down) in zip(shares.unbind(2), ((left, top), (right, top), (left, bottom), (right, bottom)), strict=True):
        torch.mul(across, down, out=share)
    summed = embedding_bag(
        rows.view(queries * heads, -1),
        values.view(-1, channels),
        per_sample_weights=shares.view(queries * heads, -1).to(values.dtype),
        mode="sum",
    )
    return summed.view(queries, heads * channels)
