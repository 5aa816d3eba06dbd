"""What verbs say: results on stdout, for people or programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

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
        from tqdm import tqdm  # slow to import, and help never needs it

        tqdm.write(text, file=sys.stdout)
    else:
        print(text)
    sys.stdout.flush()


def gigabytes(num_bytes: float | int) -> str:
    """Return bytes in 10^9; those of tiny models in 10^6."""
    if num_bytes < 1e8:
        return f"{num_bytes / 1e6:.3g} MB"
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes < 1e11 else f"{num_bytes / 1e9:,.0f} GB"
