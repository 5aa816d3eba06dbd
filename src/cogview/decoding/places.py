"""Where a pass stores keys and values, and what each new token sees: all before it, or three regions.

Each row of the pool has entries, `PAGE` of them to a page. With dense attention a token's entry is its place. With
three regions a row has entries for the slots of text and pivots, a spare one, and a ring for the last window:

- Text is stored in its slots alone. A pivot's slot is filled when its token is run, and seen once it lies before the
  window.
- A code takes the ring's entry of one that no window reaches any more. The ring has room for a pass's new tokens beside
  the longest window, so that codes that are cut back, since their guess was wrong, have overwritten nothing that is
  seen.

The pivots are those of the evaluating transformer: functions of the layer and a code's place.

Letters of the shapes: n new tokens, r rows, k entries, l layers or 1 where all are alike, s slots, m blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cogview.decoding.pool import PAGE, Row, num_ring_entries
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.three_region import draw_regions, window_start


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Entries that new tokens are stored in.

    Args:
        tokens: which of the new ones; None for all.
        pages: of each entry.
        offsets: in its page.
    """

    tokens: Tensor | None
    pages: Tensor
    offsets: Tensor

    def put(self, keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
        """Put the new tokens' keys and values, [n h e], into a layer's of the pool."""
        some = slice(None) if self.tokens is None else self.tokens
        keys[self.pages, :, :, self.offsets] = key[some]
        values[self.pages, :, self.offsets] = value[some]


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """What a pass stores and what its tokens see.

    Args:
        row_of: each new token's row.
        pages: of each row; those of shorter rows are filled up with their first.
        num_seen: pages that each new token sees, from its row's first.
        last_entry: with dense attention, the last entry that each new token sees; None with three regions.
        stored: for each layer, or one for all, where keys and values go.
        biases: with three regions, what is added to each layer's scores.
    """

    row_of: Int64[np.ndarray, "n"]
    pages: Int64[np.ndarray, "r j"]
    num_seen: Int64[np.ndarray, "n"]
    last_entry: Int64[np.ndarray, "n"] | None
    stored: Sequence[Sequence[Stored]]
    biases: Float[Tensor, "l n k"] | None = None

    def store(self, layer: int, keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
        """Put the new tokens' keys and values, [n h e], into a layer's of the pool."""
        for stored in self.stored[layer % len(self.stored)]:
            stored.put(keys, values, key, value)


def find_places(
    config: TransformerConfig, rows: Sequence[Row], nums_new: Sequence[int], device: torch.device
) -> Places:
    """Return what a pass stores and what its tokens see.

    Args:
        config: of the transformer.
        rows: of the pool, with pages enough.
        nums_new: tokens of each row, which stand in this order behind those that the rows hold.
        device: of the pool.
    """
    lengths, nums = np.array([row.length for row in rows]), np.array(nums_new)
    row_of = np.repeat(np.arange(len(rows)), nums)
    place = np.arange(len(row_of)) - np.repeat(np.cumsum(nums) - nums - lengths, nums)
    most = max(len(row.pages) for row in rows)
    pages = np.array([row.pages + row.pages[:1] * (most - len(row.pages)) for row in rows])
    if config.attention_pattern == "dense":
        return Places(
            row_of=row_of,
            pages=pages,
            num_seen=place // PAGE + 1,
            last_entry=place,
            stored=[[_stored(pages, row_of, place, None, device)]],
        )
    return _three_regions(config, rows, row_of, place, pages, (lengths + nums - 1)[row_of], device)


def _stored(
    pages: np.ndarray,
    row_of: np.ndarray,
    entries: np.ndarray,
    tokens: np.ndarray | None,
    device: torch.device,
) -> Stored:
    own = pages[row_of, entries // PAGE]
    return Stored(
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
) -> Places:
    """Find the places of three regions.

    Args:
        config: of the transformer.
        rows: of the pool.
        row_of: each new token's row.
        place: of each in its row.
        pages: of each row.
        last: the last place of each token's row once the pass is done.
        device: of the pool.
    """
    regions = config.three_region
    num_slots, num_ring = regions.num_text_and_pivot_tokens, num_ring_entries(regions)
    texts = np.array([row.num_text for row in rows])[row_of]
    is_text = place < texts
    drawn = [_drawn_regions(row.num_text, row.max_tokens, config.num_layers, regions) for row in rows]
    slots, block = np.arange(num_slots), place // regions.block_tokens
    first = window_start(torch.from_numpy(block), regions).numpy()
    ring = np.arange(num_ring)
    held = last[:, None] - (last[:, None] - ring) % num_ring
    sees_ring = (held >= np.maximum(first, texts)[:, None]) & (held <= place[:, None]) & ~is_text[:, None]
    entries = pages.shape[1] * PAGE
    biases = np.full((config.num_layers, len(place), entries), -np.inf, dtype=np.float32)
    biases[:, :, num_slots + 1 : num_slots + 1 + num_ring][:, sees_ring] = 0.0
    sees_text = (slots < texts[:, None]) & ((slots <= place[:, None]) | ~is_text[:, None])
    ring_entries = num_slots + 1 + place % num_ring
    stored = []
    for layer in range(config.num_layers):
        visible = np.array([drawn[row].visible[layer, at] for row, at in zip(row_of, block, strict=True)])
        weight = np.array([drawn[row].weights[layer, at] for row, at in zip(row_of, block, strict=True)])
        sees_pivot = (slots < visible[:, None]) & (slots >= texts[:, None]) & ~is_text[:, None]
        of_slots = np.where(sees_pivot, weight[:, None], -np.inf)
        of_slots[sees_text] = 0.0
        biases[layer, :, :num_slots] = of_slots
        is_slot = np.array([drawn[row].places[layer] for row in row_of]) == place[:, None]
        in_slot = np.flatnonzero(is_slot.any(axis=1))
        in_ring = np.flatnonzero(~is_text)
        stored.append(
            [
                _stored(pages, row_of[some], of[some], some, device)
                for some, of in ((in_slot, is_slot.argmax(axis=1)), (in_ring, ring_entries))
                if len(some)
            ]
        )
    return Places(
        row_of=row_of,
        pages=pages,
        num_seen=np.full(len(place), entries // PAGE),
        last_entry=None,
        stored=stored,
        biases=torch.from_numpy(biases).to(device),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """A text's regions: slots' places, how many are seen from a block, and what is added to their pivots' scores."""

    places: Int64[np.ndarray, "l s"]
    visible: Int64[np.ndarray, "l m"]
    weights: Float[np.ndarray, "l m"]


@lru_cache(maxsize=64)
def _drawn_regions(num_text: int, max_tokens: int, num_layers: int, regions: ThreeRegionConfig) -> _Drawn:
    texts = torch.tensor([num_text])
    drawn = draw_regions(texts, torch.zeros_like(texts), max_tokens, num_layers, regions)
    return _Drawn(
        places=np.stack([layer.places[0].numpy() for layer in drawn]),
        visible=np.stack([layer.num_visible[0].numpy() for layer in drawn]),
        weights=np.stack([layer.log_weight[0].numpy() for layer in drawn]),
    )
