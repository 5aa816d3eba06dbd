"""Others' checkpoints as tensors by name; nothing in them is ever run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogview.errors import CogViewError

_WRAPPERS = ("state_dict", "model", "module")
_MAX_WRAPPERS = 4


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what their trainer wrapped them in.

    Read weights-only: a file that would run code is refused. Beside tensors it may hold anything else that is plain
    data, which is left out; `state_dict`, `model` and `module` are looked into, and a `module.` that
    each name starts with is taken away.

    Args:
        path: what `torch.save` wrote.

    Raises:
        CogViewError: there is no such file, it is damaged, asks for code to be run, or holds no tensors.
    """
    if not path.is_file():
        raise CogViewError(f"{path}: no such file; check the path")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files raise nearly anything: UnpicklingError, EOFError, KeyError, RuntimeError, ...
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CogViewError(
            f"{path}: not a checkpoint that can be read without running code ({reason}); copy it again, or have its "
            "owner save the state dict alone"
        ) from error
    for _ in range(_MAX_WRAPPERS):
        inner = _wrapped(content)
        if inner is None:
            break
        content = inner
    tensors = (
        {
            name: value
            for name, value in content.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise CogViewError(f"{path}: holds no tensors by name; give a checkpoint with a state dict")
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _wrapped(content: Any) -> Mapping[Any, Any] | None:
    """Return the mapping that a trainer wrapped, or None if this is the thing itself."""
    if not isinstance(content, Mapping) or any(isinstance(value, Tensor) for value in content.values()):
        return None
    found = (content.get(name) for name in _WRAPPERS)
    return next((inner for inner in found if isinstance(inner, Mapping)), None)
