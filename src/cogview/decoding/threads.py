"""How many threads a pass runs on: found by trying, since cores that other processes use are worse than none.

PyTorch's threads wait for each other many times a pass. Where one of them has to wait for its core, all do: beside a
process for each core, two threads took ten times as long for a picture as on the idle machine, and one thread twice.
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
"""Passes before another number is first tried; that of the machine is tried first."""

_MAX_INTERVAL = 512
"""Passes between two tries at most; a number that turned out worse is tried half as often the next time."""

_MEMORY = 0.9
"""Of a pass's weight in a number's cost is left after the next one, so that old ones hardly count beside a new try."""

_TRY_SHARE = 0.05
"""Of the time of passes that tries of more threads may take: beside busy cores one took fifty times a usual pass."""

_CHANGE = 2.0
"""Times its usual cost at which a pass makes fewer threads worth a try soon; as much below it, more of them."""


def thread_counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads that may be tried: all, half as many, and so on down to one."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return tuple(counts)


@contextmanager
def threads(num: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads, called from this one."""
    before = torch.get_num_threads()
    if num == before:
        yield
        return
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(works: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Do works at the same time, each on one of PyTorch's threads, and yield their results in order.

    One alone is done by the caller's thread, whose memory is used again.
    """
    before = torch.get_num_threads()

    def done(work: Callable[[], Result]) -> Result:
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(before)  # also what new threads take for theirs

    if len(works) < 2:
        return map(done, works)
    return _workers(os.getpid()).map(done, works)


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; after a fork those of its parent are not there."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="cogview")


class ThreadChoice:
    """Learns what a pass costs on each number of threads, and says on how many the next one runs.

    It decides how long drawing takes, never what is drawn.

    Args:
        most: threads that PyTorch computes with.
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
        """Return the number that costs least, as far as is known."""
        return self.counts[self._best]

    def next(self) -> int:
        """Return how many threads the next pass runs on."""
        if len(self.counts) == 1:
            return self.best
        self._until_try -= 1
        if self._until_try > 0:
            return self.best
        return self.counts[self._tried]

    def learn(self, num_threads: int, work: float, seconds: float) -> None:
        """Learn what a pass cost.

        Args:
            num_threads: that it ran on.
            work: any measure of what it computed.
            seconds: that it took.
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
    def _tried(self) -> int:
        """Return which number is tried next: the one above or below the best, or the best if there is none."""
        others = [self._best - 1] if self._until_more <= 0 else []
        others.insert(0 if not self._takes_more else 1, self._best + 1)
        return next((each for each in others if 0 <= each < len(self.counts)), self._best)

    def _cost(self, index: int) -> float:
        """Return seconds of a measure of work; 0 if nothing is known."""
        return self._seconds[index] / self._work[index] if self._work[index] else 0.0
