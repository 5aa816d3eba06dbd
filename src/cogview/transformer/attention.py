"""Causal self-attention, dense or sparse, with and without a cache."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.transformer.cache import LayerCache
from cogview.transformer.config import ThreeRegionConfig, TransformerConfig
from cogview.transformer.grid_attention import LayerGrid
from cogview.transformer.three_region import Regions, sees

Pattern = Regions | LayerGrid | None
"""What a layer's sparse attention sees; None if it is dense."""


def relaxed_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    alpha: float = 32.0,
    dropout: float = 0.0,
    mask: Bool[Tensor, "t k"] | None = None,
) -> Float[Tensor, "b h t e"]:
    """Attend causally in the paper's order of operations, which cannot overflow in fp16.

    Keys are divided by alpha * sqrt(e) before the product; the largest score is subtracted before alpha is multiplied
    back, so every argument of the exponential is at most 0.

    Differs from the paper: the maximum is taken for each query, not for each head. With one maximum for a head, a query
    whose scores all lie far below it overflows to minus infinity, and its softmax to NaN.

    Args:
        query: the last `t` of the `k` positions.
        key: all `k` positions.
        value: all `k` positions.
        alpha: factor that keeps scores small.
        dropout: probability of dropping an attention weight.
        mask: keys that each query sees; all up to its own place if None.

    Paper: 2.4, softmax((Q^T K / (alpha sqrt d) - max) * alpha) with alpha = 32.
    """
    scores = _masked(query @ (key / (alpha * math.sqrt(query.shape[-1]))).transpose(-2, -1), mask)
    largest = scores.detach().amax(dim=-1, keepdim=True)
    weights = F.softmax((scores - largest) * alpha, dim=-1)
    return F.dropout(weights, dropout, training=dropout > 0) @ value


def plain_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    dropout: float = 0.0,
    mask: Bool[Tensor, "t k"] | None = None,
) -> Float[Tensor, "b h t e"]:
    """Attend causally in the usual order of operations, each rounded to the operands' dtype.

    In fp16 the product overflows where a score exceeds 65,504 sqrt(e), which the other two avoid.

    Args:
        query: the last `t` of the `k` positions.
        key: all `k` positions.
        value: all `k` positions.
        dropout: probability of dropping an attention weight.
        mask: keys that each query sees; all up to its own place if None.
    """
    scores = _masked(query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]), mask)
    return F.dropout(F.softmax(scores, dim=-1), dropout, training=dropout > 0) @ value


def _masked(scores: Float[Tensor, "b h t k"], mask: Bool[Tensor, "t k"] | None) -> Float[Tensor, "b h t k"]:
    """Set scores of unseen keys, without a mask those after their query, to minus infinity."""
    t, k = scores.shape[-2:]
    if mask is not None:
        return scores.masked_fill(~mask, -torch.inf)
    if t == 1:
        return scores
    future = torch.ones(t, k, dtype=torch.bool, device=scores.device).triu(diagonal=k - t + 1)
    return scores.masked_fill(future, -torch.inf)


