"""One transformer block: attention and MLP, each a residual branch between two LayerNorms."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cogview.transformer.attention import CausalSelfAttention
from cogview.transformer.cache import LayerCache
from cogview.transformer.config import TransformerConfig
from cogview.transformer.normalization import RelaxedLayerNorm
from cogview.transformer.three_region import Regions


def layer_norm(config: TransformerConfig) -> RelaxedLayerNorm:
    """Return one LayerNorm of the model's width."""
    return RelaxedLayerNorm(config.hidden_size, config.norm_scope, config.layer_norm_epsilon)


class MLP(nn.Module):
    """Two linear maps with a GELU (tanh form) between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.mlp_factor * config.hidden_size)
        self.output = nn.Linear(config.mlp_factor * config.hidden_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Map every token by itself."""
        return self.output(F.gelu(self.inner(x), approximate="tanh"))


class SandwichBlock(nn.Module):
    """x + LN(attention(LN(x))), then the same with the MLP.

    The second LayerNorm bounds what a branch adds to the main branch, whatever the branch's scale. The rivals
    `pre` and `post` of `config.layer_norm` drop one of the two, and exist to be compared with.

    Attributes:
        checkpointing: whether the backward pass computes what lies within the block again, to the same bits, instead of
            keeping it from the forward pass.

    Paper: 2.4, "Sandwich LayerNorm", figure 3.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.placement = config.layer_norm
        self.checkpointing = False
        self.attention_input_norm = layer_norm(config) if self.placement != "post" else nn.Identity()
        self.attention = CausalSelfAttention(config)
        self.attention_output_norm = layer_norm(config) if self.placement != "pre" else nn.Identity()
        self.mlp_input_norm = layer_norm(config) if self.placement != "post" else nn.Identity()
        self.mlp = MLP(config)
        self.mlp_output_norm = layer_norm(config) if self.placement != "pre" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "b t d"], cache: LayerCache | None = None, regions: Regions | None = None
    ) -> Float[Tensor, "b t d"]:
        """Apply both residual branches; cache and regions are the attention's."""
        # Within the block and not around it: what shards a block hooks its call, and is not to be called again.
        if self.checkpointing and cache is None and torch.is_grad_enabled():
            return checkpoint(self._apply_branches, x, None, regions, use_reentrant=False)
        return self._apply_branches(x, cache, regions)

    def _apply_branches(
        self, x: Float[Tensor, "b t d"], cache: LayerCache | None, regions: Regions | None
    ) -> Float[Tensor, "b t d"]:
        if self.placement == "post":
            x = self.attention_output_norm(x + self.dropout(self.attention(x, cache, regions)))
            return self.mlp_output_norm(x + self.dropout(self.mlp(x)))
        attended = self.attention(self.attention_input_norm(x), cache, regions)
        x = x + self.attention_output_norm(self.dropout(attended))
        mapped = self.mlp(self.mlp_input_norm(x))
        return x + self.mlp_output_norm(self.dropout(mapped))
