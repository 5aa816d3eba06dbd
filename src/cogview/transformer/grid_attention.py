"""Attention within the picture's grid of codes: each layer has a mask by row, by column or by a square of cells.

The text is seen by all tokens after it, and tokens after the picture see everything before them. A code sees, of the
codes up to its own,

- with a mask by `row`, the last `num_columns` and itself;
- with a mask by `column`, those of its column;
- with a mask by `convolution`, those at most `kernel_size // 2` rows and columns away.

Letters: b sequences, h heads, t tokens, k keys, e channels, g groups of queries, q queries of a group, s keys of one.

Beyond the paper: the masks are those of ruDALL-E and RuDOLPH.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int16, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.transformer.config import GridConfig


@dataclass(frozen=True, kw_only=True)
class LayerGrid:
    """Grid and mask of one layer.

    Args:
        grid: with this layer's mask and kernel size alone.
    """

    grid: GridConfig

    @classmethod
    def of(cls, config: GridConfig, layer: int) -> "LayerGrid":
        """Return the grid of a layer."""
        sizes = config.kernel_sizes[layer : layer + 1]
        return cls(grid=replace(config, masks=config.masks[layer : layer + 1], kernel_sizes=sizes))

    def mask(self, num_tokens: int, num_queries: int | None = None) -> Bool[Tensor, "t k"]:
        """Return which of `num_tokens` keys the last `num_queries` tokens see; all tokens by default."""
        whole = grid_mask(self.grid, num_tokens)
        return whole if num_queries is None else whole[num_tokens - num_queries :]


def layer_grids(config: GridConfig) -> list[LayerGrid]:
    """Return the grid of each layer."""
    return [LayerGrid.of(config, layer) for layer in range(len(config.masks))]


@lru_cache(maxsize=16)
def grid_mask(grid: GridConfig, num_tokens: int) -> Bool[Tensor, "t t"]:
    """Return which keys each of the first tokens of a sequence sees, on the CPU.

    Args:
        grid: with one mask.
        num_tokens: tokens of the sequence.
    """
    places = torch.arange(num_tokens, dtype=torch.int16)  # one number for each pair of tokens
    query, key = places[:, None], places
    is_cell = (places >= grid.first_place) & (places < grid.stop_place)
    cells = places - grid.first_place
    rows, columns = cells // grid.num_columns, cells % grid.num_columns
    (kind,), (kernel_size,) = grid.masks, grid.kernel_sizes
    if kind == "row":
        seen = query - key <= grid.num_columns
    elif kind == "column":
        seen = columns[:, None] == columns
    else:
        across = _distance(columns, grid.num_columns, grid.wraps)
        along = _distance(rows, grid.num_rows, grid.wraps)
        seen = (across <= kernel_size // 2) & (along <= kernel_size // 2)
    both = is_cell[:, None] & is_cell
    return (key <= query) & (seen | ~both)


def mean_keys(config: GridConfig, num_tokens: int, first: int = 0) -> float:
    """Return how many keys a token sees, on average over layers and the places from `first` on."""
    seen = [int(layer.mask(num_tokens)[first:].sum()) for layer in layer_grids(config)]
    return sum(seen) / (len(seen) * (num_tokens - first))


def gathered_keys(config: GridConfig, num_tokens: int) -> float:
    """Return how many keys `grid_attention` gathers for a sequence, on average over layers."""
    cpu = torch.device("cpu")
    all_groups = [_groups(layer.grid, num_tokens, cpu, torch.float32)[0] for layer in layer_grids(config)]
    return sum(group.keys.numel() for groups in all_groups for group in groups) / len(all_groups)


def _distance(coordinates: Int16[Tensor, "t"], size: int, wraps: bool) -> Int16[Tensor, "t t"]:
    """Return the distance between any two rows or columns."""
    distance = (coordinates[:, None] - coordinates).abs()
    return torch.minimum(distance, size - distance) if wraps else distance


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
