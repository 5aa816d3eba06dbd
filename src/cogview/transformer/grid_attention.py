"""Attention within the picture's grid of codes: each layer has a mask by row, by column or by a square of cells.

The text is seen by all tokens after it, and tokens after the picture see everything before them. A code sees, of the
codes up to its own,

- with a mask by `row`, the last `num_columns` and itself;
- with a mask by `column`, those of its column;
- with a mask by `convolution`, those at most `kernel_size // 2` rows and columns away.

This module has the definition; `grid_attention_kernels` computes whole sequences.

Letters: t tokens, k keys.

Beyond the paper: the masks are those of ruDALL-E and RuDOLPH.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Int16
from torch import Tensor

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


@lru_cache(maxsize=16)
def layer_grids(config: GridConfig) -> tuple[LayerGrid, ...]:
    """Return the grid of each layer."""
    return tuple(LayerGrid.of(config, layer) for layer in range(len(config.masks)))


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


def _distance(coordinates: Int16[Tensor, "t"], size: int, wraps: bool) -> Int16[Tensor, "t t"]:
    """Return the distance between any two rows or columns."""
    distance = (coordinates[:, None] - coordinates).abs()
    return torch.minimum(distance, size - distance) if wraps else distance
