"""Layout of a pass in the key/value pool: where new tokens are stored, and what each sees.

Each row of the pool has entries, `PAGE` to a page. With dense attention a token's entry is its place. With three
regions a row has entries for text and pivot slots, a spare one, and a ring for the last window:

- Text is stored in its slots alone. A pivot's slot is filled when its token runs, and seen once it lies before the
  window.
- A code overwrites a ring entry that no window reaches any more. The ring has room for a pass's new tokens beside the
  longest window, so rejected guesses have overwritten nothing that is seen.

The pivots are those of the evaluating transformer: functions of layer and place.

With a grid, a layer with a mask by column has the entries of codes column by column, so that what a token sees lies
side by side. Of the entries, a token then reads only the units of `UNIT` that hold some that it sees.

Letters of the shapes: n new tokens, r rows, k entries, l layers or 1 where all are alike, s slots, m blocks, u units, w
entries of u units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cogview.decoding.pool import PAGE, Row, num_ring_entries
from cogview.transformer.config import GridConfig, ThreeRegionConfig, TransformerConfig
from cogview.transformer.grid_attention import grid_mask, layer_grids
from cogview.transformer.three_region import draw_regions, window_start

UNIT = 32
"""Entries that are read together, with a grid."""


Attend = Callable[[int, Tensor], Tensor]
"""Takes a layer's number and the new tokens' Q, K and V, [n 3d]; stores K and V, and returns the attention's output,
[n d].

