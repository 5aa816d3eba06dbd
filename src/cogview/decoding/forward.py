"""The one forward pass of decoding: new tokens of any rows, each row at a length of its own.

It computes what `Transformer.extend` computes, which is the plain form to read and the one it is tested against. It
is faster because weights are prepared once, nothing is a module call, and only the states that are wanted are kept.

Letters of the shapes: n new tokens of all rows together, d width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cogview.decoding.linear import DecodingLinear, gelu_of
from cogview.decoding.weights import Addition, Maps, Norm, Own, Variant, Weights
from cogview.transformer.block import add_branches

Attend = Callable[[int, Tensor], Tensor]
"""Takes a layer's number and the new tokens' Q, K and V, [n 3d]; stores K and V and gives what was attended to, [n d].

The query comes divided by the square root of the head's size.
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """New tokens that stand together and belong to one variant.

    Args:
        variant: whose embeddings, norms and additions they take.
        start: the first of them.
        stop: the one after the last.
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
    """Run new tokens and return the normalised states of some of them.

    Prefill, decoding, the checking of guesses, scoring and the writing of texts are all this call. Activations of the
    main branch and norms are fp32 whatever the dtype of the weights.

    Args:
        weights: of the base.
        parts: cover all tokens, in their order.
        tokens: ids of the vocabulary, row after row.
        positions: their positions.
        attend: of the pool that holds the rows.
        wanted: whose states are returned, ascending.
    """
    x = run_blocks(weights, parts, tokens, positions, attend)
    cuts = [np.flatnonzero((wanted >= start) & (wanted < stop)) for start, stop in _bounds(parts)]
    chosen = [torch.from_numpy(wanted[cut]).to(x.device) for cut in cuts]
    return _joined([part.variant.final_norm(x[rows]) for part, rows in zip(parts, chosen, strict=True)])


def run_blocks(
    weights: Weights,
    parts: Sequence[Part],
    tokens: Int64[Tensor, "n"],
    positions: Int64[Tensor, "n"],
    attend: Attend,
) -> Float[Tensor, "n d"]:
    """Run new tokens and return the states of all, not normalised yet; the arguments are those of `extend`."""
    bounds = _bounds(parts)
    embedded = [
        _embed(part.variant, tokens[start:stop], positions[start:stop])
        for part, (start, stop) in zip(parts, bounds, strict=True)
    ]
    x = _joined(embedded)
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


class _Block:
    """A block over tokens of one or several variants: maps are the base's, norms and additions each part's own."""

    def __init__(self, maps: Maps, owns: Sequence[Own], bounds: Sequence[tuple[int, int]]) -> None:
        self._maps = maps
        self._owns = owns
        self._bounds = bounds
        self.attention_input_norm = self._norm([own.attention_input_norm for own in owns])
        self.attention_output_norm = self._norm([own.attention_output_norm for own in owns])
        self.mlp_input_norm = self._norm([own.mlp_input_norm for own in owns])
        self.mlp_output_norm = self._norm([own.mlp_output_norm for own in owns])

    def attention(self, layer: int, attend: Attend, x: Tensor) -> Tensor:
        """Attend to all that a token sees."""
        heads = self._map(self._maps.query_key_value, [own.query_key_value for own in self._owns], x)
        heads = self._norm([own.heads_norm for own in self._owns])(heads)
        return self._map(
            self._maps.attention_output, [own.attention_output for own in self._owns], attend(layer, heads)
        )

    def mlp(self, x: Tensor) -> Tensor:
        """Map every token by itself."""
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
        """Apply a map of the base and what each part adds to it, then GELU if asked."""
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
