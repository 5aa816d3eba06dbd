"""The caches that decoding attends to: tables of rows on CPU, elsewhere the plain one, and one for three regions."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.transformer.cache import KeyValueCache
from cogview.transformer.config import TransformerConfig
from cogview.transformer.three_region import draw_regions, window_start

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

    def take_rows(self, rows: Int64[Tensor, "b"], first: int) -> None:
        """Let each sequence go on from another's tokens.

        Args:
            rows: whose tokens each sequence takes.
            first: the place from which on they may differ.
        """
        changed = self.pairs[:, :, :, :, first : self.length]
        changed.copy_(changed[:, :, rows])

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

    def take_rows(self, rows: Int64[Tensor, "b"], first: int) -> None:
        """Let each sequence go on from another's tokens.

        Args:
            rows: whose tokens each sequence takes.
            first: the place from which on they may differ.
        """
        num_heads = self._shape[1]
        heads = (rows[:, None] * num_heads + torch.arange(num_heads)).flatten()
        blocks = slice(first // self.BLOCK, -(-self.length // self.BLOCK))
        for changed in (self.keys[:, :, blocks], self.values[:, :, first : self.length]):
            changed.copy_(changed[:, heads])

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


class SparseCache:
    """Keys and values that three-region attention can see: of the slots and of the last window.

    The slots of text are filled by the prompt; a slot of a pivot is filled when its token is decoded, and seen once
    it lies before the window. The window is a ring: a new token takes the place of one that no window reaches any more.
    Text is seen by its slots alone, so the ring holds codes only. What is no pivot is written to a spare slot that
    is never seen, so that all rows do the same.

    The pivots are those of the evaluating transformer: functions of the layer and a code's place, so a sequence has the
    same bits beside any other.

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
        regions = config.three_region
        self.length = 0
        self.max_tokens = max_tokens
        self.starts = [start] * batch
        self._config = config
        self._num_text = [0] * batch
        # A slot's number is at most its place.
        self._num_slots = min(regions.num_text_and_pivot_tokens, max_tokens)
        self._num_ring = min(regions.block_tokens * regions.key_window_blocks, max_tokens)
        held = self._num_slots + 1 + self._num_ring
        shape = (config.num_layers, 2, batch, config.num_heads, held, config.head_size)
        self.pairs: Float[Tensor, "l 2 b h k e"] = torch.zeros(shape, dtype=dtype, device=device)
        self.keys: Float[Tensor, "l b h k e"] = self.pairs[:, 0]
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None

    def fill(self, layer: int, key: Float[Tensor, "b h t e"], value: Float[Tensor, "b h t e"]) -> None:
        """Store a layer's first `t` tokens, all of them text."""
        t = key.shape[2]
        assert t <= self._num_slots, "there is a slot for each token of a text"
        self._num_text = [t] * len(self.starts)
        self.pairs[layer, :, :, :, :t] = torch.stack([key, value])

    def copy_prompts(self, prompts: Sequence["SparseCache"]) -> None:
        """Take over what caches of one text each hold, all of one length."""
        self.length = prompts[0].length
        self.starts = [prompt.starts[0] for prompt in prompts]
        self._num_text = [prompt._num_text[0] for prompt in prompts]
        for row, (prompt, num_text) in enumerate(zip(prompts, self._num_text, strict=True)):
            self.pairs[:, :, row, :, :num_text] = prompt.pairs[:, :, 0, :, :num_text]

    def step(self) -> Attend:
        """Return what stores a new token and attends to the three regions."""
        device, regions = self.pairs.device, self._config.three_region
        rows = torch.arange(len(self.starts), device=device)
        num_text = torch.tensor(self._num_text, device=device)
        if self._drawn is None:
            drawn = draw_regions(
                num_text, torch.zeros_like(num_text), self.max_tokens, self._config.num_layers, regions
            )
            self._drawn = (
                torch.stack([layer.places[:, : self._num_slots] for layer in drawn]),
                torch.stack([layer.num_visible for layer in drawn]),
                torch.stack([layer.log_weight for layer in drawn]),
            )
        places, visible, weights = self._drawn
        place = self.length - torch.tensor(self.starts, device=device)
        block = place // regions.block_tokens

        slots = torch.arange(self._num_slots, device=device)
        is_text = slots < num_text[:, None]
        is_pivot = slots < visible[:, rows, block][:, :, None]
        of_slots = torch.where(is_pivot, weights[:, rows, block][:, :, None], -torch.inf).masked_fill(
            is_text, 0.0
        )
        ring = torch.arange(self._num_ring, device=device)
        held = place[:, None] - (place[:, None] - ring) % self._num_ring
        first = torch.maximum(window_start(block, regions), num_text)[:, None]
        of_ring = torch.zeros_like(held, dtype=of_slots.dtype).masked_fill(held < first, -torch.inf)
        spare = torch.full_like(of_slots[:, :, :1], -torch.inf)
        bias = torch.cat([of_slots, spare, of_ring.expand(len(of_slots), -1, -1)], dim=2)
        biases = bias[:, :, None, None].to(self.pairs.dtype).unbind(0)

        is_slot = places == place[:, None]
        to_slot = torch.where(is_slot.any(2), is_slot.int().argmax(2), self._num_slots).unbind(0)
        to_ring = self._num_slots + 1 + place % self._num_ring
        pairs = self.pairs.unbind(0)

        def attend(layer: int, heads: Tensor) -> Tensor:
            new = heads[:, 1:].to(self.pairs.dtype)
            pairs[layer][:, rows, :, to_slot[layer]] = new
            pairs[layer][:, rows, :, to_ring] = new
            query = heads[:, 0].to(self.pairs.dtype).unsqueeze(2)
            keys, values = pairs[layer].unbind(0)
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=biases[layer], scale=1.0)
            return attended.squeeze(2)

        return attend


DecodingCache: TypeAlias = FusedCache | TableCache | SparseCache
"""Any; a decoder's are all of one kind. The caller sets `length` after `fill` and raises it after each `step`."""


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
