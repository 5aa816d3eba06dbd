"""Forward pass of decoding: new tokens of any rows, each row with its own length.

Computes the same as `Transformer.extend`, the plain version that it is tested against. It is faster: weights are
prepared once, there are no module calls, and only the needed states are kept.

Letters of the shapes: n new tokens of all rows together, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.decoding.attention_layout import Attend
from cogview.decoding.linear import DecodingLinear, gelu_of
from cogview.decoding.weights import Addition, BlockMaps, BlockVariant, Norm, Variant, Weights
from cogview.transformer.block import BlockNorms, add_branches


@dataclass(frozen=True, kw_only=True)
class Part:
    """Adjacent new tokens of one variant.

    Args:
        variant: that runs them.
        start: index of the first.
        stop: index after the last.
    """

    variant: Variant
    start: int
    stop: int


def extend(
    weights: Weights,
    parts: Sequence[Part],
    tokens: Int64[Tensor, "n"],
    positions: Int64[Tensor, "n"],
    attend: Attend,
    wanted: Int64[np.ndarray, "w"],
) -> Float[Tensor, "w d"]:
    """Run new tokens, and return the normalised states of some of them.

    Prefill, decoding, verification of guesses, scoring and captioning are all this call. The main branch and norms are
    computed in fp32, whatever the dtype of the weights.

    Args:
        weights: of the base.
        parts: cover all tokens, in their order.
        tokens: ids of all rows' tokens.
        positions: their positions.
        attend: attention to the pool of the rows.
        wanted: indices of the tokens whose states to return, ascending.
    """
    x = run_blocks(weights, parts, tokens, positions, attend)
    cuts = [np.flatnonzero((wanted >= start) & (wanted < stop)) for start, stop in _bounds(parts)]
    indices = [torch.from_numpy(wanted[cut]).to(x.device) for cut in cuts]
    return _joined([part.variant.final_norm(x[rows]) for part, rows in zip(parts, indices, strict=True)])


def run_blocks(
    weights: Weights,
    parts: Sequence[Part],
    tokens: Int64[Tensor, "n"],
    positions: Int64[Tensor, "n"],
    attend: Attend,
) -> Float[Tensor, "n d"]:
    """Run new tokens through all blocks, without the final norm; arguments as for `extend`."""
    bounds = _bounds(parts)
    embedded = [
        _embed(part.variant, tokens[start:stop], positions[start:stop])
        for part, (start, stop) in zip(parts, bounds, strict=True)
    ]
    x = _joined(embedded)
    is_base = len(parts) == 1 and parts[0].variant is weights.base
    if is_base and weights.native is not None and weights.native.takes(attend):
        return weights.native.run(x, attend)
    for layer, maps in enumerate(weights.maps):
        block = _Block(maps, [part.variant.blocks[layer] for part in parts], bounds)
        x = add_branches(
            x,
            weights.config.layer_norm,
            block,
            partial(block.attention, layer, attend),
            block.mlp,
        )
    return x


def _bounds(parts: Sequence[Part]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in parts]


def _embed(variant: Variant, tokens: Tensor, positions: Tensor) -> Tensor:
    """Return the sums of token and position embeddings in fp32."""
    return variant.embed_tokens(tokens).float() + F.embedding(positions, variant.positions).float()


class _Block(BlockNorms):
    """Block over tokens of one or more variants: linear maps of the base, norms and additions of each part."""

    def __init__(
        self, maps: BlockMaps, owns: Sequence[BlockVariant], bounds: Sequence[tuple[int, int]]
    ) -> None:
        self._maps = maps
        self._owns = owns
        self._bounds = bounds
        self.attention_input_norm = self._norm([own.attention_input_norm for own in owns])
        self.attention_output_norm = self._norm([own.attention_output_norm for own in owns])
        self.mlp_input_norm = self._norm([own.mlp_input_norm for own in owns])
        self.mlp_output_norm = self._norm([own.mlp_output_norm for own in owns])

    def attention(self, layer: int, attend: Attend, x: Tensor) -> Tensor:
        """Compute the attention branch."""
        heads = self._map(self._maps.query_key_value, [own.query_key_value for own in self._owns], x)
        heads = self._norm([own.heads_norm for own in self._owns])(heads)
        return self._map(
            self._maps.attention_output, [own.attention_output for own in self._owns], attend(layer, heads)
        )

    def mlp(self, x: Tensor) -> Tensor:
        """Compute the MLP branch."""
        inner = self._map(self._maps.mlp_inner, [own.mlp_inner for own in self._owns], x, gelu=True)
        return self._map(self._maps.mlp_output, [own.mlp_output for own in self._owns], inner)

    def _norm(self, norms: Sequence[Norm]) -> Norm:
        if len(norms) == 1:
            return norms[0]
        return lambda x: torch.cat(
            [norm(x[start:stop]) for norm, (start, stop) in zip(norms, self._bounds, strict=True)]
        )

    def _map(
        self, linear: DecodingLinear, additions: Sequence[Addition | None], x: Tensor, gelu: bool = False
    ) -> Tensor:
        """Apply a linear map with each part's addition, then GELU if asked."""
        if not any(additions):
            return linear(x, gelu)
        if gelu:
            # Fused into the product GELU has other bits than by itself, so each part goes its own way.
            return _joined(
                [
                    linear(x[start:stop], True)
                    if add is None
                    else gelu_of(linear(x[start:stop]) + add(x[start:stop]))
                    for add, (start, stop) in zip(additions, self._bounds, strict=True)
                ]
            )
        result = linear(x)
        for add, (start, stop) in zip(additions, self._bounds, strict=True):
            if add is not None:
                result[start:stop] += add(x[start:stop])
        return result


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
