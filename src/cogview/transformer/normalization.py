"""LayerNorm with PB-Relax: divide by the largest magnitude first, so that nothing overflows in fp16."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class RelaxedLayerNorm(nn.LayerNorm):
    """LayerNorm(x) computed as LayerNorm(x / max|x|).

    LayerNorm does not change when its input is scaled, but the sums of squares inside it overflow fp16 for
    large inputs; after the division they cannot. With scope `token` every token is divided by its own
    maximum, so that no token's value depends on another's. A row's variance may then be as small as
    1 / width, against which an epsilon of 1e-5 counts (1.3 % at width 2,560). So that scope divides epsilon by
    the width. With scope `tensor` one maximum over the whole tensor / 8 is used and
    epsilon is left alone: that is what the released weights were trained with.

    Args:
        width: size of the last dimension.
        scope: over what the maximum is taken; `none` is a plain LayerNorm.
        epsilon: added to the variance.

    Paper: 2.4, "Precision Bottleneck Relaxation".
    """

    def __init__(self, width: int, scope: Literal["token", "tensor", "none"], epsilon: float) -> None:
        super().__init__(width, eps=epsilon / width if scope == "token" else epsilon)
        self.scope = scope

    def forward(self, input: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalise the last dimension."""
        if self.scope != "none":
            magnitude = input.detach().abs()
            if self.scope == "token":
                largest = magnitude.amax(dim=-1, keepdim=True)
            else:
                largest = magnitude.amax() / 8
            # A row of zeros stays zeros.
            input = input / largest.clamp(min=torch.finfo(input.dtype).tiny)
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def rowwise_epsilon(module: RelaxedLayerNorm) -> float:
    """Return the epsilon of a norm of rows in fp32; see `rowwise_norm`."""
    return 1e-30 if module.scope == "token" else module.eps  # only so that a row of zeros stays zeros


def rowwise_norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a norm as a function of rows [n d] of any floating dtype to fp32, each row independent.

    In fp32 nothing overflows, so the division by the largest magnitude m can be left out: with scope `token`
    LayerNorm(x / m) with epsilon / width is LayerNorm(x) with epsilon m^2 / width, at most half of epsilon away from
    LayerNorm(x) without one. With scope `tensor` epsilon is too large for that; the maximum is then taken over each
    row, which is the whole tensor when one sequence is decoded, and does not couple sequences.

    Args:
        module: a `RelaxedLayerNorm`, with its current weights; anything else becomes the identity.
    """
    if not isinstance(module, RelaxedLayerNorm):
        return lambda x: x.float()
    shape, epsilon = list(module.normalized_shape), rowwise_epsilon(module)
    weight, bias = module.weight.detach().float(), module.bias.detach().float()
    if module.scope == "tensor":
        tiny = torch.finfo(torch.float32).tiny

        def relaxed(x: Tensor) -> Tensor:
            x = x.float()
            largest = x.abs().amax(dim=-1, keepdim=True) / 8
            return torch.layer_norm(x / largest.clamp(min=tiny), shape, weight, bias, epsilon)

        return relaxed
    return lambda x: torch.layer_norm(x.float(), shape, weight, bias, epsilon)
