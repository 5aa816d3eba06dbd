"""What a run tells: means of its metrics, as a file of JSON lines, on TensorBoard and on the terminal."""

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


class MetricMeans:
    """Weighted means of scalars since the last reading, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Float[torch.Tensor, ""]], weight: float = 1.0) -> None:
        """Add one value of each metric."""
        for name, value in metrics.items():
            term = value.detach().float() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def read(self) -> dict[str, float]:
        """Return the means and begin anew."""
        means = {name: float(total) / self._weights[name] for name, total in self._sums.items()}
        self._sums, self._weights = {}, {}
        return means

    def state(self) -> dict[str, list[float]]:
        """Return sums and weights as plain numbers, exactly."""
        return {name: [float(total), self._weights[name]] for name, total in self._sums.items()}

    def load_state(self, state: Mapping[str, list[float]], device: torch.device) -> None:
        """Go on from what `state` returned."""
        self._sums = {name: torch.tensor(total, device=device) for name, (total, _) in state.items()}
        self._weights = {name: weight for name, (_, weight) in state.items()}


class MetricsLog:
    """Metrics as lines of JSON and, where it is installed, on TensorBoard.

    Args:
        run_folder: gets `metrics.jsonl` and `tensorboard/`.
        completed_steps: lines after this step are cut away, for the run goes on from there and writes them again.
    """

    def __init__(self, run_folder: Path, completed_steps: int) -> None:
        self._run_folder, self._path = run_folder, run_folder / "metrics.jsonl"
        self._tensorboard: Any = None
        self.rewind(completed_steps)

    def rewind(self, completed_steps: int) -> None:
        """Cut away the lines after a step."""
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
        """Append a line; if the disk is full, it is kept and written with the next one.

        Raises:
            OSError: the line could not be written now.
        """
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
        """Have the lines on the disk before a checkpoint that counts on them."""
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


def read_scalars(metrics: Mapping[str, Float[torch.Tensor, ""]]) -> dict[str, float]:
    """Return scalars of a device as numbers, waiting for it once."""
    if not metrics:
        return {}
    values = torch.stack([value.detach().float() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Return the lines of a file of metrics; a last line cut short by a kill is left out, and so is a missing file.

    Values that were not finite are null in the file and NaN here.
    """
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
            lines.append({name: math.nan if value is None else value for name, value in values.items()})
        except ValueError:
            continue
    return lines


def _encode(line: Mapping[str, int | float]) -> bytes:
    finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
    return json.dumps(finite, ensure_ascii=False).encode() + b"\n"