def fused_attention(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    dropout: float = 0.0,
    mask: Bool[Tensor, "t k"] | None = None,
) -> Float[Tensor, "b h t e"]:
    """Attend causally by PyTorch's fused kernels, which accumulate in fp32.

    With dropout on CPU, PyTorch does not fuse (torch 2.13): all t x k weights are in memory.

    Args:
        query: the last `t` of the `k` positions.
        key: all `k` positions.
        value: all `k` positions.
        dropout: probability of dropping an attention weight.
        mask: keys that each query sees; all up to its own place if None.
    """
    t, k = query.shape[-2], key.shape[-2]
    if mask is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    if t == k or t == 1:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=t > 1)
    past = torch.ones(t, k, dtype=torch.bool, device=query.device).tril(diagonal=k - t)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=past, dropout_p=dropout)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention; `query_key_value` stacks Q, K and V, each split into heads.

    Attributes:
        by_head: whether its rows are ordered by `rows_by_head` instead, as in tensor-parallel training.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.by_head = False
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.query_norm, self.key_norm = (
            nn.RMSNorm(config.head_size, config.layer_norm_epsilon) if config.qk_norm else nn.Identity()
            for _ in range(2)
        )

    def forward(
        self, x: Float[Tensor, "b t d"], cache: LayerCache | None = None, pattern: Pattern = None
    ) -> Float[Tensor, "b t d"]:
        """Attend to all earlier tokens, or to those of a sparse pattern.

        Args:
            x: tokens after those of the cache, if there is one.
            cache: attended to as well; the keys and values of `x` are appended.
            pattern: of this layer.
        """
        b, t, _ = x.shape
        query, key, value = self.heads(x)
        if cache is not None:
            key, value = cache.append(key, value)
            query = query.to(key.dtype)
        attended = self.attend(query, key, value, pattern)
        return self.output(attended.to(x.dtype).transpose(1, 2).reshape(b, t, -1))

    def attend(
        self,
        query: Float[Tensor, "b h t e"],
        key: Float[Tensor, "b h k e"],
        value: Float[Tensor, "b h k e"],
        pattern: Pattern = None,
    ) -> Float[Tensor, "b h t e"]:
        """Compute attention in the way that the config names.

        Args:
            query: the last `t` of the `k` positions.
            key: all `k` positions.
            value: all `k` positions.
            pattern: of this layer.
        """
        dropout = self.config.dropout if self.training else 0.0
        if isinstance(pattern, Regions):
            # Imported late: PyTorch's compiler takes longer to import than a picture to draw.
            from cogview.transformer.three_region_kernels import three_region_attention

            return three_region_attention(query, key, value, pattern, self.config.three_region, dropout)
        mask = None
        if pattern is not None:
            num_queries, num_keys = query.shape[2], key.shape[2]
            if self.config.attention == "fused" and num_queries == num_keys:
                from cogview.transformer.grid_attention_kernels import grid_attention

                return grid_attention(query, key, value, pattern, dropout)
            mask = pattern.mask(num_keys, num_queries).to(query.device)
        if self.config.attention == "relaxed":
            return relaxed_attention(query, key, value, self.config.relax_alpha, dropout, mask)
        if self.config.attention == "plain":
            return plain_attention(query, key, value, dropout, mask)
        return fused_attention(query, key, value, dropout, mask)

    def heads(self, x: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [b h t e] of all heads, or of this process's share."""
        b, t, _ = x.shape
        projected = self.query_key_value(x)
        if self.by_head:
            heads = projected.view(b, t, -1, 3, self.config.head_size).permute(3, 0, 2, 1, 4)
        else:
            stacked = projected.view(b, t, 3, self.config.num_heads, self.config.head_size)
            heads = stacked.permute(2, 0, 3, 1, 4)
        query, key, value = heads
        # Autocast computes norms in fp32, and a product needs one dtype.
        return self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype), value


def seen_keys(
    places: Int64[Tensor, "q"], num_keys: int, pattern: Pattern, config: ThreeRegionConfig | None = None
) -> Bool[Tensor, "b q k"]:
    """Return which keys a query at each place sees in a layer; of one sequence for all if they are alike.

    Args:
        places: of queries.
        num_keys: the keys are those of the first places.
        pattern: of the layer.
        config: of three regions, needed for that pattern alone.
    """
    if isinstance(pattern, Regions):
        assert config is not None, "regions have a config"
        return sees(places, num_keys, pattern, config)
    if pattern is not None:
        return pattern.mask(num_keys).to(places.device)[places][None]
    return (torch.arange(num_keys, device=places.device) <= places[:, None])[None]


def rows_by_head(config: TransformerConfig) -> Int64[Tensor, "r"]:
    """Return the rows of a stacked `query_key_value` head by head: Q, K and V of each.

    In this order, processes that share heads share contiguous rows.
    """
    stacked = torch.arange(3 * config.hidden_size).view(3, config.num_heads, config.head_size)
    return stacked.transpose(0, 1).flatten()
