"""Triton kernels of three-region attention: text, pivots and window in one pass, by their places.

See `three_region` for the definition and the letters. A program computes one tile of queries of one head. It reads the
keys of the slots before the window by their places, then those of the window, and keeps a running maximum and sum of
the softmax. No mask is made, no key is copied, and the host waits for nothing.

The backward pass goes three times over what is seen: by queries; by slots, whose sums wait in fp32; and by places,
where the sums of a place's slot are added. So each gradient is summed in a fixed order, without atomic additions.

Imported late, on GPUs only: Triton comes with PyTorch's CUDA builds. Where `TRITON_INTERPRET=1` is set before, the
kernels run on a CPU, slowly, for tests.
"""

# Kernels have Triton's types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region import Regions


class Tiles(NamedTuple):
    """How a kernel is launched: rows of a tile of queries and of keys, warps of a program, stages of its loads."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


TILES = {
    "forward": Tiles(128, 64, 8, 3),
    "backward": Tiles(64, 64, 4, 2),
    "backward of more than 64 channels": Tiles(128, 64, 8, 2),
}
"""Of each kind of kernel. Compiled for an H100 none of these spills registers."""


def gathered_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h t e"],
    value: Float[Tensor, "b h t e"],
    regions: Regions,
    config: ThreeRegionConfig,
) -> Float[Tensor, "b h t e"]:
    """Attend to the three regions by gathering keys at their places.

    Args:
        query: of all places.
        key: of all places.
        value: of all places.
        regions: drawn for at least `t` places.
        config: of the regions; `fits_triton_kernels`.
    """
    # The kernels read channels, slots and blocks that lie side by side.
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    regions = Regions(*(x.contiguous() for x in regions))
    attended, _ = _gathered_attention(
        query, key, value, *regions, config.block_tokens, config.key_window_blocks
    )
    return attended


@torch.library.custom_op("cogview::three_region_attention", mutates_args=())
def _gathered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    places: Tensor,
    num_text: Tensor,
    num_visible: Tensor,
    log_weight: Tensor,
    block_tokens: int,
    window_blocks: int,
) -> tuple[Tensor, Tensor]:
    """Return what is attended to, and the binary logarithm of each query's sum [b h t]."""
    batch, heads, t, size = query.shape
    attended = _by_places(query)
    log_sum = torch.empty((batch, heads, t), dtype=torch.float32, device=query.device)
    tiles = _tiles_in("forward", block_tokens)
    sizes = (heads, t, places.shape[1], num_visible.shape[1], size**-0.5)
    _forward_kernel[_grid(query, t, tiles.queries)](
        query, key, value, places, num_text, num_visible, log_weight, attended, log_sum,
        *_strides(query, key, value, attended), *sizes, block_tokens, window_blocks, size, **tiles._asdict(),
    )  # fmt: skip
    return attended, log_sum


@_gathered_attention.register_fake
def _(query, key, value, places, num_text, num_visible, log_weight, block_tokens, window_blocks):
    return _by_places(query), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.library.custom_op("cogview::three_region_attention_backward", mutates_args=())
