"""The caches that decoding attends to: on CPU tables of rows, elsewhere the plain static cache."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional as F

from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import TransformerConfig

Attend: TypeAlias = Callable[[int, Tensor], Tensor]
"""Takes a layer's number and the new token's query, key and value, [b 3 h e]; gives what it attended to, [b h e].

The query comes divided by the square root of the head's size.
"""


class FusedCache(KeyValueCache):
    """The plain cache, attended to by PyTorch's fused kernel.

    Args:
        config: of the transformer that fills it.
        batch: sequences.
        max_tokens: capacity in positions.
        dtype: of the stored values.
        device: where it lies.
        start: the place of a sequence's first token; sequences of unlike length end at one place, not start at one.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        start: int = 0,
    ) -> None:
        super().__init__(config, batch, max_tokens, dtype, device)
        self.starts = [start] * batch

    def fill(self, layer: int, key: Float[Tensor, "b h t e"], value: Float[Tensor, "b h t e"]) -> None:
        """Store a layer's first `t` tokens of sequences that start at one place."""
        start = self.starts[0]
        self.keys[layer, :, :, start : start + key.shape[2]] = key
        self.values[layer, :, :, start : start + key.shape[2]] = value

    def copy_prompts(self, prompts: Sequence["FusedCache"]) -> None:
        """Take over what caches of one sequence each hold, all of one length."""
        self.length = prompts[0].length
        self.starts = [prompt.starts[0] for prompt in prompts]
        for row, prompt in enumerate(prompts):
            self.pairs[:, :, row, :, : self.length] = prompt.pairs[:, :, 0, :, : self.length]

    def step(self) -> Attend:
        """Return what stores a new token behind those held and attends to all."""
        new_pairs = self.pairs.select(4, self.length).unbind(0)
        # Slices to the current length: a mask over the whole cache would read all of it.
        first, stop = min(self.starts), self.length + 1
        keys, values = (held[:, :, :, first:stop].unbind(0) for held in (self.keys, self.values))
        mask = None
        if max(self.starts) > first:
            starts = torch.tensor(self.starts, device=self.keys.device)
            mask = (torch.arange(first, stop, device=self.keys.device) >= starts[:, None])[:, None, None]

        def attend(layer: int, heads: Tensor) -> Tensor:
            new_pairs[layer].copy_(heads[:, 1:].transpose(0, 1))
            query = heads[:, 0].to(self.keys.dtype).unsqueeze(2)
            attended = F.scaled_dot_product_attention(
                query, keys[layer], values[layer], attn_mask=mask, scale=1.0
            )
            return attended.squeeze(2)

        return attend


