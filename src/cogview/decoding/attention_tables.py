"""Attention on CPU, as two weighted sums of table rows (`embedding_bag`).

A head's values are rows of `e` channels, weighted by the softmax. Its keys are stored transposed, page by page: a page
has a row for each channel, weighted by the query. On x86 CPUs this operator reads memory at about twice the speed of
batched products with few rows. The bits of a sum do not depend on the batch, and rows may lie anywhere, as pages do.

Letters of the shapes: n new tokens, g of them that read equally many units, u units, h heads, e channels, k entries. A
unit is a page, or with a grid a part of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from cogview.decoding.attention_layout import UNIT, Attend, AttentionLayout, SeenUnits
from cogview.decoding.pool import PAGE, PagePool

_MAX_SCORES = 1 << 22
"""Scores computed at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """New tokens that read equally many units.

    Args:
        tokens: indices of the new tokens; None for all.
        num: number of tokens.
        unit: entries of a unit.
        num_units: units that each reads.
        key_rows: rows of the key table: for each token, head and unit one per channel.
        key_starts: start of each sum of keys.
        num_entries: entries whose values are summed; no token of the group sees later ones.
        value_rows: rows of the value table: for each token and head one per entry.
        value_starts: start of each sum of values.
        is_unseen: entries of the last unit that a token does not see, [g 1 p].
        biases: added to the scores of each layer instead, [l g 1 k], or [1 g 1 k] for all alike.
    """

    tokens: Tensor | None
    num: int
    unit: int
    num_units: int
    key_rows: Tensor
    key_starts: Tensor
    num_entries: int
    value_rows: Tensor
    value_starts: Tensor
    is_unseen: Tensor | None
    biases: Tensor | None


def attend_to_tables(pool: PagePool, layout: AttentionLayout) -> Attend:
    """Return the attention of a pass: it stores the new tokens in the pool and attends.

    Args:
        pool: on the CPU.
        layout: of the pass.
    """
    config = pool.config
    num_heads, channels, num = config.num_heads, config.head_size, len(layout.row_of)
    groups_of: list[list[_Group]] = []
    if layout.seen_units:
        of_kind = {id(seen): _grid_groups(layout, seen, num_heads, channels) for seen in layout.seen_units}
        groups_of = [of_kind[id(seen)] for seen in layout.seen_units]
    else:
        groups_of = [_page_groups(layout, num_heads, channels)]
    key_tables, value_tables = (each.flatten(1, 3).unbind(0) for each in (pool.keys, pool.values))
    keys, values = pool.keys.unbind(0), pool.values.unbind(0)
    dtype = pool.keys.dtype

    def attend(layer: int, query_key_value: Tensor) -> Tensor:
        query, key, value = query_key_value.to(dtype).view(num, 3, num_heads, channels).unbind(1)
        layout.store(layer, keys[layer], values[layer], key, value)
        groups = groups_of[layer % len(groups_of)]
        parts = [_attended(group, layer, key_tables[layer], value_tables[layer], query) for group in groups]
        if len(parts) == 1:
            return parts[0]
        attended = parts[0].new_empty(num, num_heads * channels)
        for group, part in zip(groups, parts, strict=True):
            attended[group.tokens] = part
        return attended

    return attend


def _page_groups(layout: AttentionLayout, num_heads: int, channels: int) -> list[_Group]:
    """Group the new tokens by the number of pages that they see."""
    groups = []
    for tokens, num_pages in _members(layout.num_seen, num_heads, PAGE):
        last_entries, biases, is_unseen = layout.last_entry, layout.biases, None
        num_entries = num_pages * PAGE
        if last_entries is not None:
            num_entries = int(last_entries[tokens].max()) + 1
            last = torch.from_numpy(last_entries[tokens] % PAGE)
            is_unseen = (torch.arange(PAGE) > last[:, None])[:, None]
        pages = layout.pages[layout.row_of[tokens], :num_pages]
        groups.append(
            _group(
                tokens=None if len(tokens) == len(layout.row_of) else torch.from_numpy(tokens),
                units=pages,
                unit=PAGE,
                heads=(num_heads, channels),
                num_entries=num_entries,
                is_unseen=is_unseen,
                biases=None if biases is None else biases[:, tokens, None],
            )
        )
    return groups


