"""Progress bar on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with rate and time left, from the first progress on.

    Args:
        what: the work.
        unit: what is counted, a plural.

    Yields:
        A function of (number done, total number) that moves the bar.
    """
    # A log file gets few lines, where a terminal overwrites many.
    seconds_between = 0.1 if sys.stderr.isatty() else 10.0
    with ExitStack() as stack:
        bars: list[tqdm] = []

        def move(num_done: int, num_all: int) -> None:
            if not bars:
                bar = tqdm(
                    desc=what, unit=f" {unit}", total=num_all, mininterval=seconds_between, file=sys.stderr
                )
                bars.append(stack.enter_context(bar))
            bars[0].update(num_done - bars[0].n)

        yield move