class TableCache:
    """Keys and values as tables of rows, so that attention is two weighted sums of rows.

    The values of a head are rows of `e` channels, of which its softmax weighs one for each position. Its keys stand
    transposed, in blocks of 128 positions: a block has a row for each channel, and the query weighs these. PyTorch's
    operator for such sums, made for embedding tables, reads memory on x86 CPUs at about twice the speed of batched
    products with a single row; and the bits of a sum do not depend on what else is summed in the same call.

    Args:
        config: of the transformer that fills it.
        batch: sequences.
        max_tokens: capacity in positions.
        dtype: fp32, or fp16 for half of the memory and of the time to read it: keys, values, scores and weights are
            then rounded to fp16, and sums are still made in fp32.
        start: the place of a sequence's first token, as in `FusedCache`. A sequence has the same bits beside any other
            as long as its own start is the same.
    """

    BLOCK = 128

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        start: int = 0,
    ) -> None:
        self.length = 0
        self.max_tokens = max_tokens
        self.starts = [start] * batch
        num_blocks = -(-max_tokens // self.BLOCK)
        heads, channels = batch * config.num_heads, config.head_size
        self._shape = (batch, config.num_heads, channels)
        self.keys: Float[Tensor, "l n j e p"] = torch.zeros(
            config.num_layers, heads, num_blocks, channels, self.BLOCK, dtype=dtype
        )
        self.values: Float[Tensor, "l n k e"] = torch.zeros(
            config.num_layers, heads, max_tokens, channels, dtype=dtype
        )
        self._key_tables = self.keys.flatten(1, 3).unbind(0)
        self._value_tables = self.values.flatten(1, 2).unbind(0)
        self._key_rows = torch.arange(heads * num_blocks * channels, dtype=torch.int32).view(
            heads, num_blocks, -1
        )
        self._value_rows = torch.arange(heads * max_tokens, dtype=torch.int32).view(heads, -1)

    def fill(self, layer: int, key: Float[Tensor, "b h t e"], value: Float[Tensor, "b h t e"]) -> None:
        """Store a layer's first `t` tokens of sequences that start at one place."""
        start = self.starts[0]
        placed = F.pad(key.flatten(0, 1), (0, 0, start, 0))
        for block, part in enumerate(torch.split(placed, self.BLOCK, dim=1)):
            self.keys[layer, :, block, :, : part.shape[1]] = part.transpose(1, 2)
        self.values[layer, :, start : start + value.shape[2]] = value.flatten(0, 1)

    def copy_prompts(self, prompts: Sequence["TableCache"]) -> None:
        """Take over what caches of one sequence each hold, all of one length."""
        self.length = prompts[0].length
        self.starts = [prompt.starts[0] for prompt in prompts]
        num_blocks = -(-self.length // self.BLOCK)
        num_heads = self._shape[1]
        for row, prompt in enumerate(prompts):
            heads = slice(row * num_heads, (row + 1) * num_heads)
            self.keys[:, heads, :num_blocks] = prompt.keys[:, :, :num_blocks]
            self.values[:, heads, : self.length] = prompt.values[:, :, : self.length]

    def step(self) -> Attend:
        """Return what stores a new token behind those held and attends to all."""
        batch, num_heads, channels = self._shape
        heads, length = batch * num_heads, self.length + 1
        block, place = divmod(self.length, self.BLOCK)
        num_blocks = block + 1
        new_keys = self.keys[:, :, block, :, place].view(-1, batch, num_heads, channels).unbind(0)
        new_values = self.values[:, :, self.length].view(-1, batch, num_heads, channels).unbind(0)
        key_rows = self._key_rows[:, :num_blocks].flatten()
        key_starts = torch.arange(0, len(key_rows), channels, dtype=torch.int32)
        value_rows = self._value_rows[:, :length].flatten()
        value_starts = torch.arange(0, len(value_rows), length, dtype=torch.int32)
        largest_score = torch.finfo(self.keys.dtype).max
        last_start = max(self.starts)
        before_start = (
            torch.arange(last_start) < torch.tensor(self.starts).repeat_interleave(num_heads)[:, None]
        )

        def attend(layer: int, query_key_value: Tensor) -> Tensor:
            query, key, value = query_key_value.unbind(1)
            new_keys[layer].copy_(key)
            new_values[layer].copy_(value)
            # Every block of a head meets the same query.
            weights = query.to(self.keys.dtype).reshape(heads, 1, channels)
            weights = weights.expand(heads, num_blocks, channels).flatten()
            scores = _sums_of_rows(self._key_tables[layer], key_rows, key_starts, weights)
            if scores.dtype == torch.float16:
                scores.clamp_(-largest_score, largest_score)  # the softmax of infinities is not a number
            scores = scores.view(heads, -1)[:, :length]
            if last_start:
                scores[:, :last_start].masked_fill_(before_start, -torch.inf)
            weights = torch.softmax(scores, dim=-1).flatten()
            attended = _sums_of_rows(self._value_tables[layer], value_rows, value_starts, weights)
            return attended.view(batch, num_heads, channels)

        return attend


DecodingCache: TypeAlias = FusedCache | TableCache
"""Either; a decoder's are all of one kind. The caller sets `length` after `fill` and raises it after each `step`."""


def _sums_of_rows(
    table: Float[Tensor, "m c"],
    rows: Int32[Tensor, "i"],
    starts: Int32[Tensor, "s"],
    weights: Float[Tensor, "i"],
) -> Float[Tensor, "s c"]:
    """Return sums of weighted rows of a table; the rows of sum `s` are `rows[starts[s] : starts[s + 1]]`."""
    # Mode 0 sums.
    sums, *_ = torch.embedding_bag(table, rows, starts, mode=0, per_sample_weights=weights)
    return sums
