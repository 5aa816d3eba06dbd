"""What the training loop needs to know of a stage: its module, its batches, its loss."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import nn

Batch: TypeAlias = Mapping[str, torch.Tensor]
"""Named tensors in host memory whose first axis counts the samples of the batch."""

Scalars: TypeAlias = dict[str, Float[torch.Tensor, ""]]
"""Named scalars, detached and left on their device: the loop reads them only when it logs."""


class Mean(NamedTuple):
    """A mean that does not depend on how a batch is cut: totals and weights are summed, and divided once.

    Args:
        total: the sum, by weight, over what the mean is of; detached and left on its device.
        weight: of all that is summed, mostly its number; may be 0 in a part of a batch.
    """

    total: Float[torch.Tensor, ""]
    weight: Float[torch.Tensor, ""] | float | int


Metrics: TypeAlias = dict[str, Mean]
"""Means over a batch or a part of it, by name."""


@runtime_checkable
class Task(Protocol):
    """One stage of the paper as the loop sees it: something that makes batches and scores them.

    Everything that changes while training lives in the parameters and persistent buffers of `module`, so
    that a checkpoint of the module and of the optimizer is a checkpoint of the task.
    """

    @property
    def module(self) -> nn.Module:
        """The module to train; the loop moves it to its device and calls its `train()`."""
        ...

    @property
    def channels_last(self) -> bool:
        """Whether convolutions dominate, so that weights and images are better laid out channels-last."""
        ...

    def batch(self, step: int) -> Batch:
        """Make the batch of a step, the same one each time it is asked.

        The loop calls this in a thread, one step ahead, so it must not draw from torch's or numpy's global
        generators: it builds its own from the seed and the step.

        Args:
            step: counts from 0.
        """
        ...

    def num_items(self, batch: Batch) -> tuple[float | int, str]:
        """Return over how many items the loss of this batch is a mean, by weight, and their plural ("tokens").

        The rate shown is items a second, and micro-batches are weighted by it, so that their accumulated
        gradients are those of the whole batch.

        Args:
            batch: a batch, or a micro-batch, in host memory.
        """
        ...

    def work(self, batch: Batch) -> Mapping[str, float]:
        """Return what a batch is counted in beside items: "tokens" and the model's "flops", or nothing.

        Args:
            batch: a batch, or a micro-batch, in host memory.
        """
        ...

    def loss(self, batch: Batch) -> tuple[Float[torch.Tensor, ""], Metrics]:
        """Return the loss to minimise, a mean over the batch's items, and means to log beside it.

        Each mean has a weight of its own, so that what is logged does not depend on the number of micro-batches.

        Called under autocast and perhaps compiled, so it does not read values back (no `.item()`).

        Args:
            batch: a batch, or a micro-batch, on the module's device.
        """
        ...

    def telemetry(self, batch: Batch) -> Scalars:
        """Return scalars that are looked at only when a line is logged; it draws no random numbers.

        Called under autocast like the loss, and after the step.

        Args:
            batch: the first micro-batch of the step, on the module's device. Of several processes each passes its
                own, and the figures of those with the first rows are logged.
        """
        ...

    def advice(self, completed_steps: int, metrics: Mapping[str, float]) -> list[str]:
        """Return what a person should be told before the run is wasted, each thing once; mostly nothing.

        Args:
            completed_steps: how far the run is.
            metrics: the line that is about to be logged.
        """
        ...

    def after_step(self, step: int) -> Scalars:
        """Do what follows the optimizer's step (a moving average, say) and return scalars to log, or none.

        They are those of the step, the same in all processes; their means over the steps are logged.

        Args:
            step: the step just done, counted from 0 like that of `batch`.
        """
        ...
