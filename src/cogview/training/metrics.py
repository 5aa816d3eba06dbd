"""Metrics of a run: means, the file of JSON lines, and TensorBoard."""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float

from cogview.files import atomic_write_bytes
from cogview.training.processes import Processes
from cogview.training.task import Metrics


class MetricMeans:
    """Means since the last reading, kept on the device so that no step waits for it.

    Totals and weights are summed over micro-batches, steps, processes and resumes, and divided once, in float64.
    Processes communicate alike whatever names each has added.
    """

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor | float] = {}

    def add(self, metrics: Metrics) -> None:
        """Add part of each mean, of rows that only this process and its tensor-parallel group have."""
        for name, (total, weight) in metrics.items():
            self._add(name, total, weight)

    def add_common(self, scalars: Mapping[str, Float[torch.Tensor, ""]], processes: Processes) -> None:
        """Add a step's values that are equal in all processes, once."""
        if processes.row_part == 0:
            for name, value in scalars.items():
                self._add(name, value, 1.0)

    def _add(self, name: str, total: torch.Tensor, weight: torch.Tensor | float | int) -> None:
        total = total.detach().double()
        weight = weight.detach().double() if isinstance(weight, torch.Tensor) else float(weight)
        self._totals[name] = self._totals[name] + total if name in self._totals else total
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def read(self, processes: Processes) -> dict[str, float]:
        """Return the means over all processes and reset them; an empty mean is NaN."""
        means = {
            name: total / weight if weight else math.nan
            for name, (total, weight) in self.state(processes).items()
        }
        self._totals, self._weights = {}, {}
        return means

    def state(self, processes: Processes) -> dict[str, list[float]]:
        """Return totals and weights over all processes as exact plain numbers."""
        weights = read_scalars(self._weights)
        return processes.sums(
            {name: [total, weights[name]] for name, total in read_scalars(self._totals).items()}
        )

    def load_state(
        self, state: Mapping[str, list[float]], device: torch.device, processes: Processes
    ) -> None:
        """Restore what `state` returned, in the first process only, since it is of all processes."""
        mine = state if processes.is_first else {}
        self._totals = {
            name: torch.tensor(total, device=device, dtype=torch.float64) for name, (total, _) in mine.items()
        }
        self._weights = {name: weight for name, (_, weight) in mine.items()}


class MetricsLog:
    """Log of metrics, as JSON lines and, if installed, on TensorBoard.

    Args:
        run_folder: gets `metrics.jsonl` and `tensorboard/`.
        completed_steps: later lines are deleted, since the resumed run writes them again.
        silent: write nothing, since another process does.
    """

    def __init__(self, run_folder: Path, completed_steps: int, silent: bool = False) -> None:
        self._silent = silent
        self._run_folder, self._path = run_folder, run_folder / "metrics.jsonl"
        self._tensorboard: Any = None
        self.rewind(completed_steps)

    def rewind(self, completed_steps: int) -> None:
        """Delete the lines after a step."""
        if self._silent:
            return
        kept = [line for line in read_metrics(self._path) if line["step"] <= completed_steps]
        atomic_write_bytes(self._path, b"".join(map(_encode, kept)))
        self._unwritten = b""
        self._close()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._tensorboard = SummaryWriter(
            str(self._run_folder / "tensorboard"), purge_step=completed_steps + 1
        )

    def write(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Append a line; if the disk is full, it is written with the next one.

        Raises:
            OSError: the line could not be written now.
        """
        if self._silent:
            return
        self._unwritten += _encode({"step": step, **metrics})
        with self._path.open("ab", buffering=0) as file:
            size = file.tell()
            if file.write(self._unwritten) < len(self._unwritten):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._unwritten = b""
        if self._tensorboard is not None:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()

    def sync(self) -> None:
        """Sync the lines to disk, before a checkpoint that depends on them."""
        if self._silent:
            return
        with self._path.open("ab") as file:
            os.fsync(file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_scalars(scalars: Mapping[str, Float[torch.Tensor, ""] | float]) -> dict[str, float]:
    """Return device scalars as exact numbers, in one transfer."""
    numbers = {name: value for name, value in scalars.items() if not isinstance(value, torch.Tensor)}
    tensors = {name: value for name, value in scalars.items() if isinstance(value, torch.Tensor)}
    if tensors:
        read = torch.stack([value.detach().double() for value in tensors.values()]).tolist()
        numbers.update(zip(tensors, read, strict=True))
    return numbers


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Return the lines of a metrics file, without invalid ones or a last one cut short; none if it is missing.

    Values that were not finite are null in the file and NaN here.
    """
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            numbers = {name: math.nan if value is None else value for name, value in values.items()}
            lines.append({name: value for name, value in numbers.items() if isinstance(value, int | float)})
    return lines


def _encode(line: Mapping[str, int | float]) -> bytes:
    finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
    return json.dumps(finite, ensure_ascii=False).encode() + b"\n"
