"""Attention by PyTorch's fused kernel, on devices other than the CPU.

The pages of each row are gathered side by side, and a mask hides the rest.

Letters of the shapes: r rows, t new tokens of the row that has most, h heads, j pages of a row, n of the pool, p
entries of a page, k of a row's pages, e channels, d width.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.decoding.attention_layout import Attend, AttentionLayout
from cogview.decoding.pool import PAGE, PagePool


def attend_by_fused_kernel(pool: PagePool, layout: AttentionLayout) -> Attend:
    """Return the attention of a pass: it stores the new tokens in the pool and attends.

    Args:
        pool: on any device.
        layout: of the pass.
    """
    config, device, dtype = pool.config, pool.keys.device, pool.keys.dtype
    num_heads, channels, num = config.num_heads, config.head_size, len(layout.row_of)
    num_rows = len(layout.pages)
    counts = np.bincount(layout.row_of, minlength=num_rows)
    column = np.arange(num) - np.repeat(np.cumsum(counts) - counts, counts)
    most_new, most_pages = int(counts.max()), int(layout.num_seen.max())
    pages = torch.from_numpy(layout.pages[:, :most_pages]).to(device)
    width = most_pages * PAGE
    at = torch.from_numpy(layout.row_of * most_new + column).to(device)
    # What fills rows up sees one entry, so that its softmax is a number.
    biases = torch.full((num_rows * most_new, width), -torch.inf, device=device)
    biases[:, 0] = 0
    if layout.last_entry is not None:
        last = torch.from_numpy(layout.last_entry).to(device)
        seen = torch.where(torch.arange(width, device=device) <= last[:, None], 0.0, -torch.inf)[None]
    else:
        assert layout.biases is not None, "three regions have biases"
        seen = layout.biases[:, :, :width]
    of_layers = [
        biases.index_copy(0, at, each).view(num_rows, 1, most_new, width).to(dtype) for each in seen.unbind(0)
    ]

    def attend(layer: int, query_key_value: Tensor) -> Tensor:
        heads = query_key_value.to(dtype).view(num, 3, num_heads, channels)
        query, key, value = heads.unbind(1)
        layout.store(layer, pool.keys[layer], pool.values[layer], key, value)
        queries = query.new_zeros(num_rows * most_new, num_heads, channels).index_copy(0, at, query)
        queries = queries.view(num_rows, most_new, num_heads, channels).transpose(1, 2)
        attended = attend_to_pages(
            queries, pool.keys[layer], pool.values[layer], pages, of_layers[layer % len(of_layers)]
        )
        return attended.flatten(0, 1)[at]

    return attend


def attend_to_pages(
    queries: Float[Tensor, "r h t e"],
    keys: Float[Tensor, "n h e p"],
    values: Float[Tensor, "n h p e"],
    pages: Int64[Tensor, "r j"],
    biases: Float[Tensor, "r 1 t k"],
) -> Float[Tensor, "r t d"]:
    """Attend to the entries of pages.

    Args:
        queries: divided by sqrt(head_size).
        keys: of one layer of the pool.
        values: of one layer of the pool.
        pages: of each row.
        biases: added to the scores.
    """
    num_rows, num_heads, _, channels = queries.shape
    own_keys = keys[pages].permute(0, 2, 1, 4, 3).reshape(num_rows, num_heads, -1, channels)
    own_values = values[pages].transpose(1, 2).reshape(num_rows, num_heads, -1, channels)
    attended = F.scaled_dot_product_attention(queries, own_keys, own_values, attn_mask=biases, scale=1.0)
    return attended.transpose(1, 2).flatten(2)
