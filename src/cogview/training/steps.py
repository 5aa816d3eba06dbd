"""Training steps of a task on its device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cogview.image.exact_convolutions import exact_convolutions
from cogview.training.batches import MicroBatch
from cogview.training.config import ComputedPrecision, TrainingConfig
from cogview.training.parallel import check_module, parallelise
from cogview.training.precision import autocast, compiler_failure, resolve_precision
from cogview.training.processes import Processes, joined_processes
from cogview.training.progress import say
from cogview.training.stepper import Stepper
from cogview.training.task import Batch, Metrics, Task


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Result of a step.

    Args:
        learning_rate: AdamW's.
        losses: of each micro-batch, with its metrics.
        gradient_norm: of the whole gradient before clipping; None if it overflowed and the step was skipped.
    """

    learning_rate: float
    losses: Sequence[tuple[Float[Tensor, ""], Metrics]]
    gradient_norm: Float[Tensor, ""] | None


@contextmanager
def joined(task: Task, config: TrainingConfig) -> Iterator[tuple[Processes, ComputedPrecision]]:
    """Join the distributed processes, resolve the precision, and disable TF32 as it requires.

    Raises:
        UsageError: the device, or this number of processes, cannot train the task.
    """
    with joined_processes(config) as processes:
        precision = resolve_precision(config.precision, processes.device)
        check_module(task.module, config, processes)
        with exact_convolutions() if precision == "float32" else nullcontext():
            yield processes, precision


class Steps:
    """Takes training steps.

    Args:
        task: its module is moved to the device in place.
        config: of the training.
        precision: resolved from `config.precision`.
        processes: all that train.
    """

    def __init__(
        self, task: Task, config: TrainingConfig, precision: ComputedPrecision, processes: Processes
    ) -> None:
        parallelise(task.module, config, processes, precision)
        device = processes.device
        memory_format = torch.channels_last if task.channels_last else torch.preserve_format
        self.module = task.module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        self.stepper = Stepper(self.module, config, precision, processes)
        compiles = config.compile and processes.mesh is None
        self._loss_of = _compiled(task.loss, device) if compiles else task.loss
        self._config, self._precision, self._processes = config, precision, processes

    def take(self, step: int, micro_batches: Sequence[MicroBatch]) -> StepResult:
        """Take a step.

        Args:
            step: number of the batch; determines all randomness, with the run's seed.
            micro_batches: of that batch.
        """
        processes, config = self._processes, self._config
        _seed_generators(_step_seed(config.seed, step, processes.row_part), processes.device)
        learning_rate = self.stepper.set_learning_rates()
        losses = []
        for micro_batch in micro_batches:
            with autocast(self._precision, processes.device):
                loss, metrics = self._loss_of(micro_batch.tensors)
            # FSDP averages gradients over the row parts, where the sum is needed.
            self.stepper.backward(loss, micro_batch.weight * processes.num_row_parts)
            losses.append((loss.detach(), metrics))
        return StepResult(learning_rate=learning_rate, losses=losses, gradient_norm=self.stepper.step())


def _step_seed(seed: int, step: int, row_part: int) -> int:
    """Hash the numbers to one seed, so that no two steps, runs or row parts share randomness."""
    numbers = (seed, step, row_part) if row_part else (seed, step)
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and the device's.

    `torch.manual_seed` also formats the call stack for each kind of device that is not there, which takes up to
    milliseconds (PyTorch 2.13, `findings/a-seed-formats-the-call-stack.sh`).
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _compiled(
    loss: Callable[[Batch], tuple[Float[torch.Tensor, ""], Metrics]],
    device: torch.device,
) -> Callable[[Batch], tuple[Float[torch.Tensor, ""], Metrics]]:
    """Compile the loss, or return it unchanged with a message if compilation fails."""
    failure = compiler_failure(device)
    if failure is not None:
        say(f"Not compiling, so slower: torch.compile needs a C++ compiler, and here it says: {failure}")
        return loss
    say(
        "Compiling the loss: the first step takes longer. --training.no-compile does without, for short runs."
    )
    return torch.compile(loss, dynamic=False)
