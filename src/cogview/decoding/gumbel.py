"""Gumbel-max sampling with numbers fixed by seed, place and code.

With numbers -log(-log u) for independent uniform u, the largest sum of logit and number falls on each code as often as
its probability says. The numbers come from a hash, so a place has the same ones on every device, in any order and
batch. Among equally probable tokens the lower one comes first.

`draw_by_gumbel` inspects its input and does no more than needed. `draw_by_sorting` samples the same without reading
from the device, in tensors of fixed shapes, as CUDA graphs need.

Letters of the shapes: b places, v legal tokens, k of them that are kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt32
from torch import Tensor

from cogview.decoding.config import SamplingConfig
from cogview.transformer.three_region import hash_bits

_BITS_32 = (1 << 32) - 1


class Draw(NamedTuple):
    """Tokens sampled at each place.

    Attributes:
        tokens: relative to the first legal token.
        confidence: probability before top-k and top-p.
    """

    tokens: Int64[Tensor, "b"]
    confidence: Float[Tensor, "b"]


def key_of(seed: int) -> tuple[int, int]:
    """Return the two words of 32 bits that represent a seed of any size in the hash."""
    first, second = np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist()
    return first, second


def gumbel_numbers(
    keys: Int64[Tensor, "... 2"], places: Int64[Tensor, "..."], tokens: Int64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """Return the Gumbel number of each token at its place; shapes are broadcast.

    Args:
        keys: of each place's seed.
        places: index in the sampled sequence, from 0.
        tokens: relative to the first legal token.
    """
    first = (places * 0x85EBCA77 + keys[..., 0]) & _BITS_32
    second = (places * 0xC2B2AE3D + keys[..., 1]) & _BITS_32
    if tokens.device.type == "cpu":
        hashed = _hashed_on_cpu(tokens.numpy(), first.numpy(), second.numpy())
        return torch.from_numpy(-np.log(-np.log((hashed + 0.5) / (1 << 32))))
    bits = hash_bits(hash_bits((tokens * 0x9E3779B1 + first) & _BITS_32) ^ second)
    return -torch.log(-torch.log((bits.double() + 0.5) / (1 << 32)))


def _hashed_on_cpu(
    tokens: Int64[np.ndarray, "..."], first: Int64[np.ndarray, "..."], second: Int64[np.ndarray, "..."]
) -> UInt32[np.ndarray, "..."]:
    """Compute `hash_bits` with 32-bit integers, several times faster with vector instructions."""
    x = tokens.astype(np.uint32) * np.uint32(0x9E3779B1) + first.astype(np.uint32)
    for after in (second, None):
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x31848BAB)
        x ^= x >> np.uint32(16)
        if after is not None:
            x ^= after.astype(np.uint32)
    return x


def draw_by_gumbel(
    logits: Float[Tensor, "b v"],
    configs: Sequence[SamplingConfig],
    keys: Int64[Tensor, "b 2"],
    places: Int64[Tensor, "b"],
) -> Draw:
    """Sample a token at each place; rows are independent.

    Args:
        logits: of the legal tokens, guided.
        configs: temperature, top-k and top-p of each place.
        keys: of each place's seed.
        places: index in the sampled sequence, from 0.
    """
    num, device = logits.shape[1], logits.device
    temperature = np.array([config.temperature for config in configs], dtype=np.float32)
    top_k = np.array([min(config.top_k or num, num) for config in configs])
    top_p = np.array([config.top_p for config in configs])
    scaled = logits.float()
    if (temperature != 1).any():
        scaled = scaled / torch.from_numpy(np.where(temperature > 0, temperature, 1)).to(device)[:, None]
    tokens = scaled.argmax(dim=1)
    shares = torch.softmax(scaled, dim=1)
    confidence = shares.gather(1, tokens[:, None])[:, 0]
    # Where the most probable token alone reaches top-p, or is asked for, there is nothing to draw.
    is_sure = (temperature == 0) | (top_k == 1) | ((top_p < 1) & (confidence.cpu().numpy() >= top_p))
    for width in np.unique(top_k[~is_sure]).tolist():
        rows = np.flatnonzero(~is_sure & (top_k == width))
        some, limit = torch.from_numpy(rows).to(device), torch.from_numpy(top_p[rows]).to(device)
        if width < num:
            chosen = _draw_from_top_k(scaled[some], width, limit, keys[some], places[some])
        else:
            chosen = _draw_from_top_p(scaled[some], shares[some], limit, keys[some], places[some])
        tokens[some] = chosen
        confidence[some] = shares[some, chosen]
    return Draw(tokens, confidence)


def _draw_from_top_p(
    scaled: Float[Tensor, "b v"],
    shares: Float[Tensor, "b v"],
    limit: Float64[Tensor, "b"],
    keys: Int64[Tensor, "b 2"],
    places: Int64[Tensor, "b"],
) -> Int64[Tensor, "b"]:
    """Sample from the fewest tokens that hold a share of the probability, without sorting.

    A token is kept if the more probable ones before it do not hold the share yet. Of `v` tokens one with less than 1 /
    v of what may be left out is never kept, so few need a number. The largest sum wins if its token is kept, else the
    next largest is tried.
    """
    num, device = scaled.shape[1], scaled.device
    order = torch.arange(num, device=device)
    if bool((limit == 1).all()):
        return (scaled.double() + gumbel_numbers(keys[:, None], places[:, None], order)).argmax(dim=1)
    rows, columns = torch.nonzero(shares > _least(limit, num)[:, None], as_tuple=True)
    numbers = gumbel_numbers(keys[rows], places[rows], columns)
    sums = torch.full(scaled.shape, -torch.inf, dtype=torch.float64, device=device)
    sums[rows, columns] = scaled[rows, columns].double() + numbers
    chosen = sums.argmax(dim=1)
    left = torch.nonzero(limit < 1)[:, 0]
    while len(left):
        own = shares[left].gather(1, chosen[left, None])
        is_before = (shares[left] > own) | ((shares[left] == own) & (order < chosen[left, None]))
        before = torch.where(is_before, shares[left].double(), 0.0).sum(dim=1)
        left = left[before >= limit[left]]
        sums[left, chosen[left]] = -torch.inf
        chosen[left] = sums[left].argmax(dim=1)
    return chosen


def _draw_from_top_k(
    scaled: Float[Tensor, "b v"],
    top_k: int,
    limit: Float64[Tensor, "b"],
    keys: Int64[Tensor, "b 2"],
    places: Int64[Tensor, "b"],
) -> Int64[Tensor, "b"]:
    """Sample from the `top_k` most probable tokens, then from the fewest of these that hold the top-p share."""
    values, columns = _first(scaled, top_k)
    probabilities = torch.softmax(values.double(), dim=1)
    sums = values.double() + gumbel_numbers(keys[:, None], places[:, None], columns)
    sums = sums.masked_fill_(_is_cut(probabilities, limit), -torch.inf)
    return columns.gather(1, sums.argmax(dim=1, keepdim=True))[:, 0]


def _first(scaled: Float[Tensor, "b v"], num: int) -> tuple[Float[Tensor, "b k"], Int64[Tensor, "b k"]]:
    """Return the `num` largest values in falling order with their columns; ties go to the lower column."""
    values, columns = scaled.topk(num)
    least = values[:, -1:]
    is_first = scaled >= least
    is_alone = values[:, 1:] != values[:, :-1]
    if int(is_first.sum()) == values.numel() and bool(is_alone.all()):
        return values, columns
    # Of equal ones others may have been taken, or in another order.
    is_equal = scaled == least
    room = num - (values > least).sum(dim=1, keepdim=True)
    is_first &= ~is_equal | (is_equal.cumsum(dim=1, dtype=torch.int32) <= room)
    columns = is_first.nonzero()[:, 1].view(-1, num)
    values, order = scaled.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _is_cut(probabilities: Float64[Tensor, "b k"], limit: Float64[Tensor, "b"]) -> Bool[Tensor, "b k"]:
    """Return which tokens top-p drops, given probabilities in falling order."""
    before = probabilities.cumsum(dim=1) - probabilities
    return (before >= limit[:, None]) & (limit[:, None] < 1)


def _least(limit: Float64[Tensor, "b"], num: int) -> Float32[Tensor, "b"]:
    """Return the probability that a token needs for top-p to keep it, among `num` tokens."""
    return ((1 - limit) / num).float() * 0.999


def draw_by_sorting(
    logits: Float[Tensor, "b v"],
    temperature: Float64[Tensor, "b"],
    top_k: Int64[Tensor, "b"],
    top_p: Float64[Tensor, "b"],
    keys: Int64[Tensor, "b 2"],
    places: Int64[Tensor, "b"],
    *,
    is_cut: bool = True,
) -> Draw:
    """Sample the same as `draw_by_gumbel`, with shapes that do not depend on values and no read by the host.

    Args:
        logits: of the legal tokens, guided.
        temperature: of each place.
        top_k: of each place; `v` keeps all.
        top_p: of each place.
        keys: of each place's seed.
        places: index in the sampled sequence, from 0.
        is_cut: whether a place has a top-k or top-p that drops something; if not, sorting is skipped.
    """
    num = logits.shape[1]
    # Not `torch.where`, which may send a number of Python from the host to the device.
    scaled = logits.float() / temperature.masked_fill(temperature == 0, 1).float()[:, None]
    shares = torch.softmax(scaled, dim=1)
    best = scaled.argmax(dim=1, keepdim=True)
    confidence = shares.gather(1, best)[:, 0]
    is_sure = (temperature == 0) | (top_k == 1) | ((top_p < 1) & (confidence.double() >= top_p))
    order = torch.arange(num, device=logits.device)
    if is_cut:
        by_share = (top_k == num)[:, None]
        _, columns = torch.where(by_share, shares, scaled).sort(dim=1, descending=True, stable=True)
        values, sorted_shares = scaled.gather(1, columns), shares.gather(1, columns)
        is_out = order >= top_k[:, None]
        of_kept = torch.softmax(values.double().masked_fill(is_out, -torch.inf), dim=1)
        is_out |= _is_cut(torch.where(by_share, sorted_shares.double(), of_kept), top_p)
        is_out |= by_share & (sorted_shares <= _least(top_p, num)[:, None])
        sums = values.double() + gumbel_numbers(keys[:, None], places[:, None], columns)
        chosen = columns.gather(1, sums.masked_fill(is_out, -torch.inf).argmax(dim=1, keepdim=True))
    else:
        sums = scaled.double() + gumbel_numbers(keys[:, None], places[:, None], order)
        chosen = sums.argmax(dim=1, keepdim=True)
    tokens = torch.where(is_sure[:, None], best, chosen)
    return Draw(tokens[:, 0], shares.gather(1, tokens)[:, 0])
