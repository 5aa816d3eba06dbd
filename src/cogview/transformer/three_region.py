"""Three-region sparse attention: a token looks at the text, at pivots drawn from the picture, and at a window.

Letters: b sequences, h heads, t queries, k keys, e channels, s slots, n blocks.

Places count the tokens of a sequence from 0; a block is `block_tokens` places. The queries of a block share one window:
its own block and the `key_window_blocks - 1` before it. Let w be the first place of the window. A query at place i
attends, in one softmax, to

1. the text before w,
2. the pivots before w,
3. all tokens, text or picture, from w up to and including i.

So each key is seen once at most: text and pivots that lie in the window are seen as part of it. Before w lie F tokens
of the picture, of which P are pivots, and each of those P stands for F / P tokens: log(F / P) is added to its score.
Text and window stand for themselves, and nothing is added. Where all tokens of the picture are pivots, or where a
window reaches back to the picture's first token, this is dense attention exactly. Where no pivot lies before w (P = 0,
near the picture's beginning) the F tokens there are not represented.

Slots are the places of a sequence's text, in order, and then those of its pivots, in order. There are
`num_text_and_pivot_tokens`, and those left over are empty. A token of the picture is a pivot if its priority is among
the smallest. Its priority is a hash of a seed, the layer and its place after the text. So pivots need not be kept to be
known again: a recomputation, a cache or another device finds the same ones, whatever else is in the batch.

Differs from the paper: the release adds log(length of the sequence / number of pivots) for every query. That is F / P
on average, but the number of pivots before a window varies. And with F and P nothing of the sequence's future has to
be known.

This module has the definition and a plain implementation; `three_region_kernels` has the fast ones.

Paper: appendix B.
"""

import dataclasses
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.errors import UsageError
from cogview.sequence.template import TextToImageTemplate
from cogview.transformer.config import ThreeRegionConfig

_NOWHERE = 1 << 40
"""Place of an empty slot, after all others."""

_BITS_32 = (1 << 32) - 1


class Regions(NamedTuple):
    """What the sequences of a batch see beyond the window, in one layer.

    Attributes:
        places: of text and pivots, ascending; `_NOWHERE` for empty slots.
        num_text: tokens of each sequence's text; later slots are pivots.
        num_visible: for each block, number of slots before its window.
        log_weight: for each block, added to the scores of the pivots before its window.
    """

    places: Int64[Tensor, "b s"]
    num_text: Int64[Tensor, "b"]
    num_visible: Int64[Tensor, "b n"]
    log_weight: Float[Tensor, "b n"]


def regions_for(template: TextToImageTemplate, config: ThreeRegionConfig) -> ThreeRegionConfig:
    """Return a config for the text and picture of a template.

    Raises:
        UsageError: the longest text has more tokens than there are slots.
    """
    if template.max_prefix_tokens > config.num_text_and_pivot_tokens:
        raise UsageError(
            f"num_text_and_pivot_tokens must be at least {template.max_prefix_tokens}, the tokens of the longest text, "
            f"got {config.num_text_and_pivot_tokens}"
        )
    return dataclasses.replace(
        config,
        image_start_token=template.vocabulary.separator("BOI1"),
        num_image_tokens=template.num_codes_per_image,
    )


def sees_all(num_text: int, config: ThreeRegionConfig) -> bool:
    """Return whether every token after a text sees all before it, so that attention is dense, only slower."""
    num_tokens = num_text + config.num_image_tokens
    return num_tokens <= max(config.num_text_and_pivot_tokens, config.block_tokens * config.key_window_blocks)


def count_text(tokens: Int[Tensor, "b t"], image_start_token: int) -> Int64[Tensor, "b"]:
    """Return each sequence's number of tokens up to and including the end of its text; all if it has none."""
    is_start = tokens == image_start_token
    return torch.where(is_start.any(1), is_start.int().argmax(1) + 1, tokens.shape[1])


