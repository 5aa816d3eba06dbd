"""Muon: momentum with orthogonalised updates, in a dtype that the device computes fast.

PyTorch's Muon orthogonalises in bfloat16, one matrix at a time. On a CPU without bfloat16 instructions that is eight
times slower than float32, and costs more than the rest of the step. This one uses the run's precision and batches all
matrices of a shape. The results are otherwise PyTorch's, whose Muon overwrites bfloat16 moments if it is used without
Nesterov momentum (torch 2.13).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cogview.training.parallel import local, part_of, whole

# The quintic a x + b x^3 + c x^5 whose iteration takes singular values in (0, 1] fastest to about 1.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_NUM_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay, for matrices only.

    Every process gathers each sharded matrix, since only a whole one can be orthogonalised, and updates its own shard.
    Moments stay sharded.

    Args:
        matrices: parameters with two dimensions.
        lr: step of a square matrix in every direction; matrices with more rows than columns step further, by the square
            root of that ratio.
        weight_decay: a matrix shrinks by `lr * weight_decay` per step.
        momentum: decay rate of the mean gradient.
        dtype: of the orthogonalisation.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient; a closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if isinstance(parameter, DTensor):
                    self._move_part(parameter, group)
                elif parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                means = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                updates = orthogonal(means, self._dtype)
                distance = _distance(group["lr"], shape)
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-distance)

    def _move_part(self, parameter: DTensor, group: Mapping[str, Any]) -> None:
        """Update one sharded matrix; one at a time, since all of them may not fit."""
        mean = whole(self._momentum(parameter, group["momentum"]))
        update = orthogonal(mean[None], self._dtype)[0]
        part = local(parameter)
        part.mul_(1 - group["lr"] * group["weight_decay"])
        part.add_(part_of(update, parameter), alpha=-_distance(group["lr"], parameter.shape))

    def _momentum(self, parameter: Tensor, decay: float) -> Tensor:
        """Add the gradient to the mean, and return Nesterov's look-ahead."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - decay)
        return parameter.grad.lerp(mean, decay)


def _distance(rate: float, shape: torch.Size) -> float:
    return rate * math.sqrt(max(1.0, shape[0] / shape[1]))


def orthogonal(matrices: Float[Tensor, "n i o"], dtype: torch.dtype) -> Float[Tensor, "n i o"]:
    """Return matrices with the same singular vectors and singular values of about 1 (0.7 to 1.2), by Newton-Schulz.

    Args:
        matrices: of one shape.
        dtype: of the products; bfloat16 is precise enough.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    x = x.to(dtype)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
    return (x.mT if is_tall else x).to(matrices.dtype)
