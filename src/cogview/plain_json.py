"""Untrusted JSON, read with bounds on size, depth and numbers."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cogview.errors import CogViewError, UsageError

Made = TypeVar("Made")

MAX_BYTES = 2**26
"""Larger than any file of this program except data sets."""

MAX_DEPTH = 100
MAX_INTEGER = 2**64
"""Exclusive bound on the magnitude of whole numbers."""

MAX_NUMBER = 2**63
"""Exclusive bound on a dataclass's numbers: tensors have no larger sizes."""


def parse_json(data: bytes | str, max_bytes: int = MAX_BYTES, *, is_strict: bool = False) -> Any:
    """Parse JSON in UTF-8.

    Python's parser accepts numbers of thousands of digits, and overflows the stack on deep nesting.

    Args:
        data: the JSON, with or without a byte order mark.
        max_bytes: longer data is refused; of a text, characters.
        is_strict: refuse what Python accepts beyond the standard or misreads: NaN, Infinity, numbers too large for a
            float, duplicate names. Whole numbers beyond `MAX_INTEGER` become floats.

    Raises:
        ValueError: it is too long, no JSON in UTF-8, nested deeper than `MAX_DEPTH`, or holds a whole number beyond
            `MAX_INTEGER`.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data):,} bytes, and at most {max_bytes:,} are read")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, **(_STRICT if is_strict else {"parse_int": _integer}))
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def _integer(digits: str) -> int:
    """Return a whole number in range.

    Raises:
        ValueError: it is out of range.
    """
    num_digits = len(digits.lstrip("-"))
    number = int(digits) if num_digits <= len(str(MAX_INTEGER)) else MAX_INTEGER
    if not -MAX_INTEGER < number < MAX_INTEGER:
        raise ValueError(f"a whole number of {num_digits} digits is out of range")
    return number


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _float(digits: str) -> float:
    """Return a finite float.

    Raises:
        ValueError: the number is too large.
    """
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]}... is too large a number")
    return number


def _any_integer(digits: str) -> int | float:
    """Return a whole number, as a float if it is out of range.

    Raises:
        ValueError: it is too large for a float.
    """
    try:
        return _integer(digits)
    except ValueError:
        return _float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with unique names.

    Raises:
        ValueError: a name is repeated.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{ascii(twice)[:80]} stands twice")
    return found


_STRICT: dict[str, Any] = {
    "parse_constant": _no_number,
    "parse_float": _float,
    "parse_int": _any_integer,
    "object_pairs_hook": _object,
}


def _check_depth(value: Any) -> None:
    """Refuse deep nesting, level by level.

    Raises:
        ValueError: the nesting is too deep.
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
    """Build a dataclass from untrusted JSON values, with lists as tuples.

    Only types and finite ranges are checked here; valid values are the class's to check.

    Args:
        cls: its fields are numbers, strings, tuples of numbers, dataclasses of such, or given by `more`.
        values: by field name.
        more: further fields.

    Raises:
        TypeError: a field is missing, unknown, of another type, NaN or out of range.
    """
    hints = get_type_hints(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints.get(name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            made[name] = dataclass_from_json(hint, value)
            continue
        made[name] = tuple(value) if isinstance(value, list) else value
        if hint is not None and not _is_of(made[name], hint):
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            wanted = "true or false" if hint is bool else getattr(hint, "__name__", hint)
            wanted = " or ".join(map(str, choices)) or wanted
            raise TypeError(f"{name} is {repr(value)[:80]}, wanted {wanted}")
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name not in made | more
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    unknown = [name for name in made if name not in hints or name in more]
    if missing or unknown:
        raise TypeError(f"{(missing or unknown)[0]} is {'missing' if missing else 'unknown'}")
    return cls(**made, **more)


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a JSON value, with lists as tuples, has a type; values of a Literal are the class's to check."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            return False
        return all(_is_of(each, inner[0]) for each in value)
    if hint in (int, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) < MAX_NUMBER and (hint is float or isinstance(value, int))
    return isinstance(value, str if origin is Literal else hint)


def section_from_json(
    cls: type[Made], config: Mapping[str, Any], section: str, source: Path, **more: Any
) -> Made:
    """Build a dataclass from one section of a JSON file.

    Args:
        cls: as for `dataclass_from_json`.
        config: the content of the file.
        section: its name.
        source: the file, for the message.
        more: further fields.

    Raises:
        CogViewError: the section is missing or invalid.
    """
    try:
        return dataclass_from_json(cls, config[section], **more)
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise CogViewError(
            f"{source} has no valid section '{section}' ({error}): export the model again."
        ) from error
