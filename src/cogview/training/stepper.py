"""Optimizer step: loss scale, master weights, gradient clipping and the optimizers."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cogview.training.config import ComputedPrecision, TrainingConfig
from cogview.training.loss_scale import LossScale
from cogview.training.optimizer import build_optimizers, set_learning_rates
from cogview.training.parallel import clip_gradients, is_spread, local
from cogview.training.precision import master_weights_dtype
from cogview.training.processes import Processes


class Stepper:
    """Backward passes of the micro-batches, and the optimizer step.

    With an `_o2` precision, the parameters are in half precision between steps; `float32_weights` swaps in the masters.
    With float16_o2, `step` waits for the device to know whether the gradient overflowed; nothing else here waits. A
    sharded module keeps masters in its shards and rounds them as they are gathered.

    Args:
        module: on its device.
        config: of the training.
        precision: resolved from `config.precision`.
        processes: all that train, which skip the same steps; None for one.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainingConfig,
        precision: ComputedPrecision,
        processes: Processes | None = None,
    ) -> None:
        self._module, self._config = module, config
        self._processes = processes or Processes(device=torch.device("cpu"))
        self.optimizers = build_optimizers(module, config, precision)
        dtype = None if is_spread(module) else master_weights_dtype(precision)
        self._masters = None if dtype is None else MasterWeights(module, dtype)
        self._scale = LossScale(config.loss_scale) if precision == "float16_o2" else None
        self.applied_steps = 0
        """Steps that have moved the weights: what the schedule counts."""
        self.overflows = 0
        """Steps skipped because their gradient overflowed."""

    def set_learning_rates(self) -> float:
        """Set the rates of the next step, and return AdamW's."""
        return set_learning_rates(self.optimizers, self.applied_steps, self._config)

    def backward(self, loss: Float[Tensor, ""], weight: float) -> None:
        """Add the gradient of a micro-batch.

        Args:
            loss: of the micro-batch.
            weight: its share of the batch.
        """
        scale = 1.0 if self._scale is None else self._scale.value
        if self._masters is None:
            torch.autograd.backward(loss * (weight * scale))
            return
        torch.autograd.backward(loss * scale)
        self._masters.add_gradients(weight / scale)

    def step(self) -> Float[Tensor, ""] | None:
        """Clip the gradient, step, and reset the gradient.

        Returns:
            The unscaled norm of the whole gradient before clipping; None if it overflowed and the step was skipped.
            After an overflow at the smallest scale, the step is skipped too, and the non-finite norm returned.
        """
        if self._masters is not None:
            self._masters.show()
        elif self._scale is not None:
            gradients = [local(p.grad) for p in self._module.parameters() if p.grad is not None]
            torch._foreach_div_(gradients, self._scale.value)
        norm = clip_gradients(self._module.parameters(), self._config.gradient_clip or math.inf)
        overflowed = False
        if self._scale is not None:
            overflowed = self._processes.any(not math.isfinite(float(norm)))
            self._scale.update(overflowed)
        for optimizer in self.optimizers:
            if not overflowed:
                optimizer.step()
            optimizer.zero_grad()
        if self._masters is not None:
            self._masters.halve()
        if not overflowed:
            self.applied_steps += 1
            return norm
        self.overflows += 1
        return norm if self._scale is not None and self._scale.is_exhausted else None

    @contextmanager
    def float32_weights(self) -> Iterator[None]:
        """Give the module float32 parameters, which may be changed, within a block."""
        if self._masters is None:
            yield
            return
        self._masters.show()
        try:
            yield
        finally:
            self._masters.halve()

    def close(self) -> None:
        """Leave the module with float32 parameters."""
        if self._masters is not None:
            self._masters.show()

    def read(self) -> dict[str, float]:
        """Return the loss scale and the overflows so far, if there is a loss scale."""
        return {} if self._scale is None else {"loss_scale": self._scale.value, "overflows": self.overflows}

    def state(self) -> dict[str, Any]:
        """Return plain numbers that a resume needs beside weights and optimizers."""
        scale = None if self._scale is None else self._scale.state()
        return {"applied_steps": self.applied_steps, "overflows": self.overflows, "loss_scale": scale}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.applied_steps, self.overflows = state["applied_steps"], state["overflows"]
        if self._scale is not None:
            self._scale.load_state(state["loss_scale"])


class MasterWeights:
    """Float32 masters of parameters in half precision; the module has one kind at a time.

    Buffers stay as they are.

    Args:
        module: its parameters become the masters, replaced by copies in half precision.
        dtype: of the copies.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._parameters = list(module.parameters())  # tied ones once
        self._masters = [parameter.data for parameter in self._parameters]
        self._halves = [master.to(dtype) for master in self._masters]
        self._gradients: list[Tensor | None] = [None] * len(self._parameters)
        self.halve()

    def add_gradients(self, factor: float) -> None:
        """Move the half-precision gradients, times a factor, into the float32 sums."""
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float().mul_(factor)
            parameter.grad = None  # freed at once, to save two bytes per weight
            earlier = self._gradients[index]
            self._gradients[index] = gradient if earlier is None else earlier.add_(gradient)

    def show(self) -> None:
        """Give the module the masters with their gradient sums."""
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            parameter.grad = None
            parameter.data = master
        for index, parameter in enumerate(self._parameters):
            parameter.grad, self._gradients[index] = self._gradients[index], None

    def halve(self) -> None:
        """Round the masters and give the module the copies."""
        for parameter, master, half in zip(self._parameters, self._masters, self._halves, strict=True):
            assert parameter.grad is None, "a gradient would be of another kind than its parameter"
            parameter.data = half.copy_(master)