def _gathered_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    places: Tensor,
    num_text: Tensor,
    num_visible: Tensor,
    log_weight: Tensor,
    attended: Tensor,
    log_sum: Tensor,
    block_tokens: int,
    window_blocks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    batch, heads, t, size = query.shape
    if gradient.stride(-1) != 1:
        gradient = gradient.contiguous()
    delta = (gradient.float() * attended.float()).sum(-1)
    num_slots = places.shape[1]
    of_query, of_key, of_value = (_by_places(x) for x in (query, key, value))
    of_slots = query.new_zeros((2, batch, heads, num_slots, size), dtype=torch.float32)
    tiles = _tiles_in("backward" if size <= 64 else "backward of more than 64 channels", block_tokens)
    inputs = (gradient, query, key, value, places, num_text, num_visible, log_weight, log_sum, delta)
    strides = _strides(gradient, query, key, value)
    sizes = (heads, t, num_slots, num_visible.shape[1], size**-0.5, block_tokens, window_blocks, size)
    _query_kernel[_grid(query, t, tiles.queries)](
        *inputs, of_query, *strides, *_strides(of_query), *sizes, **tiles._asdict()
    )
    # No query before this block sees a slot of the tile.
    firsts = torch.arange(0, num_slots, tiles.keys, device=query.device).expand(batch, -1).contiguous()
    first_block = torch.searchsorted(num_visible.contiguous(), firsts, right=True)
    _slot_kernel[_grid(query, num_slots, tiles.keys)](
        *inputs, first_block, *of_slots, *strides, *sizes, **tiles._asdict()
    )
    slots = torch.arange(num_slots, device=query.device).expand(batch, -1)
    slot_of = torch.full((batch, t + 1), -1, device=query.device).scatter_(1, places.clamp(max=t), slots)
    _place_kernel[_grid(query, t, tiles.keys)](
        *inputs, slot_of, *of_slots, of_key, of_value, *strides, *_strides(of_key, of_value), *sizes,
        **tiles._asdict(),
    )  # fmt: skip
    return of_query, of_key, of_value


