"""Tensors that somebody hands us in a file: known, and compared, before anything of their size is made."""

import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cogview.errors import CogViewError
from cogview.files import regular_file
from cogview.uninitialised import uninitialised

Shapes = Mapping[str, Sequence[int]]

Built = TypeVar("Built", bound=nn.Module)

_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
_STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
}
"""What the format calls the dtypes that are read one tensor at a time."""


class MisfitError(Exception):
    """Tensors are not those that a config asks for; the message says which."""


class UnreadableError(CogViewError):
    """A file of tensors is missing or damaged."""


class TensorFile:
    """A safetensors file that stays open, so that its tensors can be read one by one, in any thread.

    A file that takes its place meanwhile, as ours do when they are written, changes nothing. Nothing is mapped: one
    that is changed or cut short where it lies gives an error, where a mapping would end the process.

    Args:
        path: the file.

    Attributes:
        shapes: of the tensors by name.
        dtypes: likewise.

    Raises:
        UnreadableError: it is missing or damaged.
        CogViewError: it holds something else than weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self.shapes: Shapes = stored_shapes(path)
        try:
            self._file = path.open("rb")
            weakref.finalize(self, self._file.close)
            length = int.from_bytes(self._file.read(8), "little")
            header: dict[str, Any] = json.loads(self._file.read(length))
            self._time = self._modified()
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        header.pop("__metadata__", None)
        self._places = {name: each["data_offsets"] for name, each in header.items()}
        self._start = 8 + length
        if any(each["dtype"] not in _STORED for each in header.values()):
            read_tensors(path)  # says what is wrong
        self.dtypes = {name: _STORED[each["dtype"]] for name, each in header.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor as it is stored.

        Raises:
            UnreadableError: it cannot be read, or the file was changed where it lies.
        """
        first, stop = self._places[name]
        data = np.empty(stop - first, dtype=np.uint8)
        try:
            with self._lock:
                self._file.seek(self._start + first)
                if self._file.readinto(data.data) != len(data) or self._modified() != self._time:
                    raise OSError("it was changed since the model was loaded")
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return torch.from_numpy(data).view(self.dtypes[name]).reshape(tuple(self.shapes[name]))

    def _modified(self) -> int:
        return os.fstat(self._file.fileno()).st_mtime_ns


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file by name, of which the header alone is read.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        with safe_open(regular_file(path), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the weights in a safetensors file by name; those of 8-bit floats as float16, which holds them exactly.

    Raises:
        CogViewError: it is missing or damaged, or holds something else than weights.
    """
    try:
        tensors = load_file(regular_file(path))
    # A dtype that this PyTorch does not know is a KeyError or an AttributeError.
    except (SafetensorError, OSError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    try:
        return {name: as_weights(name, tensor) for name, tensor in tensors.items()}
    except CogViewError as error:
        raise CogViewError(f"{path}: {error}") from error


def as_weights(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor as one to compute with; one of 8-bit floats as float16, which holds them exactly.

    Raises:
        CogViewError: as `weights_dtype` does.
    """
    return tensor.to(weights_dtype(name, tensor))


def weights_dtype(name: str, tensor: Tensor) -> torch.dtype:
    """Return the dtype that a tensor is computed with.

    Raises:
        CogViewError: it holds no plain floats: whole numbers mean nothing without the scales that their writer used.
    """
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    if is_plain and tensor.dtype in _WEIGHTS:
        return tensor.dtype
    if is_plain and tensor.dtype in _NARROW:
        return torch.float16
    kind = str(tensor.dtype) if is_plain else f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
    raise CogViewError(
        f"{name} is {kind.replace('torch.', '')}, and weights are plain floats (quantized ones cannot be read); have "
        "the model saved in float16, bfloat16 or float32"
    )


def build_to_fit(
    build: Callable[[], Built],
    num_parts: int,
    found: Shapes,
    tensors_of: Callable[[Built], Mapping[str, Tensor]] = nn.Module.state_dict,
) -> Built:
    """Return a module on the meta device, which takes no memory, after comparing its tensors with those of a file.

    Args:
        build: makes it on the default device.
        num_parts: how many times the config repeats something that has a tensor of its own. Even without memory for
            tensors a thousand layers take some, so it is compared first.
        found: the shapes of the file's tensors.
        tensors_of: returns those that have to be in the file.

    Raises:
        MisfitError: they are not the same.
    """
    if num_parts > len(found):
        raise MisfitError(f"{num_parts:,} layers are asked for, and there are {len(found):,} tensors")
    try:
        with uninitialised("meta"):
            module = build()
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:  # sizes that no tensor can have
        raise MisfitError(
            f"tensors of an impossible size are asked for ({str(error).splitlines()[0]})"
        ) from error
    compare_shapes(found, {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()})
    return module


def compare_shapes(found: Shapes, wanted: Shapes) -> None:
    """Refuse names and shapes of tensors that are not those that are wanted.

    Raises:
        MisfitError: naming the first few that are wrong.
    """
    wrong = [
        f"{name} is {list(found[name])} instead of {list(wanted[name])}"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    faults = [
        f"{what} {_some(names)}"
        for what, names in (
            ("missing", [name for name in wanted if name not in found]),
            ("unexpected", [name for name in found if name not in wanted]),
            ("of another shape", wrong),
        )
        if names
    ]
    if faults:
        raise MisfitError("; ".join(faults))


def _unreadable(path: Path, error: Exception) -> UnreadableError:
    return UnreadableError(f"{path} cannot be read ({error}): copy or export the model again.")


def _some(names: list[str]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
