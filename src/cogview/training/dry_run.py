"""Dry run: two steps that measure a run's memory and time and write nothing."""

import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from cogview.decoding.memory import peak_resident_bytes, resident_bytes
from cogview.training.batches import prefetched_batches
from cogview.training.config import TrainingConfig
from cogview.training.steps import Steps, joined
from cogview.training.task import Task

NUM_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Cost of two steps on this machine, in the process with the highest peak.

    Args:
        device: of the steps.
        peak_bytes: peak memory: allocated by PyTorch on a GPU, resident on a CPU.
        bytes_before: memory before, without the module; on a CPU, libraries and data.
        first_step_seconds: of the first step, with compilation and optimizer state.
        step_seconds: of the last step, with the wait for its batch.
        num_steps: of the whole run.
    """

    device: torch.device
    peak_bytes: int
    bytes_before: int
    first_step_seconds: float
    step_seconds: float
    num_steps: int

    @property
    def hours(self) -> float:
        """Hours of all steps at this pace, without sample sheets, checkpoints and evaluation."""
        return self.num_steps * self.step_seconds / 3600


def take_two_steps(task: Task, config: TrainingConfig) -> DryRun:
    """Take the last two steps of a run from the task's current weights, and write nothing.

    The last ones, since what starts late in a run (whole pictures, a discriminator) takes more memory.

    Args:
        task: the stage; its weights change.
        config: of the training.

    Raises:
        UsageError: the device, or this number of processes, cannot train it.
    """
    with joined(task, config) as (processes, precision):
        device = processes.device
        bytes_before = _start_peak(device)
        if device.type == "cpu":  # a GPU does not hold the module yet
            module_bytes = sum(tensor.nbytes for tensor in task.module.state_dict().values())
            bytes_before = max(0, bytes_before - module_bytes)
        steps = Steps(task, config, precision, processes)
        steps.module.train()
        numbers = range(max(0, config.num_steps - NUM_STEPS), config.num_steps)
        rows = processes.row_part, processes.num_row_parts
        seconds = []
        with closing(prefetched_batches(task, numbers, config.num_micro_batches, device, *rows)) as batches:
            for number in numbers:
                start = time.perf_counter()
                if steps.take(number, next(batches)).gradient_norm is not None:
                    task.after_step(number)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - start)
        mine = DryRun(
            device=device,
            peak_bytes=max(bytes_before, _peak_bytes(device)),  # Linux counts some pages late
            bytes_before=bytes_before,
            first_step_seconds=seconds[0],
            step_seconds=seconds[-1],
            num_steps=config.num_steps,
        )
        steps.stepper.close()
        return max(processes.gather(mine), key=lambda each: each.peak_bytes - each.bytes_before)


def _start_peak(device: torch.device) -> int:
    """Reset the peak, and return the current memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # Linux only; elsewhere the peak includes earlier work
        Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()
