"""Interface between the training loop and a stage: module, batches and loss."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import nn

Batch: TypeAlias = Mapping[str, torch.Tensor]
"""Named tensors in host memory; the first axis counts the samples."""

Scalars: TypeAlias = dict[str, Float[torch.Tensor, ""]]
"""Named scalars, detached and on their device: the loop reads them only when it logs."""


class Mean(NamedTuple):
    """A mean as total and weight, summed over parts and divided once, so cutting a batch does not change it.

    Args:
        total: weighted sum; detached and on its device.
        weight: total weight, usually the count; may be 0 in a part of a batch.
    """

    total: Float[torch.Tensor, ""]
    weight: Float[torch.Tensor, ""] | float | int


Metrics: TypeAlias = dict[str, Mean]
"""Means over a batch or a part of it, by name."""


@runtime_checkable
class Task(Protocol):
    """A stage of the paper: makes batches and computes their loss.

    All state that training changes is in the parameters and persistent buffers of `module`, so a checkpoint of the
    module and the optimizers is a checkpoint of the task.
    """

    @property
    def module(self) -> nn.Module:
        """Module to train; the loop moves it to the device and calls its `train()`."""
        ...

    @property
    def channels_last(self) -> bool:
        """Whether weights and images are laid out channels-last, which is faster if convolutions dominate."""
        ...

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, the same at each call.

        Called in a thread, one step ahead, so it must not use the global generators of torch or numpy, but its own,
        seeded by the seed and the step.

        Args:
            step: counts from 0.
        """
        ...

    def num_items(self, batch: Batch) -> tuple[float | int, str]:
        """Return the total weight of the items that the loss averages over, and their plural name ("tokens").

        It gives the logged rate, and the weights of micro-batches, so that accumulated gradients are those of the
        batch.

        Args:
            batch: a batch, or a micro-batch, in host memory.
        """
        ...

    def work(self, batch: Batch) -> Mapping[str, float]:
        """Return other counts of a batch: "tokens" and the model's "flops", or nothing.

        Args:
            batch: a batch, or a micro-batch, in host memory.
        """
        ...

    def loss(self, batch: Batch) -> tuple[Float[torch.Tensor, ""], Metrics]:
        """Return the mean loss over the batch's items, and means to log.

        Each mean has its own weight, so logs do not depend on the number of micro-batches. Called under autocast and
        perhaps compiled, so it must not read values back (no `.item()`).

        Args:
            batch: a batch, or a micro-batch, on the module's device.
        """
        ...

    def telemetry(self, batch: Batch) -> Scalars:
        """Return scalars computed only when a line is logged, without drawing random numbers.

        Called under autocast like the loss, after the step.

        Args:
            batch: the step's first micro-batch, on the module's device. Of several processes, the largest values of
                those with the first rows are logged.
        """
        ...

    def advice(self, completed_steps: int, metrics: Mapping[str, float]) -> list[str]:
        """Return problems to tell the user before the run is wasted, each once; usually none.

        Args:
            completed_steps: so far.
            metrics: the line to be logged.
        """
        ...

    def after_step(self, step: int) -> Scalars:
        """Do what follows the optimizer's step, such as a moving average, and return scalars to log, if any.

        They must be equal in all processes; their means over the steps are logged.

        Args:
            step: the completed step, counted from 0.
        """
        ...