def _grid_groups(layout: AttentionLayout, seen: SeenUnits, num_heads: int, channels: int) -> list[_Group]:
    """Group the new tokens by the number of units that they read in layers with one mask."""
    groups = []
    for tokens, num_units in _members(seen.num_units, num_heads, UNIT):
        num_entries = num_units * UNIT
        units, is_seen = seen.units[tokens, :num_units], seen.is_seen[tokens, :num_entries]
        in_page, pages = (
            units % (PAGE // UNIT),
            layout.pages[layout.row_of[tokens][:, None], units // (PAGE // UNIT)],
        )
        biases = torch.zeros(1, len(tokens), 1, num_entries)
        groups.append(
            _group(
                tokens=None if len(tokens) == len(layout.row_of) else torch.from_numpy(tokens),
                units=pages * (PAGE // UNIT) + in_page,
                unit=UNIT,
                heads=(num_heads, channels),
                num_entries=num_entries,
                is_unseen=None,
                biases=biases.masked_fill_(torch.from_numpy(~is_seen)[None, :, None], -torch.inf),
            )
        )
    return groups


def _members(
    nums: Int64[np.ndarray, "n"], num_heads: int, unit: int
) -> Iterator[tuple[Int64[np.ndarray, "_"], int]]:
    """Yield the tokens that read equally many units, few enough to compute at a time, and that number."""
    for num in np.unique(nums).tolist():
        members = np.flatnonzero(nums == num)
        at_once = max(1, _MAX_SCORES // (num_heads * num * unit))
        for first in range(0, len(members), at_once):
            yield members[first : first + at_once], num


def _group(
    *,
    tokens: Tensor | None,
    units: Int64[np.ndarray, "g u"],
    unit: int,
    heads: tuple[int, int],
    num_entries: int,
    is_unseen: Tensor | None,
    biases: Tensor | None,
) -> _Group:
    """Return a group.

    Args:
        tokens: indices of the new tokens; None for all.
        units: of each token, numbered over the whole pool.
        unit: entries of a unit.
        heads: number of heads, and their channels.
        num_entries: entries whose values are summed.
        is_unseen: entries of the last unit that a token does not see.
        biases: added to the scores instead.
    """
    num_heads, channels = heads
    in_page = PAGE // unit
    pages, parts = (torch.from_numpy(each.astype(np.int32)) for each in np.divmod(units, in_page))
    of_heads = pages[:, None] * num_heads + torch.arange(num_heads, dtype=torch.int32)[:, None]  # [g h u]
    of_channels = of_heads[..., None] * channels + torch.arange(channels, dtype=torch.int32)
    key_rows = of_channels * in_page + parts[:, None, :, None]
    first_entries = of_heads * PAGE + parts[:, None] * unit
    value_rows = first_entries[..., None] + torch.arange(unit, dtype=torch.int32)
    return _Group(
        tokens=tokens,
        num=len(units),
        unit=unit,
        num_units=units.shape[1],
        key_rows=key_rows.flatten(),
        key_starts=torch.arange(0, key_rows.numel(), channels, dtype=torch.int32),
        num_entries=num_entries,
        value_rows=value_rows.flatten(2)[..., :num_entries].flatten(),
        value_starts=torch.arange(0, len(units) * num_heads * num_entries, num_entries, dtype=torch.int32),
        is_unseen=is_unseen,
        biases=biases,
    )


def _attended(
    group: _Group, layer: int, key_table: Tensor, value_table: Tensor, query: Tensor
) -> Float[Tensor, "g c"]:
    if group.tokens is not None:
        query = query[group.tokens]
    num_heads = query.shape[1]
    # Every unit of a head meets the same query.
    weights = query[:, :, None].expand(-1, -1, group.num_units, -1).reshape(-1)
    scores = _sums_of_rows(key_table.view(-1, group.unit), group.key_rows, group.key_starts, weights)
    if scores.dtype == torch.float16:
        largest = torch.finfo(torch.float16).max
        scores.clamp_(-largest, largest)  # the softmax of infinities is not a number
    scores = scores.view(group.num, num_heads, -1)
    if group.biases is not None:
        scores += group.biases[layer % len(group.biases)]
    if group.is_unseen is not None:
        scores[..., -group.unit :].masked_fill_(group.is_unseen, -torch.inf)
    weights = torch.softmax(scores, dim=-1)[..., : group.num_entries].reshape(-1)
    return _sums_of_rows(value_table, group.value_rows, group.value_starts, weights).view(group.num, -1)


def _sums_of_rows(
    table: Float[Tensor, "m c"],
    rows: Int32[Tensor, "i"],
    starts: Int32[Tensor, "s"],
    weights: Float[Tensor, "i"],
) -> Float[Tensor, "s c"]:
    """Return weighted sums of table rows; sum `s` has the rows `rows[starts[s] : starts[s + 1]]`."""
    # Mode 0 sums.
    sums, *_ = torch.embedding_bag(table, rows, starts, mode=0, per_sample_weights=weights)
    return sums
