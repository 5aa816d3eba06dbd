"""Kernels of three-region attention: Triton's, FlexAttention's block masks, or one block of queries after the other.

See `three_region` for the definition and the letters.
"""

import importlib.util
from functools import cache
from typing import Any, NamedTuple, no_type_check

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region import Regions, window_start

_TRITON_LEAST, _TRITON_MOST, _TRITON_BYTES = 16, 128, 200 * 1024
_FLEX_BLOCK = 128
_FLEX_LEAST_CHANNELS = 16


def three_region_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    regions: Regions,
    config: ThreeRegionConfig,
    dropout: float = 0.0,
) -> Float[Tensor, "b h t e"]:
    """Attend to the three regions with the fastest available kernel.

    On a GPU those are `three_region_triton`'s, where Triton is installed, or FlexAttention. Neither has dropout, and
    FlexAttention works in blocks of 128. So dropout, blocks of other sizes and queries that continue a cache go block
    by block there too.

    Args:
        query: the last `t` of the `k` places.
        key: all places.
        value: all places.
        regions: drawn for at least `k` places.
        config: of the regions.
        dropout: probability of dropping an attention weight.
    """
    is_whole = query.shape[2] == key.shape[2]
    if not query.is_cuda or not is_whole:
        return block_attention(query, key, value, regions, config, dropout)
    if fits_triton_kernels(config, query.shape[3], dropout) and has_triton_kernels(query.device):
        from cogview.transformer.three_region_triton import gathered_attention

        return gathered_attention(query, key, value, regions, config)
    if fits_flexible_attention(config, query.shape[3], dropout):
        return flexible_attention(query, key, value, regions, config)
    return block_attention(query, key, value, regions, config, dropout)


@cache
def has_triton_kernels(device: torch.device) -> bool:
    """Return whether Triton is installed and a GPU has the shared memory that its kernels' tiles take."""
    properties = torch.cuda.get_device_properties(device)
    memory: int = getattr(properties, "shared_memory_per_block_optin", 0)  # type stubs lack it
    return importlib.util.find_spec("triton") is not None and memory >= _TRITON_BYTES


def fits_triton_kernels(config: ThreeRegionConfig, head_size: int, dropout: float) -> bool:
    """Return whether Triton's kernels support a config: tiles are powers of two of at least 16, in one block each."""
    is_power = head_size & (head_size - 1) == 0 and _TRITON_LEAST <= head_size <= _TRITON_MOST
    return is_power and config.block_tokens % _TRITON_LEAST == 0 and dropout == 0


def fits_flexible_attention(config: ThreeRegionConfig, head_size: int, dropout: float) -> bool:
    """Return whether FlexAttention supports a config on a GPU."""
    return config.block_tokens % _FLEX_BLOCK == 0 and head_size >= _FLEX_LEAST_CHANNELS and dropout == 0


