"""What verbs say: results on stdout for people or programs, progress on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm

from cogview.errors import printable


def print_result(result: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print a verb's result.

    Args:
        result: all of it, for programs; what JSON does not know (paths) is turned into its text.
        lines: the same for people.
        as_json: which of the two to print.
    """
    text = json.dumps(result, ensure_ascii=False, default=str) if as_json else printable("\n".join(lines))
    # Names of files may be no text, and a terminal may not know every character: JSON's escapes are Python's.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="backslashreplace").decode(encoding))


def print_above_bars(lines: Sequence[str]) -> None:
    """Print lines at once, without spoiling a progress bar that stands on the same terminal."""
    text = printable("\n".join(lines))
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stdout)
    else:
        print(text)
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with rate and time left, from the first progress on.

    Args:
        what: is being done.
        unit: of what is counted, a plural.

    Yields:
        A function of (number done, number in all) that moves the bar.
    """
    # A log file gets a line now and then instead of the many that a terminal overwrites.
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
