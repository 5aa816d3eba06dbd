"""Attention on CPU, as two weighted sums of table rows (`embedding_bag`).

A head's values are rows of `e` channels, weighted by the softmax. Its keys are stored transposed, page by page: a page
has a row for each channel, weighted by the query. On x86 CPUs this operator reads memory at about twice the speed of
batched products with few rows. The bits of a sum do not depend on the batch, and rows may lie anywhere, as pages do.

Letters of the shapes: n new tokens, g of them that see equally many pages, j pages, h heads, e channels, k entries.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from cogview.decoding.attention_layout import AttentionLayout
from cogview.decoding.forward import Attend
from cogview.decoding.pool import PAGE, PagePool

_MAX_SCORES = 1 << 22
"""Scores computed at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """New tokens that see equally many pages.

    Args:
        tokens: indices of the new tokens; None for all.
        num: number of tokens.
        num_pages: pages that each sees.
        key_rows: rows of the key table: for each token, head and page one per channel.
        key_starts: start of each sum of keys.
        num_entries: entries whose values are summed; no token of the group sees later ones.
        value_rows: rows of the value table: for each token and head one per entry.
        value_starts: start of each sum of values.
        is_unseen: entries of the last page that a token does not see, [g 1 p].
        biases: added to the scores of each layer instead, [l g 1 k].
    """

    tokens: Tensor | None
    num: int
    num_pages: int
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
    groups = []
    for num_pages in np.unique(layout.num_seen).tolist():
        members = np.flatnonzero(layout.num_seen == num_pages)
        at_once = max(1, _MAX_SCORES // (num_heads * num_pages * PAGE))
        groups += [
            _group(members[first : first + at_once], num_pages, layout, num_heads, channels)
            for first in range(0, len(members), at_once)
        ]
    key_tables, value_tables = (each.flatten(1, 3).unbind(0) for each in (pool.keys, pool.values))
    keys, values = pool.keys.unbind(0), pool.values.unbind(0)
    dtype = pool.keys.dtype

    def attend(layer: int, query_key_value: Tensor) -> Tensor:
        query, key, value = query_key_value.to(dtype).view(num, 3, num_heads, channels).unbind(1)
        layout.store(layer, keys[layer], values[layer], key, value)
        parts = [_attended(group, layer, key_tables[layer], value_tables[layer], query) for group in groups]
        if len(parts) == 1:
            return parts[0]
        attended = parts[0].new_empty(num, num_heads * channels)
        for group, part in zip(groups, parts, strict=True):
            attended[group.tokens] = part
        return attended

    return attend


def _group(
    tokens: Int64[np.ndarray, "g"], num_pages: int, layout: AttentionLayout, num_heads: int, channels: int
) -> _Group:
    pages = torch.from_numpy(layout.pages[layout.row_of[tokens], :num_pages].astype(np.int32))
    of_heads = pages[:, None] * num_heads + torch.arange(num_heads, dtype=torch.int32)[:, None]  # [g h j]
    key_rows = of_heads[..., None] * channels + torch.arange(channels, dtype=torch.int32)
    value_rows = of_heads[..., None] * PAGE + torch.arange(PAGE, dtype=torch.int32)
    num_entries = num_pages * PAGE
    is_unseen = biases = None
    if layout.last_entry is not None:
        num_entries = int(layout.last_entry[tokens].max()) + 1
        last = torch.from_numpy(layout.last_entry[tokens] % PAGE)
        is_unseen = (torch.arange(PAGE) > last[:, None])[:, None]
    if layout.biases is not None:
        biases = layout.biases[:, tokens, None]
    return _Group(
        tokens=None if len(tokens) == len(layout.row_of) else torch.from_numpy(tokens),
        num=len(tokens),
        num_pages=num_pages,
        key_rows=key_rows.flatten(),
        key_starts=torch.arange(0, key_rows.numel(), channels, dtype=torch.int32),
        num_entries=num_entries,
        value_rows=value_rows.flatten(2)[..., :num_entries].flatten(),
        value_starts=torch.arange(0, len(tokens) * num_heads * num_entries, num_entries, dtype=torch.int32),
        is_unseen=is_unseen,
        biases=biases,
    )


def _attended(
    group: _Group, layer: int, key_table: Tensor, value_table: Tensor, query: Tensor
) -> Float[Tensor, "g c"]:
    if group.tokens is not None:
        query = query[group.tokens]
    num_heads = query.shape[1]
    # Every page of a head meets the same query.
    weights = query[:, :, None].expand(-1, -1, group.num_pages, -1).reshape(-1)
    scores = _sums_of_rows(key_table, group.key_rows, group.key_starts, weights)
    if scores.dtype == torch.float16:
        largest = torch.finfo(torch.float16).max
        scores.clamp_(-largest, largest)  # the softmax of infinities is not a number
    scores = scores.view(group.num, num_heads, -1)
    if group.biases is not None:
        scores += group.biases[layer]
    if group.is_unseen is not None:
        scores[..., -PAGE:].masked_fill_(group.is_unseen, -torch.inf)
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
