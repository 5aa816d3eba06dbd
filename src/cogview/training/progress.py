"""Progress and speed of a run."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

from cogview.errors import printable


def say(line: str) -> None:
    """Print a line to stderr above any progress bar."""
    tqdm.write(printable(line), file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """Progress of the run: a bar on a terminal, else a line for each reading of the metrics.

    Args:
        completed_steps: where the run begins.
        num_steps: where it ends.
        silent: show nothing, since another process does.
    """

    def __init__(self, completed_steps: int, num_steps: int, silent: bool = False) -> None:
        self._num_steps = num_steps
        self._first_step = self._completed_steps = completed_steps
        self._start = time.perf_counter()
        quiet = silent or not sys.stderr.isatty()
        self._silent = silent
        self._bar = tqdm(
            total=num_steps,
            initial=completed_steps,
            unit="step",
            disable=quiet,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def rewind(self, completed_steps: int) -> None:
        """Return to an earlier step."""
        self._first_step -= self._completed_steps - completed_steps  # repeated steps count for the rate
        self._bar.update(completed_steps - self._completed_steps)
        self._completed_steps = completed_steps

    def advance(self) -> None:
        """Count a step."""
        self._completed_steps += 1
        self._bar.update()

    def show(self, metrics: Mapping[str, int | float], unit: str) -> None:
        """Show a reading of the metrics.

        Args:
            metrics: with "loss" and "items_per_second".
            unit: plural name of the items.
        """
        if self._silent:
            return
        rate = metrics["items_per_second"]
        text = f"loss {metrics['loss']:.4f}, {rate:,.{0 if rate >= 10 else 2}f} {unit}/s"
        if self._bar.disable:
            num_done = self._completed_steps - self._first_step
            seconds_left = (
                (time.perf_counter() - self._start) / num_done * (self._num_steps - self._completed_steps)
            )
            left = tqdm.format_interval(seconds_left)
            say(f"step {self._completed_steps}/{self._num_steps}: {text}, {left} left")
        else:
            self._bar.set_postfix_str(text)


class Pace:
    """Time spent in training steps and rates, without sample sheets and checkpoints.

    Args:
        seconds_before: spent before a resume.
        peak_flops: the device's peak per second, if known; see `cogview.training.flops.peak_flops`.
    """

    def __init__(self, seconds_before: float, peak_flops: float | None = None) -> None:
        self.unit = "items"
        self._seconds_before = seconds_before
        self._start = self._interval_start = time.perf_counter()
        self._num_items = self._interval_num_items = 0.0
        self._peak_flops = peak_flops
        self._interval_work: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds so far, including those before a resume."""
        return self._seconds_before + time.perf_counter() - self._start

    @property
    def items_per_second(self) -> float:
        """Mean rate since the start of this process."""
        return self._num_items / (time.perf_counter() - self._start)

    def count(self, num_items: float | int, unit: str, work: Mapping[str, float]) -> None:
        """Count the items and the work of a micro-batch.

        Args:
            num_items: by weight.
            unit: their plural name.
            work: "tokens" and "flops" of the model, where known.
        """
        self.unit = unit
        for name, value in work.items():
            self._interval_work[name] = self._interval_work.get(name, 0.0) + value
        self._num_items += num_items
        self._interval_num_items += num_items

    def read(self) -> dict[str, float]:
        """Return the seconds so far and the rates since the last reading; call it after waiting for the device.

        The rates are items, `tokens_per_second` and `mfu`, the model's share of the device's peak.
        """
        now = time.perf_counter()
        seconds, work = now - self._interval_start, self._interval_work
        rates = {
            "seconds": round(self.seconds, 3),
            "items_per_second": round(self._interval_num_items / seconds, 3),
        }
        if "tokens" in work:
            rates["tokens_per_second"] = round(work["tokens"] / seconds, 3)
        if "flops" in work and self._peak_flops is not None:
            rates["mfu"] = round(work["flops"] / seconds / self._peak_flops, 5)
        self._interval_start, self._interval_num_items, self._interval_work = now, 0.0, {}
        return rates

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of a block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            pause = time.perf_counter() - begin
            self._start += pause
            self._interval_start += pause
