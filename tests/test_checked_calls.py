"""What checks the calls of all tests refuses what jaxtyping's own decorator refuses, and nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int64, TypeCheckError
from torch import Tensor

import checked_calls
from cogview.training.metrics import read_metrics
from cogview.transformer.normalization import RelaxedLayerNorm


def added(one: Float[Tensor, "b d"], other: Float[Tensor, "d"]) -> Float[Tensor, "b d"]:
    return one + other


def cut(one: Float[Tensor, "b d"], num: int = 1) -> Float[Tensor, "b d"]:
    return one[:, num:]


def rows(one: Float[Tensor, "b d"]) -> Iterator[Float[Tensor, "d"]]:
    yield from one


def within(
    one: Float[Tensor, "b d"], inner: Callable[[Tensor], object], num: int = 0
) -> Float[Tensor, "d b"]:
    inner(one.T)
    return one.T[num:]


Kind = TypeVar("Kind", Float[Tensor, "b"], Float[Tensor, "b d"])


def same(one: Kind) -> Kind:
    return one


def plain(number: int, *names: str, **more: float) -> list[str]:
    return [*names, *more] * number


@dataclass
class Pair:
    """Two of a kind."""

    one: Float[Tensor, "b"]
    other: Int64[Tensor, "b"]


MATRIX, COLUMN, CODES = torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
RIGHT: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "arrays": (added, (MATRIX, MATRIX[0]), {}),
    "a variable within another's call": (within, (COLUMN[None], lambda one: checked(same)(MATRIX)), {}),
    "a default": (cut, (MATRIX, 0), {}),
    "a generator": (rows, (MATRIX,), {}),
    "other sizes in a call within": (within, (MATRIX, lambda one: checked(rows)(one)), {}),
    "no arrays": (plain, (2, "a"), {"b": 0.5}),
    "a dataclass": (Pair, (COLUMN, CODES), {}),
}
WRONG: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "an axis of two sizes": (added, (MATRIX, COLUMN), {}),
    "a number of axes": (added, (COLUMN, MATRIX[0]), {}),
    "a dtype": (added, (MATRIX.long(), MATRIX[0]), {}),
    "a variable": (same, (MATRIX.long(),), {}),
    "no tensor": (added, ([[1.0]], MATRIX[0]), {}),
    "an axis of the return": (cut, (MATRIX,), {}),
    "a generator's axes": (rows, (COLUMN,), {}),
    "an axis after a call within": (within, (MATRIX, lambda one: checked(rows)(one), 1), {}),
    "a type": (plain, (0.5,), {}),
    "a type of many": (plain, (1, "a", 2), {}),
    "a type by name": (plain, (1,), {"b": "c"}),
    "a dataclass's axis": (Pair, (COLUMN, CODES[:1]), {}),
    "a dataclass's dtype": (Pair, (COLUMN,), {"other": COLUMN}),
}


def checked(function: Any) -> Any:
    return checked_calls._checked(function, typechecker=beartype)


def checked_by_jaxtyping(function: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxtyping._decorator.jaxtyped", checked_calls.jaxtyped)
        return checked_calls.jaxtyped(function, typechecker=beartype)


def is_refused(function: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> bool:
    try:
        function(*args, **more)
    except TypeCheckError:
        return True
    return False


@pytest.mark.parametrize("decorate", [checked, checked_by_jaxtyping])
@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_what_is_refused_is_what_jaxtyping_refuses(name: str, decorate: Callable[[Any], Any]) -> None:
    function, args, more = (RIGHT | WRONG)[name]
    if function is Pair:  # a class is decorated in its place
        function = dataclass(type("Pair", (), {"__annotations__": Pair.__annotations__}))
    assert is_refused(decorate(function), args, more) == (name in WRONG)


def test_calls_of_the_package_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        read_metrics(3)  # type: ignore[arg-type]
    norm = RelaxedLayerNorm(4, "none", 1e-5)
    with pytest.raises(TypeCheckError):
        norm(torch.zeros(2, 4, dtype=torch.int64))


def test_the_first_calls_of_each_test_are_checked() -> None:
    function = checked(same)
    for _ in range(checked_calls.MAX_CHECKED):
        assert is_refused(function, (CODES,), {})
    assert not is_refused(function, (CODES,), {})
    checked_calls.start_test()
    assert is_refused(function, (CODES,), {})
