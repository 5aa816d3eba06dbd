"""JSON that anybody may have written: read with bounds on its size, its depth and its numbers."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from cogview.errors import CogViewError, UsageError

Made = TypeVar("Made")

MAX_BYTES = 2**26
"""More than any file of ours that is not a data set."""

MAX_DEPTH = 100
MAX_INTEGER = 2**64
"""Whole numbers lie below it, and above its negative: nothing of ours counts further."""

MAX_NUMBER = 2**63
"""Numbers of a dataclass lie below it: tensors have no larger sizes."""


def parse_json(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Return what JSON in UTF-8 says.

    Python's reader takes numbers of thousands of digits, and runs out of stack where lists lie deep in each other.

    Args:
        data: the JSON, with or without a byte order mark.
        max_bytes: longer data is refused.

    Raises:
        ValueError: it is too long, not JSON in UTF-8, nested deeper than `MAX_DEPTH`, or holds a whole number beyond
            `MAX_INTEGER`.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data):,} bytes, and at most {max_bytes:,} are read")
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_int=_integer)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def _integer(digits: str) -> int:
    """Return a whole number in range.

    Raises:
        ValueError: it is not.
    """
    number = int(digits) if len(digits) <= len(str(MAX_INTEGER)) else MAX_INTEGER
    if not -MAX_INTEGER < number < MAX_INTEGER:
        raise ValueError(f"a whole number of {len(digits)} digits is out of range")
    return number


def _check_depth(value: Any) -> None:
    """Refuse lists and objects that lie too deep in each other, level by level.

    Raises:
        ValueError: they do.
    """
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def dataclass_from_json(cls: type[Made], values: Mapping[str, Any], **more: Any) -> Made:
    """Return a dataclass of what a JSON file says of its fields, lists as tuples again.

    A file may say anything, so numbers and their kinds are checked here; what they may be is the class's to check.

    Args:
        cls: its fields are numbers, strings, tuples of numbers, dataclasses of such, or given by `more`.
        values: by the names of the fields.
        more: further fields.

    Raises:
        TypeError: a field is missing, unknown, of another type, or a number that is NaN or out of range.
    """
    hints = get_type_hints(cls)
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in made.items():
        if dataclasses.is_dataclass(inner := hints.get(name)):
            if not (isinstance(inner, type) and isinstance(value, Mapping)):
                raise TypeError(f"{name} is {value!r}, which is no section of its own")
            made[name] = dataclass_from_json(inner, value)
    for name, value in made.items():
        wanted = get_args(hints.get(name)) if isinstance(value, tuple) else (hints.get(name),)
        for each in value if isinstance(value, tuple) else (value,):
            is_number = (
                isinstance(each, int | float) and not isinstance(each, bool) and abs(each) < MAX_NUMBER
            )
            if (int in wanted and not (is_number and isinstance(each, int))) or (
                float in wanted and not is_number
            ):
                raise TypeError(f"{name} is {each!r}, which is no number of its kind")
            if wanted == (bool,) and not isinstance(each, bool):
                raise TypeError(f"{name} is {each!r}, wanted true or false")
    return cls(**made, **more)


def section_from_json(
    cls: type[Made], config: Mapping[str, Any], section: str, source: Path, **more: Any
) -> Made:
    """Return a dataclass of one section of a JSON file.

    Args:
        cls: as `dataclass_from_json` takes it.
        config: the content of the file.
        section: its name in there.
        source: the file, for the message.
        more: further fields.

    Raises:
        CogViewError: the section is missing or not valid.
    """
    try:
        return dataclass_from_json(cls, config[section], **more)
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(
            f"{source} has no valid section '{section}' ({error}): export the model again."
        ) from error