def flexible_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h t e"],
    value: Float[Tensor, "b h t e"],
    regions: Regions,
    config: ThreeRegionConfig,
) -> Float[Tensor, "b h t e"]:
    """Attend by FlexAttention, over the slots followed by all places.

    Slots are in order, so those before a window come first, and blocks of 128 slots after it are never read.

    Args:
        query: of all places.
        key: of all places.
        value: of all places.
        regions: drawn for at least `t` places.
        config: of the regions; its blocks are multiples of 128.
    """
    t = query.shape[2]
    keys, values = with_slots_first(key, regions), with_slots_first(value, regions)
    num_slots = keys.shape[2] - t
    _, num_text, num_visible, log_weight = regions
    block_tokens, window_tokens = config.block_tokens, config.block_tokens * config.key_window_blocks

    @no_type_check  # traced, so no checks at run time
    def is_seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        block, place = q // block_tokens, k - num_slots
        in_window = (place <= q) & (place >= (block + 1) * block_tokens - window_tokens)
        return torch.where(k < num_slots, k < num_visible[b, block], in_window)

    @no_type_check
    def weigh_pivots(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        is_pivot = (k >= num_text[b]) & (k < num_slots)
        return score + torch.where(is_pivot, log_weight[b, q // block_tokens], 0.0)

    whole, partial = _flex_blocks(regions, t, num_slots // _FLEX_BLOCK, config)
    mask = BlockMask.from_kv_blocks(
        *_in_order(partial),
        *_in_order(whole),
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=is_seen,
        seq_lengths=(t, num_slots + t),
    )
    # A compiled loss compiles it anyway. On a CPU it is only tested, and compiling takes longer.
    is_plain = torch.compiler.is_compiling() or not query.is_cuda
    attend = flex_attention if is_plain else _compiled_flex_attention()
    return attend(query, keys, values, score_mod=weigh_pivots, block_mask=mask)


def with_slots_first(x: Float[Tensor, "b h t e"], regions: Regions) -> Float[Tensor, "b h k e"]:
    """Return keys or values of the slots, padded to a multiple of 128, followed by all places."""
    num_slots = -(-regions.places.shape[1] // _FLEX_BLOCK) * _FLEX_BLOCK
    places = F.pad(regions.places, (0, num_slots - regions.places.shape[1]))  # never read
    return torch.cat([_rows_at(x, places), x], dim=2)


@cache
def _compiled_flex_attention() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _flex_blocks(
    regions: Regions, t: int, num_slot_blocks: int, config: ThreeRegionConfig
) -> tuple[Bool[Tensor, "b q k"], Bool[Tensor, "b q k"]]:
    """Return which blocks of 128 keys are seen by all of 128 queries, and which by some."""
    device, num_blocks = regions.places.device, -(-t // _FLEX_BLOCK)
    blocks = torch.arange(num_blocks, device=device)
    window_blocks = blocks // (config.block_tokens // _FLEX_BLOCK)
    seen = regions.num_visible[:, window_blocks, None]
    first_slots = torch.arange(num_slot_blocks, device=device) * _FLEX_BLOCK
    whole_slots = first_slots + _FLEX_BLOCK <= seen
    partial_slots = (first_slots < seen) & ~whole_slots
    first_blocks = window_start(window_blocks, config)[:, None] // _FLEX_BLOCK
    whole_window = (blocks >= first_blocks) & (blocks < blocks[:, None])
    partial_window = blocks == blocks[:, None]
    rows = seen.shape[0]
    return (
        torch.cat([whole_slots, whole_window.expand(rows, -1, -1)], dim=2),
        torch.cat([partial_slots, partial_window.expand(rows, -1, -1)], dim=2),
    )


def _in_order(is_read: Bool[Tensor, "b q k"]) -> tuple[Int32[Tensor, "b 1 q"], Int32[Tensor, "b 1 q k"]]:
    """Return the number of key blocks that each query block reads, and the blocks' indices, read ones first."""
    order = is_read.int().argsort(dim=2, descending=True, stable=True)
    return is_read.sum(2, dtype=torch.int32)[:, None], order.int()[:, None]


class _Part(NamedTuple):
    """Queries of one block, number of slots they see, places of their window, and biases of their scores."""

    queries: slice
    num_slots: int
    window: slice
    bias: Tensor


# Reads the number of visible slots from the device, which no graph can hold.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def block_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    regions: Regions,
    config: ThreeRegionConfig,
    dropout: float = 0.0,
) -> Float[Tensor, "b h t e"]:
    """Attend block by block, to the slots before a window and the window itself, with the fused kernel.

    Args:
        query: the last `t` of the `k` places.
        key: all places.
        value: all places.
        regions: drawn for at least `k` places.
        config: of the regions.
        dropout: probability of dropping an attention weight.
    """
    parts = _parts(query.shape[2], key.shape[2], regions, config)
    places = regions.places[:, : parts[-1].num_slots].clamp(max=key.shape[2] - 1)
    slot_keys, slot_values = _rows_at(key, places), _rows_at(value, places)
    if torch.is_grad_enabled() and keeps_keys_once(query.device, dropout):
        return _BlockAttention.apply(query, key, value, slot_keys, slot_values, parts)  # type: ignore[no-untyped-call]
    return torch.cat(
        [
            F.scaled_dot_product_attention(
                query[:, :, part.queries],
                _slots_and_window(slot_keys, key, part),
                _slots_and_window(slot_values, value, part),
                attn_mask=part.bias.to(query.dtype),
                dropout_p=dropout,
            )
            for part in parts
        ],
        dim=2,
    )


def keeps_keys_once(device: torch.device, dropout: float) -> bool:
    """Return whether block-by-block attention keeps no key or value twice for the backward pass."""
    return device.type == "cpu" and dropout == 0


def most_visible(regions: Regions) -> list[int]:
    """Return the largest number of slots before the window of each block, over sequences."""
    return regions.num_visible.amax(0).tolist()


class _BlockAttention(torch.autograd.Function):
    """Block-by-block attention on a CPU that keeps no key twice for the backward pass.

    Autograd would keep the keys and values of every block's window and slots: eight copies of each at the release's
    sizes. Here they are gathered again, and the kernel's own backward pass adds to their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        slot_keys: Tensor,
        slot_values: Tensor,
        parts: list[_Part],
    ) -> Tensor:
        attended = torch.empty_like(query)
        log_sums = []
        for part in parts:
            attended[:, :, part.queries], log_sum = (
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    query[:, :, part.queries],
                    _slots_and_window(slot_keys, key, part),
                    _slots_and_window(slot_values, value, part),
                    attn_mask=part.bias.to(query.dtype),
                )
            )
            log_sums.append(log_sum)
        ctx.save_for_backward(query, key, value, slot_keys, slot_values, attended, *log_sums)
        ctx.parts = parts
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, slot_keys, slot_values, attended, *log_sums = ctx.saved_tensors
        of_query = torch.empty_like(query)
        of_key, of_value, of_slot_keys, of_slot_values = (
            torch.zeros_like(x) for x in (key, value, slot_keys, slot_values)
        )
        for part, log_sum in zip(ctx.parts, log_sums, strict=True):
            of_query[:, :, part.queries], *of_both = (
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    gradient[:, :, part.queries],
                    query[:, :, part.queries],
                    _slots_and_window(slot_keys, key, part),
                    _slots_and_window(slot_values, value, part),
                    attended[:, :, part.queries],
                    log_sum,
                    0.0,
                    False,
                    attn_mask=part.bias.to(query.dtype),
                )
            )
            for of_part, of_slots, of_all in zip(
                of_both, (of_slot_keys, of_slot_values), (of_key, of_value), strict=True
            ):
                of_slots[:, :, : part.num_slots] += of_part[:, :, : part.num_slots]
                of_all[:, :, part.window] += of_part[:, :, part.num_slots :]
        return of_query, of_key, of_value, of_slot_keys, of_slot_values, None


def _parts(t: int, k: int, regions: Regions, config: ThreeRegionConfig) -> list[_Part]:
    """Return the blocks of the last `t` of `k` places."""
    parts = []
    device, block_tokens = regions.places.device, config.block_tokens
    num_visible = most_visible(regions)
    for block in range((k - t) // block_tokens, -(-k // block_tokens)):
        first, stop = max(k - t, block * block_tokens), min(k, (block + 1) * block_tokens)
        window = slice(max(0, (block + 1 - config.key_window_blocks) * block_tokens), stop)
        slots = torch.arange(num_visible[block], device=device)
        is_pivot = slots >= regions.num_text[:, None]
        of_slots = torch.where(is_pivot, regions.log_weight[:, block, None], 0.0)
        of_slots = of_slots.masked_fill(slots >= regions.num_visible[:, block, None], -torch.inf)
        places = torch.arange(first, stop, device=device)
        is_future = torch.arange(window.start, stop, device=device) > places[:, None]
        of_window = torch.zeros_like(is_future, dtype=of_slots.dtype).masked_fill(is_future, -torch.inf)
        rows, queries = len(of_slots), len(places)
        bias = torch.cat([of_slots[:, None].expand(-1, queries, -1), of_window.expand(rows, -1, -1)], dim=2)
        parts.append(_Part(slice(first - (k - t), stop - (k - t)), len(slots), window, bias[:, None]))
    return parts


def _slots_and_window(
    slots: Float[Tensor, "b h s e"], places: Float[Tensor, "b h k e"], part: _Part
) -> Float[Tensor, "b h n e"]:
    """Return the keys or values that a block sees: the first slots, then its window."""
    return torch.cat([slots[:, :, : part.num_slots], places[:, :, part.window]], dim=2)


def _rows_at(x: Float[Tensor, "b h k e"], places: Int64[Tensor, "b s"]) -> Float[Tensor, "b h s e"]:
    """Return the keys or values at given places; arbitrary ones for empty slots."""
    index = places.clamp(max=x.shape[2] - 1)[:, None, :, None]
    return x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))
