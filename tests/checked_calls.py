"""Functions of the package are checked: types by beartype, and shapes by jaxtyping in signatures that have some.

jaxtyping's import hook decorates each function. Its own decorator would bind the arguments of each call by name and
check them twice. Here beartype checks them once, and only where a signature has axes do these get a scope of their own.
What checks a function is made at its first call, since the tests of one process call few of all. In each test the
first calls of a function are checked: to check thousands took a third of the suite's time.
"""

import functools
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, install_import_hook, jaxtyped

MAX_CHECKED = 20
"""Calls of a function that are checked in one test, and functions that are checked of those made by one definition."""

_test = object()
_num_made: Counter[CodeType] = Counter()


def start_test() -> None:
    """Check each function's first calls again."""
    global _test
    _test = object()


_typed = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


def check_calls(package: str) -> None:
    """Have all functions of a package checked that are imported from now on."""
    jaxtyping.jaxtyped = jaxtyping._decorator.jaxtyped = _checked  # type: ignore[assignment]
    install_import_hook(package, "beartype.beartype")


def _checked(function: Any = None, *, typechecker: Any) -> Any:
    """Decorate a function, or the `__init__` of a dataclass, as jaxtyping's own decorator does."""
    if function is None:
        return functools.partial(_checked, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        return jaxtyped(function, typechecker=typechecker)
    if not function.__annotations__:  # nothing to check, and a compiler's own types where it is a kernel
        return function
    _num_made[function.__code__] += 1
    if _num_made[function.__code__] > MAX_CHECKED:  # a function within another, of which each call makes one
        return function
    checked: Callable[..., Any] | None = None
    has_axes = False
    num_calls, test = 0, _test

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checked, has_axes, num_calls, test
        if test is not _test:
            num_calls, test = 0, _test
        num_calls += 1
        if num_calls > MAX_CHECKED:
            return function(*args, **kwargs)
        if checked is None:
            hints = [part for hint in function.__annotations__.values() for part in _parts(hint)]
            has_axes = any(inspect.isclass(each) and issubclass(each, AbstractArray) for each in hints)
            # Names that only a type checker knows stand for anything, and a generator is checked when it is made.
            has_names = any(isinstance(each, str | typing.ForwardRef) for each in hints)
            if has_names or inspect.isgeneratorfunction(function):
                checked, has_axes = jaxtyped(function, typechecker=typechecker), False
            else:
                checked = _typed(function)
        if not has_axes:
            return checked(*args, **kwargs)
        with jaxtyped("context"):
            return checked(*args, **kwargs)

    return call


def _parts(hint: Any) -> Iterator[Any]:
    """Yield a hint and all within it."""
    yield hint
    within = (
        [hint.__bound__, *hint.__constraints__] if isinstance(hint, typing.TypeVar) else typing.get_args(hint)
    )
    for each in hint if isinstance(hint, list) else within:  # a list has the parameters of a callable
        yield from _parts(each)
