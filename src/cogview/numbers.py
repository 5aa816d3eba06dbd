"""Conversion of numbers that users give, with errors that name them."""

import operator
from typing import Any

from cogview.errors import UsageError


def whole_number(name: str, value: Any) -> int:
    """Return a value as an integer of any size.

    Raises:
        UsageError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {value!r}") from None


def real_number(name: str, value: Any) -> float:
    """Return a value as a float.

    Raises:
        UsageError: it is no number.
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} must be a number, got {value!r}") from None
