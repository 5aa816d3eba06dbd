"""Choice of the number of threads of a pass, by trial: cores that other processes use slow all threads down.

PyTorch's threads wait for each other many times in a pass. Beside one busy process per core, two threads took ten times
as long for a picture as on an idle machine, and one thread twice.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

_FIRST_TRY = 4
"""Passes before another number is first tried; the machine's number comes first."""

_MAX_INTERVAL = 512
"""Maximum of passes between two trials; a number that was worse is tried half as often next time."""

_MEMORY = 0.9
"""Decay per pass of a pass's weight in a number's cost."""

_TRY_SHARE = 0.05
"""Share of the time that trials of more threads may take: beside busy cores one took fifty usual passes."""

_CHANGE = 2.0
"""Factor of the usual cost above which a pass triggers a trial of fewer threads, or below 1 / it of more."""


def thread_counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads to try: all, half as many, and so on down to one."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return tuple(counts)


@contextmanager
def threads(num: int) -> Iterator[None]:
    """Set PyTorch's number of threads for this thread."""
    before = torch.get_num_threads()
    if num == before:
        yield
        return
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_concurrently(works: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Run functions concurrently, each on one of PyTorch's threads, and yield results in order.

    A single one runs on the caller's thread, where memory is reused.
    """
    before = torch.get_num_threads()

    def run(work: Callable[[], Result]) -> Result:
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(before)  # new threads inherit it

    if len(works) < 2:
        return map(run, works)
    return _workers(os.getpid()).map(run, works)


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """Return the thread pool of this process; threads do not survive a fork."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="cogview")


class ThreadChoice:
    """Learns the cost of a pass on each number of threads, and chooses the number for the next.

    It changes the time that drawing takes, never the result.

    Args:
        most: PyTorch's number of threads.
    """

    def __init__(self, most: int) -> None:
        self.counts = thread_counts(most)
        self._best = 0
        self._seconds = [0.0] * len(self.counts)
        self._work = [0.0] * len(self.counts)
        self._interval = _FIRST_TRY
        self._until_try = _FIRST_TRY
        self._takes_more = False  # the next try is of more threads, not of fewer
        self._until_more = 0  # passes before more threads may be tried
        self._wait_for_more = 0  # and how many they were at first

    @property
    def best(self) -> int:
        """The cheapest number so far."""
        return self.counts[self._best]

    def next(self) -> int:
        """Return the number of threads for the next pass."""
        if len(self.counts) == 1:
            return self.best
        self._until_try -= 1
        if self._until_try > 0:
            return self.best
        return self.counts[self._trial]

    def learn(self, num_threads: int, work: float, seconds: float) -> None:
        """Learn the cost of a pass.

        Args:
            num_threads: of the pass.
            work: any measure of the computation.
            seconds: duration of the pass.
        """
        index, cost = self.counts.index(num_threads), seconds / work
        is_try, usual = index != self._best, self._cost(index)
        self._until_more -= 1
        if not is_try and usual and not usual / _CHANGE < cost < usual * _CHANGE:
            other = self._best + (-1 if cost < usual else 1)
            if 0 <= other < len(self.counts) and (cost > usual or self._until_more <= 0):
                self._takes_more = cost < usual
                self._interval, self._until_try = _FIRST_TRY, 1
        self._seconds = [_MEMORY * each for each in self._seconds]
        self._work = [_MEMORY * each for each in self._work]
        self._seconds[index] += seconds
        self._work[index] += work
        if is_try:
            more = min(index, self._best)
            if self._cost(index) < self._cost(self._best):
                self._best, self._interval = index, _FIRST_TRY
            else:
                self._interval = min(2 * self._interval, _MAX_INTERVAL)
            if more == self._best:
                self._wait_for_more = 0
            else:
                own = max(self._cost(self._best), 1e-12)
                worse = max(self._cost(more), cost if more == index else 0.0) / own
                wait = max(2 * self._wait_for_more, int((worse - 1) / _TRY_SHARE))
                self._wait_for_more = self._until_more = min(wait, _MAX_INTERVAL)
            self._takes_more = not self._takes_more
            self._until_try = self._interval

    @property
    def _trial(self) -> int:
        """The next number to try: above or below the best, or the best if there is none."""
        others = [self._best - 1] if self._until_more <= 0 else []
        others.insert(0 if not self._takes_more else 1, self._best + 1)
        return next((each for each in others if 0 <= each < len(self.counts)), self._best)

    def _cost(self, index: int) -> float:
        """Return seconds per unit of work; 0 if unknown."""
        return self._seconds[index] / self._work[index] if self._work[index] else 0.0
