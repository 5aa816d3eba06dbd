"""Detection of divergence (losses that are not finite, or spike), and rollbacks."""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cogview.errors import CogViewError
from cogview.training.processes import Processes

_NUM_REMEMBERED = 128
_NUM_NEEDED = 64
_SIGMAS_PER_DEVIATION = 1.4826  # of a normal distribution, relative to its median deviation
_LEAST_DEVIATION = 0.01  # of the median: nearly constant losses would spike all the time


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """The first step that diverged.

    Args:
        step: counts from 0.
        loss: of a spike: the loss and the median of those before.
    """

    step: int
    loss: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.loss is None:
            return f"The loss or its gradient became infinite or NaN in step {self.step + 1}"
        return f"The loss spiked to {self.loss[0]:.4g} in step {self.step + 1}, from a median of {self.loss[1]:.4g}"


class LossWatch:
    """Finds the first loss that is not finite or spikes; losses stay on the device until read.

    Whether a step spikes depends on earlier losses alone, not on when they are read.

    Args:
        spike_threshold: deviations above the median that make a spike; None to ignore spikes.
    """

    def __init__(self, spike_threshold: float | None) -> None:
        self._threshold = spike_threshold
        self._usual: deque[float] = deque(maxlen=_NUM_REMEMBERED)
        self._unread: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Float[Tensor, ""], gradient_norm: Float[Tensor, ""]) -> None:
        """Record the loss and gradient norm of a step."""
        self._unread.append((step, torch.stack([loss.detach().float(), gradient_norm.detach().float()])))

    def read(self, processes: Processes | None = None) -> Trouble | None:
        """Wait for the device and return the first trouble since the last reading.

        Args:
            processes: all that train, each with its rows' share of the losses; None for one.
        """
        values = torch.stack([value for _, value in self._unread]).tolist() if self._unread else []
        own = {step: value for (step, _), value in zip(self._unread, values, strict=True)}
        self._unread = []
        # All processes use the same sums, so all decide alike; a sum of norms is finite if each is.
        for step, (loss, gradient_norm) in sorted((processes.sums(own) if processes else own).items()):
            if not math.isfinite(loss + gradient_norm):
                return Trouble(step=step)
            if self._threshold is None:
                continue
            if len(self._usual) >= _NUM_NEEDED:
                median = statistics.median(self._usual)
                deviation = _SIGMAS_PER_DEVIATION * statistics.median(abs(x - median) for x in self._usual)
                if loss > median + self._threshold * max(deviation, _LEAST_DEVIATION * abs(median)):
                    return Trouble(step=step, loss=(loss, median))
            self._usual.append(loss)
        return None

    def state(self) -> list[float]:
        """Return the losses that later ones are compared with; all must have been read."""
        assert not self._unread
        return list(self._usual)

    def load_state(self, state: list[float]) -> None:
        """Restore what `state` returned."""
        self._usual, self._unread = deque(state, maxlen=_NUM_REMEMBERED), []


class Detours:
    """Number of rollbacks and of batches skipped by them.

    Args:
        max_rollbacks: most rollbacks allowed.
    """

    def __init__(self, max_rollbacks: int) -> None:
        self._max_rollbacks = max_rollbacks
        self.num_rollbacks = 0
        self.skipped_batches = 0
        """Offset of a step's batch from that of a run without rollbacks."""

    def check(self, trouble: Trouble) -> None:
        """Allow one more rollback, or end the run.

        Raises:
            CogViewError: no rollback is left.
        """
        if self.num_rollbacks < self._max_rollbacks:
            return
        if not self.num_rollbacks:
            tried, again = "", "resume the run with max_rollbacks 3, say"
        else:
            tried = f", after {self.num_rollbacks} rollbacks, which is max_rollbacks"
            again = "resume the run with a larger max_rollbacks"
        raise CogViewError(
            f"{trouble}{tried}; the last checkpoint is kept. Either start again, in another run folder, with a lower "
            "learning_rate, a longer warm-up or precision float32 (a resume keeps the numbers of its start); or "
            f"{again}: it goes back to that checkpoint and leaves out the data from there to the trouble."
        )

    def add(self, trouble: Trouble, checkpoint_step: int) -> str:
        """Skip the data from a checkpoint to the trouble, and return a message."""
        num_batches = trouble.step + 1 - checkpoint_step
        self.num_rollbacks += 1
        self.skipped_batches += num_batches
        return (
            f"{trouble}: back to step {checkpoint_step} (rollback {self.num_rollbacks} of {self._max_rollbacks}), "
            f"leaving out the next {f'{num_batches} batches' if num_batches > 1 else 'batch'}."
        )

    def state(self) -> dict[str, int]:
        """Return both counts as plain numbers."""
        return {"num_rollbacks": self.num_rollbacks, "skipped_batches": self.skipped_batches}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.num_rollbacks, self.skipped_batches = state["num_rollbacks"], state["skipped_batches"]
