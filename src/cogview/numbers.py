"""Numbers that users give: whole ones and others, refused by name where they are neither."""

import operator
from typing import Any

from cogview.errors import UsageError


def whole_number(name: str, value: Any) -> int:
    """Return a number that counts something, or a seed, of any size.

    Raises:
        UsageError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {value!r}") from None


def real_number(name: str, value: Any) -> float:
    """Return a number.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} must be a number, got {value!r}") from None
