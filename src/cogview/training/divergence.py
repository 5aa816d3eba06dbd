"""Whether a run goes wrong: losses that are not finite, or leap."""

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
_SIGMAS_PER_DEVIATION = 1.4826  # of a normal distribution
_LEAST_DEVIATION = 0.01  # of the median: losses that hardly vary leap all the time


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """The first step that went wrong.

    Args:
        step: counts from 0.
        loss: if it leapt: the loss and the median of those before.
    """

    step: int
    loss: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.loss is None:
            return f"The loss or its gradient became infinite or NaN in step {self.step + 1}"
        return f"The loss leapt to {self.loss[0]:.4g} in step {self.step + 1}, where {self.loss[1]:.4g} had been usual"


class LossWatch:
    """Finds the first loss that is not finite or leaps; losses stay on the device until they are asked about.

    Whether a step leaps depends on the losses before it alone, not on when it is asked.

    Args:
        spike_threshold: how many deviations above the median a loss leaps; None to let it.
    """

    def __init__(self, spike_threshold: float | None) -> None:
        self._threshold = spike_threshold
        self._usual: deque[float] = deque(maxlen=_NUM_REMEMBERED)
        self._unread: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Float[Tensor, ""], gradient_norm: Float[Tensor, ""]) -> None:
        """Note what a step came to."""
        self._unread.append((step, torch.stack([loss.detach().float(), gradient_norm.detach().float()])))

    def read(self, processes: Processes | None = None) -> Trouble | None:
        """Wait for the device and return the first trouble since the last reading.

        Args:
            processes: all that train, each with its rows' share of the losses; one alone if None.
        """
        values = torch.stack([value for _, value in self._unread]).tolist() if self._unread else []
        own = {step: value for (step, _), value in zip(self._unread, values, strict=True)}
        self._unread = []
        # All look at the same numbers, so that all decide alike; a sum of norms is finite if they are.
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
        """Go on from what `state` returned."""
        self._usual, self._unread = deque(state, maxlen=_NUM_REMEMBERED), []


class Detours:
    """How often a run went back to a checkpoint, and how much of its data it has left out since.

    Args:
        max_rollbacks: how often it may.
    """

    def __init__(self, max_rollbacks: int) -> None:
        self._max_rollbacks = max_rollbacks
        self.num_rollbacks = 0
        self.skipped_batches = 0
        """How much later in the data a step reads than in a run without trouble."""

    def check(self, trouble: Trouble) -> None:
        """Allow one more rollback, or end the run.

        Raises:
            CogViewError: there were as many as there may be.
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
        """Leave out the data from a checkpoint to the trouble, and return what to tell of it."""
        num_batches = trouble.step + 1 - checkpoint_step
        self.num_rollbacks += 1
        self.skipped_batches += num_batches
        return (
            f"{trouble}: back to step {checkpoint_step} (rollback {self.num_rollbacks} of {self._max_rollbacks}), "
            f"leaving out the next {f'{num_batches} batches' if num_batches > 1 else 'batch'}."
        )

    def state(self) -> dict[str, int]:
        """Return both numbers."""
        return {"num_rollbacks": self.num_rollbacks, "skipped_batches": self.skipped_batches}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.num_rollbacks, self.skipped_batches = state["num_rollbacks"], state["skipped_batches"]
