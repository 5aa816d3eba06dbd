"""Transformer block: attention and MLP, each a residual branch between two LayerNorms."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cogview.transformer.attention import CausalSelfAttention, Pattern
from cogview.transformer.cache import LayerCache
from cogview.transformer.config import LayerNormPlacement, TransformerConfig
from cogview.transformer.normalization import RelaxedLayerNorm


def layer_norm(config: TransformerConfig) -> RelaxedLayerNorm:
    """Return a LayerNorm of the model's width."""
    return RelaxedLayerNorm(config.hidden_size, config.norm_scope, config.layer_norm_epsilon)


class BlockNorms:
    """Norms around a block's two branches; identities where the placement has none.

    A base class, no protocol: from Python 3.12 on `isinstance` does not find a module's parts in a protocol.
    """

    attention_input_norm: Callable[[Tensor], Tensor]
    attention_output_norm: Callable[[Tensor], Tensor]
    mlp_input_norm: Callable[[Tensor], Tensor]
    mlp_output_norm: Callable[[Tensor], Tensor]


def add_branches(
    x: Tensor,
    placement: LayerNormPlacement,
    norms: BlockNorms,
    attention: Callable[[Tensor], Tensor],
    mlp: Callable[[Tensor], Tensor],
) -> Tensor:
    """Add a block's two branches to the main branch.

    Args:
        x: the main branch, [... d].
        placement: which of the norms exist.
        norms: around the branches.
        attention: the first branch without its norms.
        mlp: the second branch without its norms.
    """
    if placement == "post":
        x = norms.attention_output_norm(x + attention(x))
        return norms.mlp_output_norm(x + mlp(x))
    x = x + norms.attention_output_norm(attention(norms.attention_input_norm(x)))
    return x + norms.mlp_output_norm(mlp(norms.mlp_input_norm(x)))


class MLP(nn.Module):
    """Two linear maps with a GELU (tanh form) between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.mlp_factor * config.hidden_size)
        self.output = nn.Linear(config.mlp_factor * config.hidden_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Map every token by itself."""
        return self.output(F.gelu(self.inner(x), approximate="tanh"))


class SandwichBlock(nn.Module, BlockNorms):
    """x + LN(attention(LN(x))), then the same with the MLP.

    The second LayerNorm bounds what a branch adds to the main branch, whatever the branch's scale. The alternatives
    `pre` and `post` of `config.layer_norm` drop one of the two, for comparison.

    Attributes:
        checkpointing: whether the backward pass recomputes activations inside the block, to the same bits.

    Paper: 2.4, "Sandwich LayerNorm", figure 3.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.placement = config.layer_norm
        self.checkpointing = False
        self.attention_input_norm: nn.Module = (
            layer_norm(config) if self.placement != "post" else nn.Identity()
        )
        self.attention = CausalSelfAttention(config)
        self.attention_output_norm: nn.Module = (
            layer_norm(config) if self.placement != "pre" else nn.Identity()
        )
        self.mlp_input_norm: nn.Module = layer_norm(config) if self.placement != "post" else nn.Identity()
        self.mlp = MLP(config)
        self.mlp_output_norm: nn.Module = layer_norm(config) if self.placement != "pre" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "b t d"], cache: LayerCache | None = None, pattern: Pattern = None
    ) -> Float[Tensor, "b t d"]:
        """Apply both residual branches; cache and pattern are the attention's."""
        # Inside the block: sharding hooks the block's call, which must not happen twice.
        if self.checkpointing and cache is None and torch.is_grad_enabled():
            return checkpoint(self._apply_branches, x, None, pattern, use_reentrant=False)
        return self._apply_branches(x, cache, pattern)

    def _apply_branches(
        self, x: Float[Tensor, "b t d"], cache: LayerCache | None, pattern: Pattern
    ) -> Float[Tensor, "b t d"]:
        return add_branches(
            x,
            self.placement,
            self,
            attention=lambda normed: self.dropout(self.attention(normed, cache, pattern)),
            mlp=lambda normed: self.dropout(self.mlp(normed)),
        )