def draw_regions(
    num_text: Int64[Tensor, "b"],
    seeds: Int64[Tensor, "b"],
    num_tokens: int,
    num_layers: int,
    config: ThreeRegionConfig,
) -> list[Regions]:
    """Draw the pivots of each layer.

    Args:
        num_text: tokens of each sequence's text; the end of a text longer than the slots is seen only in windows.
        seeds: of each sequence, at least 0 and below 2^32.
        num_tokens: of a sequence; sets the number of blocks.
        num_layers: each has its own pivots.
        config: of the regions.
    """
    num_slots = config.num_text_and_pivot_tokens
    pivots = _draw_pivots(num_slots - num_text, seeds, num_layers, config)  # [l b p], of the picture's places
    slots = torch.arange(num_slots, device=num_text.device)
    text = slots.where(slots < num_text[:, None], _NOWHERE).expand(num_layers, -1, -1)
    places = (
        torch.cat([text, pivots + num_text[:, None]], dim=2).sort(dim=2).values[:, :, :num_slots].contiguous()
    )

    starts = window_start(torch.arange(-(-num_tokens // config.block_tokens), device=num_text.device), config)
    num_visible = torch.searchsorted(places, starts.expand(*places.shape[:2], -1).contiguous())
    num_far = (starts - num_text[:, None]).clamp(0, config.num_image_tokens)
    num_far_pivots = num_visible - num_text[:, None]
    # Without a pivot the weight is not used.
    weight = torch.where(num_far_pivots > 0, num_far / num_far_pivots.clamp(min=1), 1.0)
    layers = zip(places.unbind(0), num_visible.unbind(0), weight.log().unbind(0), strict=True)
    return [Regions(at, num_text, visible, log_weight) for at, visible, log_weight in layers]


def window_start(block: Int64[Tensor, "*n"], config: ThreeRegionConfig) -> Int64[Tensor, "*n"]:
    """Return the first place of a block's window."""
    return ((block - config.key_window_blocks + 1) * config.block_tokens).clamp(min=0)


def keys_seen(
    places: Int64[Tensor, "q"], num_text: Int64[Tensor, "b"], config: ThreeRegionConfig
) -> Float[Tensor, "b q"]:
    """Return how many keys a query at each place sees, on average over draws of pivots.

    A query's own key counts as a half, as in dense attention, where a query of `t` tokens sees t / 2.

    Args:
        places: of queries.
        num_text: tokens of each sequence's text.
        config: of the regions.
    """
    first = window_start(places // config.block_tokens, config)
    texts = num_text[:, None]
    pivots = (config.num_text_and_pivot_tokens - texts).clamp(0, config.num_image_tokens)
    num_far = (first - texts).clamp(0, config.num_image_tokens)
    seen_text = torch.minimum(first, texts).clamp(max=config.num_text_and_pivot_tokens)
    return places - first + 0.5 + seen_text + pivots * num_far / config.num_image_tokens


def sees(
    places: Int64[Tensor, "q"], num_keys: int, regions: Regions, config: ThreeRegionConfig
) -> Bool[Tensor, "b q k"]:
    """Return which keys a query at each place sees.

    Args:
        places: of queries.
        num_keys: the keys are those of the first places.
        regions: only `places` is used.
        config: of the regions.
    """
    keys = torch.arange(num_keys, device=places.device)
    is_slot = (regions.places[:, :, None] == keys).any(1)
    first = window_start(places // config.block_tokens, config)[:, None]
    in_window = (keys >= first) & (keys <= places[:, None])
    return in_window | (is_slot[:, None] & (keys < first))


def masked_dense_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    regions: Regions,
    config: ThreeRegionConfig,
) -> Float[Tensor, "b h t e"]:
    """Attend to the three regions by masking dense scores.

    Slow: follows the definition key by key; the fast implementations are tested against it.

    Args:
        query: the last `t` of the `k` places.
        key: all places.
        value: all places.
        regions: only `places` and `num_text` are used.
        config: of the regions.
    """
    t, k = query.shape[2], key.shape[2]
    is_slot = (regions.places[:, :, None] == torch.arange(k, device=key.device)).any(1)
    bias = torch.full((len(query), 1, t, k), -torch.inf, dtype=torch.float32, device=key.device)
    for row, num_text in enumerate(regions.num_text.tolist()):
        pivots = is_slot[row].clone()
        pivots[:num_text] = False
        for index, place in enumerate(range(k - t, k)):
            first = max(
                0, (place // config.block_tokens + 1 - config.key_window_blocks) * config.block_tokens
            )
            bias[row, 0, index, first : place + 1] = 0.0
            bias[row, 0, index, :first][is_slot[row, :first]] = 0.0
            num_far, num_far_pivots = min(first - num_text, config.num_image_tokens), pivots[:first].sum()
            if num_far > 0:
                bias[row, 0, index, :first][pivots[:first]] = torch.log(num_far / num_far_pivots)
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return F.softmax(scores + bias.to(scores.dtype), dim=-1) @ value


def _draw_pivots(
    num_pivots: Int64[Tensor, "b"], seeds: Int64[Tensor, "b"], num_layers: int, config: ThreeRegionConfig
) -> Int64[Tensor, "l b p"]:
    """Return the places of each layer's pivots, relative to the text's end; `_NOWHERE` for the rest."""
    device = seeds.device
    layers = hash_bits(torch.arange(1, num_layers + 1, device=device))
    index = torch.arange(config.num_image_tokens, device=device)
    priority = hash_bits(hash_bits(layers[:, None] ^ hash_bits(seeds))[:, :, None] ^ index)
    # Of two with one priority the lower place comes first, on every device.
    ranked = (priority << 24) | index
    max_pivots = min(config.num_text_and_pivot_tokens, config.num_image_tokens)
    first = ranked.topk(max_pivots, dim=2, largest=False, sorted=True).values & ((1 << 24) - 1)
    is_wanted: Bool[Tensor, "b p"] = torch.arange(max_pivots, device=device) < num_pivots[:, None]
    return first.where(is_wanted, _NOWHERE)


def hash_bits(x: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """Return a hash of 32-bit numbers, the same on every device; products stay below 2^63."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _BITS_32
    x = x ^ (x >> 15)
    x = (x * 0x31848BAB) & _BITS_32
    return x ^ (x >> 16)