Q comes divided by sqrt(head_size).
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotMapping:
    """Pool entries of new tokens.

    Args:
        tokens: indices of the new tokens; None for all.
        pages: of each entry.
        offsets: of each entry in its page.
    """

    tokens: Tensor | None
    pages: Tensor
    offsets: Tensor

    def write(self, keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys and values, [n h e], in one layer of the pool."""
        indices = slice(None) if self.tokens is None else self.tokens
        keys[self.pages, :, :, self.offsets] = key[indices]
        values[self.pages, :, self.offsets] = value[indices]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenUnits:
    """Units of entries that hold what a token sees, in layers with the same mask.

    Args:
        units: of each token, ascending; the last is repeated.
        num_units: of each token.
        is_seen: entries of these units that the token sees.
    """

    units: Int64[np.ndarray, "n u"]
    num_units: Int64[np.ndarray, "n"]
    is_seen: Bool[np.ndarray, "n w"]

    def of(self, places: Int64[np.ndarray, "_"]) -> "SeenUnits":
        """Return those of some tokens."""
        return SeenUnits(
            units=self.units[places], num_units=self.num_units[places], is_seen=self.is_seen[places]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionLayout:
    """What a pass stores, and what its tokens see.

    Args:
        row_of: row of each new token.
        pages: of each row; shorter rows repeat their first.
        num_seen: pages that each new token sees, from its row's first.
        last_entry: last entry that each new token sees, with dense attention; None with sparse attention.
        slot_mappings: entries of the new tokens, for each layer or once for all.
        biases: added to each layer's scores, with sparse attention.
        seen_units: what the tokens read in each layer instead, with a grid.
    """

    row_of: Int64[np.ndarray, "n"]
    pages: Int64[np.ndarray, "r j"]
    num_seen: Int64[np.ndarray, "n"]
    last_entry: Int64[np.ndarray, "n"] | None
    slot_mappings: Sequence[Sequence[SlotMapping]]
    biases: Float[Tensor, "l n k"] | None = None
    seen_units: Sequence[SeenUnits] = ()

    def store(self, layer: int, keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys and values, [n h e], in one layer of the pool."""
        for mapping in self.slot_mappings[layer % len(self.slot_mappings)]:
            mapping.write(keys, values, key, value)


def plan_layout(
    config: TransformerConfig,
    rows: Sequence[Row],
    nums_new: Sequence[int],
    device: torch.device,
    *,
    reads_units: bool = False,
) -> AttentionLayout:
    """Return the layout of a pass.

    Args:
        config: of the transformer.
        rows: of the pool, with enough pages.
        nums_new: new tokens of each row.
        device: of the pool.
        reads_units: with a grid, whether attention reads units of entries instead of adding biases to all.
    """
    lengths, nums = np.array([row.length for row in rows]), np.array(nums_new)
    row_of = np.repeat(np.arange(len(rows)), nums)
    place = np.arange(len(row_of)) - np.repeat(np.cumsum(nums) - nums - lengths, nums)
    num_pages = max(len(row.pages) for row in rows)
    pages = np.array([row.pages + row.pages[:1] * (num_pages - len(row.pages)) for row in rows])
    if config.attention_pattern == "dense":
        return AttentionLayout(
            row_of=row_of,
            pages=pages,
            num_seen=place // PAGE + 1,
            last_entry=place,
            slot_mappings=[[_slot_mapping(pages, row_of, place, None, device)]],
        )
    if config.attention_pattern == "grid":
        return _grid(config.grid, row_of, place, pages, device, reads_units)
    return _three_regions(config, rows, row_of, place, pages, (lengths + nums - 1)[row_of], device)


def _slot_mapping(
    pages: np.ndarray,
    row_of: np.ndarray,
    entries: np.ndarray,
    tokens: np.ndarray | None,
    device: torch.device,
) -> SlotMapping:
    own = pages[row_of, entries // PAGE]
    return SlotMapping(
        tokens=None if tokens is None else torch.from_numpy(tokens).to(device),
        pages=torch.from_numpy(own).to(device),
        offsets=torch.from_numpy(entries % PAGE).to(device),
    )


def _three_regions(
    config: TransformerConfig,
    rows: Sequence[Row],
    row_of: Int64[np.ndarray, "n"],
    place: Int64[np.ndarray, "n"],
    pages: Int64[np.ndarray, "r j"],
    last: Int64[np.ndarray, "n"],
    device: torch.device,
) -> AttentionLayout:
    """Return the layout of a pass with three-region attention.

    Args:
        config: of the transformer.
        rows: of the pool.
        row_of: row of each new token.
        place: index of each token in its row.
        pages: of each row.
        last: last index of each token's row after the pass.
        device: of the pool.
    """
    regions = config.three_region
    num_slots, num_ring = regions.num_text_and_pivot_tokens, num_ring_entries(regions)
    texts = np.array([row.num_text for row in rows])[row_of]
    is_text = place < texts
    row_regions = [_regions_of(row.num_text, row.max_tokens, config.num_layers, regions) for row in rows]
    slots, block = np.arange(num_slots), place // regions.block_tokens
    first = window_start(torch.from_numpy(block), regions).numpy()
    ring = np.arange(num_ring)
    ring_place = last[:, None] - (last[:, None] - ring) % num_ring
    sees_ring = (
        (ring_place >= np.maximum(first, texts)[:, None]) & (ring_place <= place[:, None]) & ~is_text[:, None]
    )
    entries = pages.shape[1] * PAGE
    biases = np.full((config.num_layers, len(place), entries), -np.inf, dtype=np.float32)
    biases[:, :, num_slots + 1 : num_slots + 1 + num_ring][:, sees_ring] = 0.0
    sees_text = (slots < texts[:, None]) & ((slots <= place[:, None]) | ~is_text[:, None])
    ring_entries = num_slots + 1 + place % num_ring
    slot_mappings = []
    for layer in range(config.num_layers):
        visible = np.array(
            [row_regions[row].visible[layer, at] for row, at in zip(row_of, block, strict=True)]
        )
        weight = np.array(
            [row_regions[row].weights[layer, at] for row, at in zip(row_of, block, strict=True)]
        )
        sees_pivot = (slots < visible[:, None]) & (slots >= texts[:, None]) & ~is_text[:, None]
        of_slots = np.where(sees_pivot, weight[:, None], -np.inf)
        of_slots[sees_text] = 0.0
        biases[layer, :, :num_slots] = of_slots
        is_slot = np.array([row_regions[row].places[layer] for row in row_of]) == place[:, None]
        in_slot = np.flatnonzero(is_slot.any(axis=1))
        in_ring = np.flatnonzero(~is_text)
        slot_mappings.append(
            [
                _slot_mapping(pages, row_of[some], of[some], some, device)
                for some, of in ((in_slot, is_slot.argmax(axis=1)), (in_ring, ring_entries))
                if len(some)
            ]
        )
    return AttentionLayout(
        row_of=row_of,
        pages=pages,
        num_seen=np.full(len(place), entries // PAGE),
        last_entry=None,
        slot_mappings=slot_mappings,
        biases=torch.from_numpy(biases).to(device),
    )


def _grid(
    grid: GridConfig,
    row_of: Int64[np.ndarray, "n"],
    place: Int64[np.ndarray, "n"],
    pages: Int64[np.ndarray, "r j"],
    device: torch.device,
    reads_units: bool,
) -> AttentionLayout:
    """Return the layout of a pass with a mask for each layer.

    Args:
        grid: of the transformer.
        row_of: row of each new token.
        place: index of each token in its row.
        pages: of each row.
        device: of the pool.
        reads_units: whether attention reads units instead of adding biases.
    """
    num_entries = pages.shape[1] * PAGE
    kinds, kind_of = _kinds(grid)
    slot_mappings = [
        [_slot_mapping(pages, row_of, _entries(kind, num_entries)[place], None, device)] for kind in kinds
    ]
    biases, units = None, []
    if reads_units:
        units = [_seen_units(kind, num_entries).of(place) for kind in kinds]
    else:
        seen = np.stack([_seen_entries(kind, num_entries)[place] for kind in kinds])[kind_of]
        biases = torch.from_numpy(np.where(seen, 0.0, -np.inf).astype(np.float32)).to(device)
    return AttentionLayout(
        row_of=row_of,
        pages=pages,
        num_seen=np.full(len(place), pages.shape[1]),
        last_entry=None,
        slot_mappings=[slot_mappings[kind] for kind in kind_of],
        biases=biases,
        seen_units=[units[kind] for kind in kind_of] if units else (),
    )


@lru_cache(maxsize=16)
def _kinds(grid: GridConfig) -> tuple[list[GridConfig], list[int]]:
    """Return the grids of layers with different masks, and which of them each layer has."""
    layers = [each.grid for each in layer_grids(grid)]
    kinds = list(dict.fromkeys(layers))
    return kinds, [kinds.index(layer) for layer in layers]


@lru_cache(maxsize=16)
def _entries(grid: GridConfig, num_entries: int) -> Int64[np.ndarray, "k"]:
    """Return the entry of each place, in layers with one mask."""
    entries = np.arange(num_entries)
    if grid.masks == ("column",):
        cells = np.arange(grid.num_cells).reshape(grid.num_rows, grid.num_columns)
        entries[grid.first_place + cells.T.ravel()] = grid.first_place + np.arange(grid.num_cells)
    return entries


@lru_cache(maxsize=16)
def _seen_entries(grid: GridConfig, num_entries: int) -> Bool[np.ndarray, "k k"]:
    """Return which entries the token at each place sees, in layers with one mask."""
    seen = np.zeros((num_entries, num_entries), dtype=np.bool_)
    seen[:, _entries(grid, num_entries)] = grid_mask(grid, num_entries).numpy()
    return seen


@lru_cache(maxsize=16)
def _seen_units(grid: GridConfig, num_entries: int) -> SeenUnits:
    """Return the units that the token at each place reads, in layers with one mask."""
    seen = _seen_entries(grid, num_entries).reshape(num_entries, -1, UNIT)
    is_read = seen.any(axis=2)
    num_units = is_read.sum(axis=1)
    most = int(num_units.max())
    units = np.argsort(~is_read, axis=1, kind="stable")[:, :most]
    units = np.take_along_axis(units, np.minimum(np.arange(most), num_units[:, None] - 1), axis=1)
    is_seen = np.take_along_axis(seen, units[:, :, None], axis=1).reshape(num_entries, -1)
    return SeenUnits(units=units, num_units=num_units, is_seen=is_seen)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Regions:
    """Regions of a text: places of slots, number of slots seen from a block, and weights of their pivots."""

    places: Int64[np.ndarray, "l s"]
    visible: Int64[np.ndarray, "l m"]
    weights: Float[np.ndarray, "l m"]


@lru_cache(maxsize=64)
def _regions_of(num_text: int, max_tokens: int, num_layers: int, regions: ThreeRegionConfig) -> _Regions:
    texts = torch.tensor([num_text])
    layers = draw_regions(texts, torch.zeros_like(texts), max_tokens, num_layers, regions)
    return _Regions(
        places=np.stack([layer.places[0].numpy() for layer in layers]),
        visible=np.stack([layer.num_visible[0].numpy() for layer in layers]),
        weights=np.stack([layer.log_weight[0].numpy() for layer in layers]),
    )
