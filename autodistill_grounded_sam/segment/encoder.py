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
    from collections.abc import Iterator

    from torch import Tensor

BLOCK_CELLS = 512  # of the feed-forward net, for each thread of a CPU
BLOCK_BYTES = 2**21  # of attention, for each thread of a CPU


def encode(encoder: Any, pixels: Tensor, early: list[Tensor] | None = None) -> Tensor:
    """What `SamVisionEncoder` answers, (b, channels, grid, grid), for `pixels` (b, 3, side, side).

    To `early` go the states (b, grid, grid, d) after each layer that sees the whole image.
    """
    states = encoder.patch_embed(pixels).contiguous()
    if encoder.pos_embed is not None:
        states = states + encoder.pos_embed
    for layer in encoder.layers:
        states = _layer(layer, states)
        if early is not None and not layer.window_size:
            early.append(states.clone())  # the next layer changes them in place
    answer: Tensor = encoder.neck(states)
    return answer


def _layer(layer: Any, states: Tensor) -> Tensor:
    """`states` (b, height, width, d), changed in place."""
    attention = layer.attn
    windows = _project(layer, states)
    answer = (attend_in_blocks if windows.device.type == "cpu" else attend_in_columns)(attention, windows.flatten(1, 4))
    seen = _picture(answer.view(*windows.shape[1:5], *answer.shape[1:]), states)
    flat, seen = states.view(-1, states.shape[-1]), seen.flatten(0, 2)
    step = BLOCK_CELLS * _threads(states)
    for start in range(0, len(flat), step):
        cells = flat[start : start + step]
        cells += attention.proj(seen[start : start + step])
        cells += layer.mlp(layer.layer_norm2(cells))
    return states


def _project(layer: Any, states: Tensor) -> Tensor:
    """Query, key and value of `states`, window by window: (3, b, down, across, heads, rows, columns, channels)."""
    import torch

    attention = layer.attn
    batch, height, width, depth = states.shape
    rows, columns = (layer.window_size,) * 2 if layer.window_size else (height, width)
    strips = [attention.qkv(layer.layer_norm1(strip)) for strip in torch.split(states, rows, dim=1)]
    heads = attention.num_attention_heads
    windows: Tensor = strips[0].new_empty(
        (3, batch, len(strips), -(-width // columns), heads, rows, columns, depth // heads),
    )
    places = windows.permute(1, 2, 3, 5, 6, 0, 4, 7)  # (b, down, across, rows, columns, 3, heads, channels)
    filling = 0 if attention.qkv.bias is None else attention.qkv.bias.view(places.shape[5:])
    places[:, -1, :, height - rows * (len(strips) - 1) :] = filling
    places[:, :, -1, :, width - columns * (places.shape[2] - 1) :] = filling
    for index, strip in enumerate(strips):
        for windowed, cells in _same_cells(places[:, index], torch.unflatten(strip, -1, places.shape[5:])):
            windowed.copy_(cells)
    return windows


def _picture(answer: Tensor, states: Tensor) -> Tensor:
    """(b, height, width, d) of `states`, from `answer` (b, down, across, heads, rows, columns, channels)."""
    import torch

    heads, rows, _, channels = answer.shape[3:]
    picture = answer.new_empty((*states.shape[:3], heads, channels))
    for index, strip in enumerate(torch.split(picture, rows, dim=1)):
        for windowed, cells in _same_cells(answer[:, index].permute(0, 1, 3, 4, 2, 5), strip):
            cells.copy_(windowed)
    return picture.flatten(3)


def _same_cells(windows: Tensor, strip: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of the same cells in `windows` (b, windows across, rows, columns, ...) and `strip` (b, height, width, ...)."""
    import torch

    columns = windows.shape[3]
    whole, rest = divmod(strip.shape[2], columns)
    windows = windows[:, :, : strip.shape[1]]
    if whole:
        yield windows[:, :whole].transpose(1, 2), torch.unflatten(strip[:, :, : whole * columns], 2, (whole, columns))
    if rest:
        yield windows[:, whole, :, :rest], strip[:, :, whole * columns :]


def attend_in_blocks(attention: Any, windows: Tensor) -> Tensor:
    """(n, rows, columns, channels) from `windows` (3, n, rows, columns, channels), which are query, key and value of n heads."""
    import torch

    query, key, value = windows
    count, rows, columns, _ = query.shape
    keys, values = key.flatten(1, 2).transpose(1, 2), value.flatten(1, 2)
    answer = torch.empty_like(query)
    positions = _relative_positions(attention, rows, columns)
    cells, threads = rows * columns, torch.get_num_threads()
    at_once = BLOCK_BYTES // (4 * cells)  # rows of logits a thread
    together = threads * max(1, at_once // cells)  # heads; each thread then works on its own
    row_step = rows if at_once >= cells else max(1, at_once // columns)
    for first in range(0, count, together):
        part = slice(first, first + together)
        if positions is not None:
            for_rows = torch.einsum("nrcd,rkd->nrck", query[part], positions[0])[..., None]
            for_columns = torch.einsum("nrcd,ckd->nrck", query[part], positions[1])[..., None, :]
        for row in range(0, rows, row_step):
            asking = slice(row, row + row_step)
            logits = torch.bmm(query[part, asking].flatten(1, 2) * attention.scale, keys[part])
            if positions is not None:
                grid = logits.view(len(logits), -1, columns, rows, columns)
                grid += for_rows[:, asking]
                grid += for_columns[:, asking]
            answer[part, asking] = torch.bmm(logits.softmax(dim=-1), values[part]).view_as(answer[part, asking])
    return answer


def attend_in_columns(attention: Any, windows: Tensor) -> Tensor:
    """The same by one fused kernel: a query's bias toward each key row and column, times the key's own row and column as one-hot
    vectors, is what the bias adds to their product."""
    import torch

    query, key, value = windows
    _, rows, columns, _ = query.shape
    asking, asked = [query * attention.scale], [key]
    positions = _relative_positions(attention, rows, columns)
    if positions is not None:
        by_row, by_column = positions
        asking += [torch.einsum("nrcd,rkd->nrck", query, by_row), torch.einsum("nrcd,ckd->nrck", query, by_column)]
        row, column = torch.eye(rows).to(key), torch.eye(columns).to(key)
        asked += [row[:, None].expand(len(key), -1, columns, -1), column.expand(len(key), rows, -1, -1)]
        filling = key.new_zeros((*key.shape[:3], -(key.shape[-1] + rows + columns) % 8))  # what kernels want a width to divide by
        asking, asked = [*asking, filling], [*asked, filling]
    heads = attention.num_attention_heads
    query, key, value = (
        torch.unflatten(torch.cat(states, dim=-1).flatten(1, 2), 0, (-1, heads)) for states in (asking, asked, [value])
    )
    answer = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    answer = answer.flatten(0, 1)
    return answer.view(-1, rows, columns, answer.shape[-1])


def _relative_positions(attention: Any, rows: int, columns: int) -> tuple[Tensor, Tensor] | None:
    """(query row, key row, channels) and (query column, key column, channels), for models that have them."""
    if not attention.use_rel_pos:
        return None
    return attention.get_rel_pos(rows, rows, attention.rel_pos_h), attention.get_rel_pos(columns, columns, attention.rel_pos_w)


def _threads(states: Tensor) -> int:
    import torch

    return torch.get_num_threads() if states.device.type == "cpu" else 2**20
