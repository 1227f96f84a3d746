"""SAM's image encoder as this tool runs it: transformers' modules and weights, the same answer within rounding, less work.

- No tensor of tokens x tokens x heads is ever made (0.8 GB an image in ViT-B): on a CPU the bias of relative positions is added
  to blocks of attention that fit in the cache; elsewhere it travels in further columns of queries and keys.
- The cells that fill the last windows up (64 into 5 x 14) are zeros, so their keys and values are the bias of the projection:
  they are put in place, not computed.
- What treats cells one by one (norms, the feed-forward net) runs in blocks as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_CELLS = 512  # of the feed-forward net, for each thread of a CPU
BLOCK_BYTES = 2**21  # of attention, for each thread of a CPU


def encode(encoder: Any, pixels: Tensor) -> Tensor:
    """What `SamVisionEncoder` answers, (b, channels, grid, grid), for `pixels` (b, 3, side, side)."""
    states = encoder.patch_embed(pixels).contiguous()
    if encoder.pos_embed is not None:
        states = states + encoder.pos_embed
    for layer in encoder.layers:
        states = _layer(layer, states)
    answer: Tensor = encoder.neck(states)
    return answer


def _layer(layer: Any, states: Tensor) -> Tensor:
    """`states` (b, height, width, d), changed in place."""
    batch, height, width, depth = states.shape
    attention = layer.attn
    normed = layer.layer_norm1(states)
    projected = attention.qkv(normed)
    side = layer.window_size or height
    if layer.window_size:
        projected = _windows(projected, side, attention.qkv.bias)
    windows = projected.view(
        -1,
        side,
        projected.shape[-2] if layer.window_size else width,
        3,
        attention.num_attention_heads,
        depth // attention.num_attention_heads,
    )
    seen = (attend_in_blocks if windows.device.type == "cpu" else attend_in_columns)(attention, windows)
    if layer.window_size:
        seen = _unwindowed(seen, batch, height, width)
    flat, seen = states.view(-1, depth), seen.reshape(-1, depth)
    step = BLOCK_CELLS * _threads(states)
    for start in range(0, len(flat), step):
        cells = flat[start : start + step]
        cells += attention.proj(seen[start : start + step])
        cells += layer.mlp(layer.layer_norm2(cells))
    return states


def attend_in_blocks(attention: Any, windows: Tensor) -> Tensor:
    """(n, rows, columns, d) from `windows` (n, rows, columns, 3, heads, channels), which hold query, key and value."""
    import torch

    count, rows, columns, _, heads, _ = windows.shape
    query, key, value = _split(windows)
    keys, values = key.flatten(1, 2).transpose(1, 2), value.flatten(1, 2)
    answer = torch.empty_like(query)
    positions = _relative_positions(attention, rows, columns)
    cells = rows * columns
    budget = BLOCK_BYTES * torch.get_num_threads() // (4 * cells)
    together = max(1, budget // cells)  # whole windows of one head each, or else rows of one
    row_step = rows if budget >= cells else max(1, budget // columns)
    for first in range(0, count * heads, together):
        part = slice(first, first + together)
        for row in range(0, rows, row_step):
            asking = query[part, row : row + row_step]
            logits = torch.bmm(asking.flatten(1, 2) * attention.scale, keys[part])
            if positions is not None:
                by_row, by_column = positions
                grid = logits.view(len(asking), -1, columns, rows, columns)
                grid += torch.einsum("nrcd,rkd->nrck", asking, by_row[row : row + row_step])[..., None]
                grid += torch.einsum("nrcd,ckd->nrck", asking, by_column)[..., None, :]
            shares = logits.softmax(dim=-1)
            answer[part, row : row + row_step] = torch.bmm(shares, values[part]).view_as(asking)
    return _joined(answer, heads)


def attend_in_columns(attention: Any, windows: Tensor) -> Tensor:
    """The same by one fused kernel: a query's bias toward each key row and column, times the key's own row and column as one-hot
    vectors, is what the bias adds to their product."""
    import torch

    _, rows, columns, _, heads, _ = windows.shape
    query, key, value = _split(windows)
    asking, asked = [query * attention.scale], [key]
    positions = _relative_positions(attention, rows, columns)
    if positions is not None:
        by_row, by_column = positions
        asking += [torch.einsum("nrcd,rkd->nrck", query, by_row), torch.einsum("nrcd,ckd->nrck", query, by_column)]
        row, column = torch.eye(rows).to(key), torch.eye(columns).to(key)
        asked += [row[:, None].expand(len(key), -1, columns, -1), column.expand(len(key), rows, -1, -1)]
        filling = key.new_zeros((*key.shape[:3], -(key.shape[-1] + rows + columns) % 8))  # what kernels want a width to divide by
        asking, asked = [*asking, filling], [*asked, filling]
    query, key, value = (
        torch.unflatten(torch.cat(states, dim=-1).flatten(1, 2), 0, (-1, heads)) for states in (asking, asked, [value])
    )
    answer = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return _joined(answer.flatten(0, 1).reshape(-1, rows, columns, answer.shape[-1]), heads)


def _split(windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each (n * heads, rows, columns, channels)."""
    count, rows, columns, _, heads, channels = windows.shape
    query, key, value = windows.permute(3, 0, 4, 1, 2, 5).reshape(3, count * heads, rows, columns, channels).unbind(0)
    return query, key, value


def _joined(answer: Tensor, heads: int) -> Tensor:
    import torch

    return torch.unflatten(answer, 0, (-1, heads)).permute(0, 2, 3, 1, 4).flatten(3)


def _relative_positions(attention: Any, rows: int, columns: int) -> tuple[Tensor, Tensor] | None:
    """(query row, key row, channels) and (query column, key column, channels), for models that have them."""
    if not attention.use_rel_pos:
        return None
    return attention.get_rel_pos(rows, rows, attention.rel_pos_h), attention.get_rel_pos(columns, columns, attention.rel_pos_w)


def _windows(projected: Tensor, side: int, bias: Tensor | None) -> Tensor:
    """Windows (n, side, side, d) of (b, height, width, d); what is beyond the picture holds `bias`."""
    batch, height, width, depth = projected.shape
    down, right = -(-height // side), -(-width // side)
    if (down * side, right * side) != (height, width):
        padded = projected.new_zeros((batch, down * side, right * side, depth))
        if bias is not None:
            padded[:, height:] = bias
            padded[:, :, width:] = bias
        padded[:, :height, :width] = projected
        projected = padded
    return projected.view(batch, down, side, right, side, depth).transpose(2, 3).reshape(-1, side, side, depth)


def _unwindowed(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    side, depth = windows.shape[1], windows.shape[-1]
    down, right = -(-height // side), -(-width // side)
    whole = windows.view(batch, down, right, side, side, depth).transpose(2, 3).reshape(batch, down * side, right * side, depth)
    return whole[:, :height, :width]


def _threads(states: Tensor) -> int:
    import torch

    return torch.get_num_threads() if states.device.type == "cpu" else 2**20
