"""Others' checkpoints as tensors by name; nothing in them is ever run."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cogview.errors import CogViewError

_WRAPPERS = ("state_dict", "model", "module")
_MAX_WRAPPERS = 4
_BYTES_AT_A_TIME = 2**20
# Trainers keep the state of numpy's random numbers beside their weights: an array of uint32, which is plain data. Two
# names, since numpy's module was renamed.
_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
_PLAIN: list[Any] = [
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(np.ndarray, np.dtype, np.dtypes.UInt32DType),
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what their trainer wrapped them in.

    The tensors are mapped, so memory holds what of them is in use; those of files older than PyTorch 1.6 are read as a
    whole. Read weights-only: a file that would run code is refused. Beside tensors it may hold anything else that is
    plain data, which is left out; `state_dict`, `model` and `module` are looked into, and a `module.` that
    each name starts with is taken away.

    Args:
        path: what `torch.save` wrote.

    Raises:
        CogViewError: there is no such file, it is damaged, asks for code to be run, or holds no tensors.
    """
    if not path.is_file():
        raise CogViewError(f"{path}: no such file; check the path")
    if zipfile.is_zipfile(path):
        _refuse_damage(path)
    try:
        with torch.serialization.safe_globals(_PLAIN):
            content: Any = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    # Damaged files raise nearly anything: UnpicklingError, EOFError, KeyError, RuntimeError, ...
    except Exception as error:
        reason = _reason(error)
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


def _refuse_damage(path: Path) -> None:
    """Read a whole zip file once and compare it with its checksums, which a file that is mapped is not compared with.

    Raises:
        CogViewError: a part is not what was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.CRC:  # PyTorch can be told to write none
                    continue
                with archive.open(info) as part:
                    while part.read(_BYTES_AT_A_TIME):
                        pass
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CogViewError(f"{path}: damaged ({error}); copy it again") from error


def _reason(error: Exception) -> str:
    """Return in a few words why a file could not be read; PyTorch's many also tell how to run what is in it."""
    message = str(error).strip()
    if match := re.search(r"GLOBAL (\S+)", message):
        return f"it asks for {match[1]}"
    return message.splitlines()[0].split(". ")[0] if message else type(error).__name__


def _wrapped(content: Any) -> Mapping[Any, Any] | None:
    """Return the mapping that a trainer wrapped, or None if this is the thing itself."""
    if not isinstance(content, Mapping):
        return None
    found = (content.get(name) for name in _WRAPPERS)
    return next((inner for inner in found if isinstance(inner, Mapping)), None)