@_gathered_attention_backward.register_fake
def _(gradient, query, key, value, *others):
    return _by_places(query), _by_places(key), _by_places(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.sizes = inputs[7:]


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _gathered_attention_backward(gradient, *ctx.saved_tensors, *ctx.sizes)
    return (*gradients, *[None] * 6)


_gathered_attention.register_autograd(_backward, setup_context=_keep)


def _tiles_in(kind: str, block_tokens: int) -> Tiles:
    """Return a kind of kernel's tiles, small enough that each lies in one block of places."""
    tiles, most = TILES[kind], block_tokens & -block_tokens
    return tiles._replace(queries=min(tiles.queries, most), keys=min(tiles.keys, most))


def _grid(query: Tensor, num_rows: int, tile: int) -> tuple[int, int]:
    """Return the programs: one for each tile of rows of each head."""
    return -(-num_rows // tile), query.shape[0] * query.shape[1]


def _by_places(x: Tensor) -> Tensor:
    """Return an empty tensor of this shape, with the heads of a place beside each other."""
    batch, heads, t, size = x.shape
    return x.new_empty((batch, t, heads, size)).transpose(1, 2)


def _strides(*tensors: Tensor) -> list[int]:
    """Return each tensor's strides of sequences, heads and places; those of channels are 1."""
    return [stride for x in tensors for stride in x.stride()[:3]]


@triton.jit
def _rows(x, at, is_there, stride, size: tl.constexpr):
    """Return the rows at some places, 0 where there is none; with None for `is_there` all are."""
    rows = x + at[:, None] * stride + tl.arange(0, size)[None, :]
    if is_there is None:
        found = tl.load(rows)
    else:
        found = tl.load(rows, mask=is_there[:, None], other=0.0)
    return found


@triton.jit
def _seen_by(
    block, b, num_text, num_visible, log_weight, num_blocks, block_tokens: tl.constexpr, window_blocks: tl.constexpr
):  # fmt: skip
    """Return a block's first place of its window, its number of slots, that of them of text, and the pivots' bias."""
    first = tl.maximum(0, (block - window_blocks + 1) * block_tokens)
    at = b * num_blocks + block
    return first, tl.load(num_visible + at), tl.load(num_text + b), tl.load(log_weight + at)


@triton.jit
def _slots_at(
    slot, key, value, places, visible, text, weight, kt, vt, size: tl.constexpr, keys: tl.constexpr
):  # fmt: skip
    """Return keys and values of a tile of slots, biases of their scores, and which of them are seen."""
    slots = slot + tl.arange(0, keys)
    is_there = slots < visible
    at = tl.load(places + slots, mask=is_there, other=0)
    k, v = _rows(key, at, is_there, kt, size), _rows(value, at, is_there, vt, size)
    return k, v, tl.where(slots >= text, weight, 0.0)[None, :], is_there[None, :]


@triton.jit
def _queries_at(rows, query, gradient, log_sum_in, delta_in, t, qt, gt, size: tl.constexpr):
    """Return a tile of queries, their output's gradients, logarithms of their sums, and deltas."""
    q, g = _rows(query, rows, rows < t, qt, size), _rows(gradient, rows, rows < t, gt, size)
    log_sum = tl.load(log_sum_in + rows, mask=rows < t, other=0.0)
    return q, g, log_sum, tl.load(delta_in + rows, mask=rows < t, other=0.0)


@triton.jit
def _product(x, y):
    if x.dtype == tl.float32:
        return tl.dot(x, y, input_precision="ieee")
    return tl.dot(x, y)


@triton.jit
def _scores(q, k, scale, bias, is_seen):
    """Return scores as binary logarithms; with None for `is_seen` all are seen."""
    scores = (_product(q, tl.trans(k)) * scale + bias) * 1.4426950408889634
    if is_seen is not None:
        scores = tl.where(is_seen, scores, float("-inf"))
    return scores


@triton.jit
def _attend(q, k, v, scale, bias, is_seen, most, total, attended):
    """Add keys to a running softmax."""
    scores = _scores(q, k, scale, bias, is_seen)
    new = tl.maximum(most, tl.max(scores, 1))
    # Before a row has seen any key its maximum is -inf.
    base = tl.where(new == float("-inf"), 0.0, new)
    old = tl.exp2(most - base)
    weights = tl.exp2(scores - base[:, None])
    attended = attended * old[:, None] + _product(weights.to(v.dtype), v)
    return new, total * old + tl.sum(weights, 1), attended


@triton.jit
def _forward_kernel(
    query, key, value, places, num_text, num_visible, log_weight, attended_out, log_sum_out,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, ob, oh, ot,
    heads, t, num_slots, num_blocks, scale,
    block_tokens: tl.constexpr, window_blocks: tl.constexpr, size: tl.constexpr, queries: tl.constexpr,
    keys: tl.constexpr,
):  # fmt: skip
    tile, program = tl.program_id(0), tl.program_id(1)
    b, h = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    query += b * qb + h * qh
    key += b * kb + h * kh
    value += b * vb + h * vh
    start = tile * queries
    rows = start + tl.arange(0, queries)
    first, visible, text, weight = _seen_by(
        start // block_tokens, b, num_text, num_visible, log_weight, num_blocks, block_tokens, window_blocks
    )
    q = _rows(query, rows, rows < t, qt, size)
    most = tl.full([queries], float("-inf"), tl.float32)
    total = tl.zeros([queries], tl.float32)
    attended = tl.zeros([queries, size], tl.float32)
    for slot in range(0, visible, keys):
        k, v, bias, is_there = _slots_at(
            slot, key, value, places + b * num_slots, visible, text, weight, kt, vt, size, keys
        )
        most, total, attended = _attend(q, k, v, scale, bias, is_there, most, total, attended)
    for place in range(first, start, keys):
        at = place + tl.arange(0, keys)
        k, v = _rows(key, at, None, kt, size), _rows(value, at, None, vt, size)
        most, total, attended = _attend(q, k, v, scale, 0.0, None, most, total, attended)
    for place in range(start, start + queries, keys):
        at = place + tl.arange(0, keys)
        k, v = _rows(key, at, at < t, kt, size), _rows(value, at, at < t, vt, size)
        is_past = at[None, :] <= rows[:, None]
        most, total, attended = _attend(q, k, v, scale, 0.0, is_past, most, total, attended)
    out = attended_out + b * ob + h * oh + rows[:, None] * ot + tl.arange(0, size)[None, :]
    tl.store(out, (attended / total[:, None]).to(attended_out.dtype.element_ty), mask=rows[:, None] < t)
    tl.store(log_sum_out + program.to(tl.int64) * t + rows, most + tl.log2(total), mask=rows < t)


@triton.jit
def _gradient_of_scores(q, k, v, gradient, scale, bias, is_seen, log_sum, delta):
    """Return the weights, and the gradients of the scores before they are scaled."""
    weights = tl.exp2(_scores(q, k, scale, bias, is_seen) - log_sum[:, None])
    of_weights = _product(gradient, tl.trans(v))
    return weights, weights * (of_weights - delta[:, None]) * scale


@triton.jit
def _add_gradients(q, k, v, gradient, scale, bias, is_seen, log_sum, delta, of_keys, of_values):
    """Add what a tile of queries gives to the gradients of keys and values."""
    weights, of_scores = _gradient_of_scores(q, k, v, gradient, scale, bias, is_seen, log_sum, delta)
    of_values += _product(tl.trans(weights).to(gradient.dtype), gradient)
    of_keys += _product(tl.trans(of_scores).to(q.dtype), q)
    return of_keys, of_values


@triton.jit
def _query_kernel(
    gradient, query, key, value, places, num_text, num_visible, log_weight, log_sum_in, delta_in, of_query,
    gb, gh, gt, qb, qh, qt, kb, kh, kt, vb, vh, vt, ob, oh, ot,
    heads, t, num_slots, num_blocks, scale,
    block_tokens: tl.constexpr, window_blocks: tl.constexpr, size: tl.constexpr, queries: tl.constexpr,
    keys: tl.constexpr,
):  # fmt: skip
    tile, program = tl.program_id(0), tl.program_id(1)
    b, h = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    key += b * kb + h * kh
    value += b * vb + h * vh
    start = tile * queries
    rows = start + tl.arange(0, queries)
    first, visible, text, weight = _seen_by(
        start // block_tokens, b, num_text, num_visible, log_weight, num_blocks, block_tokens, window_blocks
    )
    query += b * qb + h * qh
    gradient += b * gb + h * gh
    log_sum_in += program.to(tl.int64) * t
    delta_in += program.to(tl.int64) * t
    q, g, log_sum, delta = _queries_at(rows, query, gradient, log_sum_in, delta_in, t, qt, gt, size)
    total = tl.zeros([queries, size], tl.float32)
    for slot in range(0, visible, keys):
        k, v, bias, is_there = _slots_at(
            slot, key, value, places + b * num_slots, visible, text, weight, kt, vt, size, keys
        )
        _, of_scores = _gradient_of_scores(q, k, v, g, scale, bias, is_there, log_sum, delta)
        total += _product(of_scores.to(k.dtype), k)
    for place in range(first, start, keys):
        at = place + tl.arange(0, keys)
        k, v = _rows(key, at, None, kt, size), _rows(value, at, None, vt, size)
        _, of_scores = _gradient_of_scores(q, k, v, g, scale, 0.0, None, log_sum, delta)
        total += _product(of_scores.to(k.dtype), k)
    for place in range(start, start + queries, keys):
        at = place + tl.arange(0, keys)
        k, v = _rows(key, at, at < t, kt, size), _rows(value, at, at < t, vt, size)
        is_past = at[None, :] <= rows[:, None]
        _, of_scores = _gradient_of_scores(q, k, v, g, scale, 0.0, is_past, log_sum, delta)
        total += _product(of_scores.to(k.dtype), k)
    out = of_query + b * ob + h * oh + rows[:, None] * ot + tl.arange(0, size)[None, :]
    tl.store(out, total.to(of_query.dtype.element_ty), mask=rows[:, None] < t)


@triton.jit
def _slot_kernel(
    gradient, query, key, value, places, num_text, num_visible, log_weight, log_sum_in, delta_in, first_block,
    of_slot_keys, of_slot_values,
    gb, gh, gt, qb, qh, qt, kb, kh, kt, vb, vh, vt,
    heads, t, num_slots, num_blocks, scale,
    block_tokens: tl.constexpr, window_blocks: tl.constexpr, size: tl.constexpr, queries: tl.constexpr,
    keys: tl.constexpr,
):  # fmt: skip
    tile, program = tl.program_id(0), tl.program_id(1)
    b, h = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    query += b * qb + h * qh
    gradient += b * gb + h * gh
    log_sum_in += program.to(tl.int64) * t
    delta_in += program.to(tl.int64) * t
    slots = tile * keys + tl.arange(0, keys)
    at = tl.load(places + b * num_slots + slots, mask=slots < num_slots, other=t)
    k = _rows(key + b * kb + h * kh, at, at < t, kt, size)
    v = _rows(value + b * vb + h * vh, at, at < t, vt, size)
    is_pivot = slots >= tl.load(num_text + b)
    of_keys, of_values = tl.zeros([keys, size], tl.float32), tl.zeros([keys, size], tl.float32)
    first = tl.load(first_block + b * tl.cdiv(num_slots, keys) + tile)
    for start in range(first * block_tokens, t, queries):
        rows = start + tl.arange(0, queries)
        block = start // block_tokens
        visible = tl.load(num_visible + b * num_blocks + block)
        bias = tl.where(is_pivot, tl.load(log_weight + b * num_blocks + block), 0.0)[None, :]
        q, g, log_sum, delta = _queries_at(rows, query, gradient, log_sum_in, delta_in, t, qt, gt, size)
        is_seen = (slots < visible)[None, :] & (rows < t)[:, None]
        of_keys, of_values = _add_gradients(
            q, k, v, g, scale, bias, is_seen, log_sum, delta, of_keys, of_values
        )
    out = (program.to(tl.int64) * num_slots + slots)[:, None] * size + tl.arange(0, size)[None, :]
    tl.store(of_slot_keys + out, of_keys, mask=slots[:, None] < num_slots)
    tl.store(of_slot_values + out, of_values, mask=slots[:, None] < num_slots)


@triton.jit
def _place_kernel(
    gradient, query, key, value, places, num_text, num_visible, log_weight, log_sum_in, delta_in, slot_of,
    of_slot_keys, of_slot_values, of_key, of_value,
    gb, gh, gt, qb, qh, qt, kb, kh, kt, vb, vh, vt, okb, okh, okt, ovb, ovh, ovt,
    heads, t, num_slots, num_blocks, scale,
    block_tokens: tl.constexpr, window_blocks: tl.constexpr, size: tl.constexpr, queries: tl.constexpr,
    keys: tl.constexpr,
):  # fmt: skip
    tile, program = tl.program_id(0), tl.program_id(1)
    b, h = (program // heads).to(tl.int64), (program % heads).to(tl.int64)
    query += b * qb + h * qh
    gradient += b * gb + h * gh
    log_sum_in += program.to(tl.int64) * t
    delta_in += program.to(tl.int64) * t
    place = tile * keys
    at = place + tl.arange(0, keys)
    k = _rows(key + b * kb + h * kh, at, at < t, kt, size)
    v = _rows(value + b * vb + h * vh, at, at < t, vt, size)
    slot = tl.load(slot_of + b * (t + 1) + at, mask=at < t, other=-1)
    of_slots = program.to(tl.int64) * num_slots * size
    of_keys = _rows(of_slot_keys + of_slots, slot, slot >= 0, size, size)
    of_values = _rows(of_slot_values + of_slots, slot, slot >= 0, size, size)
    stop = tl.minimum(t, (place // block_tokens + window_blocks) * block_tokens)
    for start in range(place // queries * queries, stop, queries):
        rows = start + tl.arange(0, queries)
        q, g, log_sum, delta = _queries_at(rows, query, gradient, log_sum_in, delta_in, t, qt, gt, size)
        is_seen = (at[None, :] <= rows[:, None]) & (rows < t)[:, None]
        of_keys, of_values = _add_gradients(
            q, k, v, g, scale, 0.0, is_seen, log_sum, delta, of_keys, of_values
        )
    channels = tl.arange(0, size)[None, :]
    is_there = at[:, None] < t
    out = of_key + b * okb + h * okh + at[:, None] * okt + channels
    tl.store(out, of_keys.to(of_key.dtype.element_ty), mask=is_there)
    out = of_value + b * ovb + h * ovh + at[:, None] * ovt + channels
    tl.store(out, of_values.to(of_value.dtype.element_ty), mask=is_there)
