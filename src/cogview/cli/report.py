"""What verbs say: results on stdout, for people or programs."""

import json
import sys
from collections.abc import Mapping, Sequence
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
