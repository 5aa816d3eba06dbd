"""From losses to new weights: loss scale, master weights, clipping and the optimizers."""

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
    """Does the second half of a step: the gradients of its micro-batches, and what is made of them.

    With an `_o2` precision the module's parameters are of half precision between steps, so that all that is computed
    with them is; `float32_weights` shows the masters in their place. With float16_o2, `step` waits for the device to
    learn whether the gradient overflowed; nothing else here does. A module that is spread over processes keeps masters
    in its shards, and what gathers them for a block rounds them.

    Args:
        module: what is trained, on its device.
        config: how.
        precision: what `config.precision` came to.
        processes: all that train, which skip the same steps; one alone if None.
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
        """Give the optimizers their rates of the next step, and return AdamW's."""
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
        """Clip the gradient, take the step and forget the gradient.

        Returns:
            The norm of the whole gradient before clipping, not scaled; None if it overflowed and the step was skipped.
            If it overflowed at the smallest scale there is, the step is skipped too, and the norm is what it is.
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
        """Have the module's parameters in float32 for a block, which may change them."""
        if self._masters is None:
            yield
            return
        self._masters.show()
        try:
            yield
        finally:
            self._masters.halve()

    def close(self) -> None:
        """Leave the module with its parameters in float32."""
        if self._masters is not None:
            self._masters.show()

    def read(self) -> dict[str, float]:
        """Return what is worth a look in a run with a loss scale: the scale and the overflows so far."""
        return {} if self._scale is None else {"loss_scale": self._scale.value, "overflows": self.overflows}

    def state(self) -> dict[str, Any]:
        """Return what a resume needs beside weights and optimizers, as plain numbers."""
        scale = None if self._scale is None else self._scale.state()
        return {"applied_steps": self.applied_steps, "overflows": self.overflows, "loss_scale": scale}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.applied_steps, self.overflows = state["applied_steps"], state["overflows"]
        if self._scale is not None:
            self._scale.load_state(state["loss_scale"])


class MasterWeights:
    """Parameters in float32 and once more in half precision, of which the module has one kind at a time.

    Buffers stay as they are.

    Args:
        module: its parameters are the masters; afterwards it has the others.
        dtype: of the others.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._parameters = list(module.parameters())  # tied ones once
        self._masters = [parameter.data for parameter in self._parameters]
        self._halves = [master.to(dtype) for master in self._masters]
        self._gradients: list[Tensor | None] = [None] * len(self._parameters)
        self.halve()

    def add_gradients(self, factor: float) -> None:
        """Move the gradients of half precision, times a factor, into the float32 sums."""
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float().mul_(factor)
            parameter.grad = (
                None  # at once: all of them beside all of the sums would be two more bytes a weight
            )
            earlier = self._gradients[index]
            self._gradients[index] = gradient if earlier is None else earlier.add_(gradient)

    def show(self) -> None:
        """Give the module the masters, and the sums of their gradients."""
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            parameter.grad = None
            parameter.data = master
        for index, parameter in enumerate(self._parameters):
            parameter.grad, self._gradients[index] = self._gradients[index], None

    def halve(self) -> None:
        """Round the masters and give the module what comes of it."""
        for parameter, master, half in zip(self._parameters, self._masters, self._halves, strict=True):
            assert parameter.grad is None, "a gradient would be of another kind than its parameter"
            parameter.data = half.copy_(master)
