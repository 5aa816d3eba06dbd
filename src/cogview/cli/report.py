"""Output of results on stdout, as text or JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cogview.errors import printable


def print_result(result: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print a verb's result.

    Args:
        result: for programs; paths are written as text.
        lines: the same for people.
        as_json: whether to print `result` instead of `lines`.
    """
    text = json.dumps(result, ensure_ascii=False, default=str) if as_json else printable("\n".join(lines))
    # File names may be invalid text, and terminals may lack characters; JSON's escapes are Python's.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="backslashreplace").decode(encoding))


def print_above_bars(lines: Sequence[str]) -> None:
    """Print lines immediately, above a progress bar on the same terminal."""
    text = printable("\n".join(lines))
    if sys.stderr.isatty():
        from tqdm import tqdm  # slow to import, and help never needs it

        tqdm.write(text, file=sys.stdout)
    else:
        print(text)
    sys.stdout.flush()


def gigabytes(num_bytes: float | int) -> str:
    """Format bytes as GB (10^9), or as MB below 0.1 GB."""
    if num_bytes < 1e8:
        return f"{num_bytes / 1e6:.3g} MB"
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes < 1e11 else f"{num_bytes / 1e9:,.0f} GB"
