"""Removal of the containers and name prefixes that trainers add to weights."""

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
"""Keys of the weights in trainers' checkpoints; the first one present is used."""

_INSIDE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Parts of names added by wrappers of PyTorch and Lightning anywhere in a model."""

_BEFORE = frozenset({"module", "model", "ema_model", "model_ema", "ema", "online_model", "net", "network"})
"""Prefixes of all names, added by wrappers of whole models."""

_COUNTERS = frozenset({"n_averaged", "num_updates", "initted", "step", "decay"})
"""Further state of wrappers that average weights."""


def find_wrapped(content: Any) -> Mapping[Any, Any] | None:
    """Return the mapping inside a trainer's checkpoint, or None if this is the state dict itself.

    Without a usual key, the only mapping with tensors is used.

    Raises:
        CogViewError: several mappings have tensors.
    """
    if not isinstance(content, Mapping):
        return None
    candidates = (content.get(name) for name in _MAPPINGS)
    usual = next((inner for inner in candidates if isinstance(inner, Mapping)), None)
    if usual is not None or _has_tensors(content):
        return usual
    state_dicts = {name: inner for name, inner in content.items() if _has_tensors(inner)}
    if len(state_dicts) > 1:
        sets = ", ".join(sorted(map(str, state_dicts)))
        raise CogViewError(
            f"holds several sets of weights, under {sets}; save one of them in a file of its own"
        )
    return next(iter(state_dicts.values()), None)


def _has_tensors(content: Any) -> bool:
    """Return whether this is a mapping with tensors by name."""
    return isinstance(content, Mapping) and any(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in content.items()
    )


def unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the wrappers' parts from names.

    Args:
        tensors: at least one, by their names in a checkpoint.

    Raises:
        CogViewError: names would collide, or there are several sets of weights.
    """
    tensors = _rename(tensors, {name: _strip_inside(name) for name in tensors})
    while True:
        weights = {name: each for name, each in tensors.items() if each.ndim or name not in _COUNTERS}
        firsts = {name.partition(".")[0] for name in weights}
        if not firsts or not firsts <= _BEFORE or any("." not in name for name in weights):
            return tensors
        if len(firsts) > 1:
            sets = ", ".join(f"{first}." for first in sorted(firsts))
            raise CogViewError(
                f"holds several sets of weights, under {sets}; save one of them in a file of its own"
            )
        tensors = _rename(weights, {name: name.partition(".")[2] for name in weights})


def _strip_inside(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _INSIDE)


def _rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors.

    Raises:
        CogViewError: two new names are equal.
    """
    renamed: dict[str, Tensor] = {}
    for old, new in names.items():
        if new in renamed:
            raise CogViewError(
                f"holds {new} twice, once of them as {old}; save one of them in a file of its own"
            )
        renamed[new] = tensors[old]
    return renamed
