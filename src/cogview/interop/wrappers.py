"""What trainers put around weights, which are looked for in it, and before their names, which are freed of it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cogview.errors import CogViewError

_MAPPINGS = (
    "state_dict",
    "model",
    "module",
    "model_state_dict",
    "model_state",
    "weights",
    "ema",
    "model_ema",
    "params_ema",
    "params",
    "net",
    "network",
)
"""Under what trainers keep the weights, beside the state of the training; the first that is there is taken."""

_INSIDE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""What PyTorch's and Lightning's wrappers add to names, wherever in the model a wrapper is."""

_BEFORE = frozenset({"module", "model", "ema_model", "model_ema", "ema", "online_model", "net", "network"})
"""What wrappers of whole models put before all names."""

_COUNTERS = frozenset({"n_averaged", "num_updates", "initted", "step", "decay"})
"""What those that average weights keep beside them."""


def wrapped_mapping(content: Any) -> Mapping[Any, Any] | None:
    """Return the mapping that a trainer wrapped, or None if this is the thing itself.

    One under another name than the usual ones is taken if it alone has tensors.

    Raises:
        CogViewError: several have.
    """
    if not isinstance(content, Mapping):
        return None
    found = (content.get(name) for name in _MAPPINGS)
    usual = next((inner for inner in found if isinstance(inner, Mapping)), None)
    if usual is not None or _has_tensors(content):
        return usual
    filled = {name: inner for name, inner in content.items() if _has_tensors(inner)}
    if len(filled) > 1:
        sets = ", ".join(sorted(map(str, filled)))
        raise CogViewError(
            f"holds several sets of weights, under {sets}; save one of them in a file of its own"
        )
    return next(iter(filled.values()), None)


def _has_tensors(content: Any) -> bool:
    """Return whether this is a mapping that has tensors by name."""
    return isinstance(content, Mapping) and any(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in content.items()
    )


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names that their model gives them.

    Args:
        tensors: at least one, by the names that a trainer saved them under.

    Raises:
        CogViewError: two would have one name, or there are several sets of weights.
    """
    tensors = _renamed(tensors, {name: _without_inside(name) for name in tensors})
    while True:
        held = {name: each for name, each in tensors.items() if each.ndim or name not in _COUNTERS}
        firsts = {name.partition(".")[0] for name in held}
        if not firsts or not firsts <= _BEFORE or any("." not in name for name in held):
            return tensors
        if len(firsts) > 1:
            sets = ", ".join(f"{first}." for first in sorted(firsts))
            raise CogViewError(
                f"holds several sets of weights, under {sets}; save one of them in a file of its own"
            )
        tensors = _renamed(held, {name: name.partition(".")[2] for name in held})


def _without_inside(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _INSIDE)


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors by other names.

    Raises:
        CogViewError: two have the same.
    """
    renamed: dict[str, Tensor] = {}
    for old, new in names.items():
        if new in renamed:
            raise CogViewError(
                f"holds {new} twice, once of them as {old}; save one of them in a file of its own"
            )
        renamed[new] = tensors[old]
    return renamed
