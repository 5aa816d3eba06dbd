"""Attention within the picture's grid of codes, computed by rows or columns; see `grid_attention`.

Imported only when a whole sequence is computed: it needs the compiler of PyTorch, which takes longer to import than a
picture to draw.

Letters: b sequences, h heads, t tokens, e channels, g lines of queries, q queries of a line, s keys of one.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.transformer.config import GridConfig
from cogview.transformer.grid_attention import LayerGrid, grid_mask, layer_grids


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """Lines of queries of equal length, each with the keys that any of its queries sees.

    Args:
        queries: places; a shorter line repeats its first.
        keys: places; fewer keys repeat the first.
        bias: added to the scores: 0 where a query sees a key, else minus infinity.
    """

    queries: Int64[Tensor, "g q"]
    keys: Int64[Tensor, "g s"]
    bias: Float[Tensor, "g q s"]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _groups(
    grid: GridConfig, num_tokens: int, device: torch.device, dtype: torch.dtype
) -> tuple[list[_Group], Int64[Tensor, "t"]]:
    """Return the groups of a sequence, cached; a compiled pass takes them as they are."""
    return _make_groups(grid, num_tokens, device, dtype)


@lru_cache(maxsize=32)
def _make_groups(
    grid: GridConfig, num_tokens: int, device: torch.device, dtype: torch.dtype
) -> tuple[list[_Group], Int64[Tensor, "t"]]:
    """Return the groups of a sequence, and where each token is among the queries of all.

    The tokens before and after the grid are a group each, and the rows or columns of the grid another.

    Args:
        grid: with one mask.
        num_tokens: tokens of the sequence.
        device: of the groups.
        dtype: of the biases.
    """
    mask = grid_mask(grid, num_tokens)
    places = torch.arange(num_tokens)
    before, cells, after = places.tensor_split((grid.first_place, grid.stop_place))
    cell = cells - grid.first_place
    line = cell % grid.num_columns if grid.masks == ("column",) else cell // grid.num_columns
    lines = [cells[line == number] for number in range(int(line.max()) + 1)] if len(cells) else []
    groups = [_group(mask, members) for members in ([before], lines, [after]) if sum(map(len, members))]
    queries = torch.cat([group.queries.flatten() for group in groups])
    # Places may occur twice. Of equal ones, any has the same value, and one alone must have a gradient.
    index_of = torch.empty(num_tokens, dtype=torch.int64)
    index_of[queries] = torch.arange(len(queries))
    on_device = [
        _Group(queries=each.queries.to(device), keys=each.keys.to(device), bias=each.bias.to(device, dtype))
        for each in groups
    ]
    return on_device, index_of.to(device)


def _group(mask: Bool[Tensor, "t t"], lines: list[Tensor]) -> _Group:
    keys = [mask[line].any(0).nonzero()[:, 0] for line in lines]
    queries, all_keys = _padded(lines), _padded(keys)
    is_key = torch.arange(all_keys.shape[1]) < torch.tensor([len(each) for each in keys])[:, None]
    seen = mask[queries[:, :, None], all_keys[:, None]] & is_key[:, None]
    return _Group(queries=queries, keys=all_keys, bias=torch.zeros(seen.shape).masked_fill(~seen, -torch.inf))


def _padded(lines: list[Tensor]) -> Int64[Tensor, "g q"]:
    """Stack lines, and repeat the first place of shorter ones."""
    longest = max(map(len, lines))
    return torch.stack([torch.cat([line, line[:1].expand(longest - len(line))]) for line in lines])


def grid_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h t e"],
    value: Float[Tensor, "b h t e"],
    layer: LayerGrid,
    dropout: float = 0.0,
) -> Float[Tensor, "b h t e"]:
    """Attend within a whole sequence; each row or column of the grid reads only the keys that it sees.

    The slow twin is attention with `LayerGrid.mask`.

    Args:
        query: of all tokens.
        key: of all tokens.
        value: of all tokens.
        layer: grid and mask.
        dropout: probability of dropping an attention weight.
    """
    groups, index_of = _groups(layer.grid, query.shape[2], query.device, query.dtype)
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, group.queries],
            key[:, :, group.keys],
            value[:, :, group.keys],
            attn_mask=group.bias,
            dropout_p=dropout,
        ).flatten(2, 3)
        for group in groups
    ]
    return torch.cat(parts, dim=2)[:, :, index_of]


def gathered_keys(config: GridConfig, num_tokens: int) -> float:
    """Return how many keys `grid_attention` gathers for a sequence, on average over layers."""
    cpu = torch.device("cpu")
    all_groups = [_groups(layer.grid, num_tokens, cpu, torch.float32)[0] for layer in layer_grids(config)]
    return sum(group.keys.numel() for groups in all_groups for group in groups) / len(all_groups)
