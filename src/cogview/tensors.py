"""Untrusted tensor files, checked before memory of their size is allocated, and writing of tensor files."""

import json
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Names in the format of dtypes that can be read one tensor at a time."""


_KINDS = {
    torch.int8: "I8",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""Names of dtypes in the format. Later ones come first in a file, so that all are aligned to their size."""


class MisfitError(Exception):
    """Tensors do not match a config; the message says which."""


class UnreadableError(CogViewError):
    """A file of tensors is missing or damaged."""


class TensorFile:
    """An open safetensors file whose tensors can be read one at a time, in any thread.

    Replacing the file by renaming, as this program does, has no effect. The file is not memory-mapped, so truncating it
    raises an error rather than crashing the process.

    Args:
        path: the file.

    Attributes:
        shapes: by tensor name.
        dtypes: by tensor name.

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
            read_tensors(path)  # raises the error
        self.dtypes = {name: _STORED[each["dtype"]] for name, each in header.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor as stored.

        Raises:
            UnreadableError: it cannot be read, or the file was modified in place.
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
    """Return the shapes of a safetensors file by name, reading only its header.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        with safe_open(regular_file(path), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the weights of a safetensors file by name, 8-bit floats as float16, which is exact.

    Raises:
        CogViewError: it is missing or damaged, or holds something else than weights.
    """
    try:
        return {name: as_weights(name, tensor) for name, tensor in map_tensors(path).items()}
    except UnreadableError:
        raise
    except CogViewError as error:
        raise CogViewError(f"{path}: {error}") from error


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, of any dtype and mapped into memory.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        return load_file(regular_file(path))
    # Dtypes unknown to this PyTorch raise KeyError or AttributeError.
    except (SafetensorError, OSError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def write_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write a safetensors file, one tensor after the other.

    `safetensors.torch.save`, which gives the same bytes, first holds the whole file in memory: 8 GB more for a model of
    8 GB.

    Args:
        path: to write.
        weights: by name; with `read`, only their shapes and dtypes matter.
        dtype: on disk; unchanged by default.
        read: returns the values of a tensor by its name, in parts along its first axis.
    """
    kinds = {name: _KINDS[dtype or tensor.dtype] for name, tensor in weights.items()}
    order = sorted(weights, key=lambda name: (-list(_KINDS.values()).index(kinds[name]), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + weights[name].numel() * (dtype or weights[name].dtype).itemsize
        header[name] = {
            "dtype": kinds[name],
            "shape": list(weights[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name in order:
            for part in read(name) if read else [weights[name]]:
                stored = part.detach().to("cpu", dtype or weights[name].dtype).contiguous()
                file.write(stored.view(-1).view(torch.uint8).numpy().data)
        assert file.tell() == start + end, "the parts are those of the header"


def as_weights(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor in its computing dtype; 8-bit floats as float16, which is exact.

    Raises:
        CogViewError: as for `weights_dtype`.
    """
    return tensor.to(weights_dtype(name, tensor))


def weights_dtype(name: str, tensor: Tensor) -> torch.dtype:
    """Return the dtype that a tensor is computed in.

    Raises:
        CogViewError: it holds no plain floats; integers mean nothing without their quantization scales.
    """
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    if is_plain and tensor.dtype in _WEIGHTS:
        return tensor.dtype
    if is_plain and tensor.dtype in _NARROW:
        return torch.float16
    kind = str(tensor.dtype) if is_plain else f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
    raise CogViewError(
        f"{name} is {kind.replace('torch.', '')}, and weights are plain floats, never quantized: save the model in "
        "float16, bfloat16 or float32"
    )


def build_to_fit(
    build: Callable[[], Built],
    num_parts: int,
    found: Shapes,
    tensors_of: Callable[[Built], Mapping[str, Tensor]] = nn.Module.state_dict,
    tensors_per_part: int = 1,
) -> Built:
    """Build a module on the meta device, without memory, and compare its tensors with a file's.

    Args:
        build: makes it on the default device.
        num_parts: repetitions in the config that have tensors of their own, such as layers; compared first, since even
            on the meta device thousands of layers take memory.
        found: shapes of the file's tensors.
        tensors_of: returns the tensors required in the file.
        tensors_per_part: that each of the parts has at least.

    Raises:
        MisfitError: they differ.
    """
    if num_parts * tensors_per_part > len(found):
        raise MisfitError(f"{num_parts:,} layers are asked for, and there are {len(found):,} tensors")
    try:
        with uninitialised("meta"):
            module = build()
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:  # impossible sizes
        raise MisfitError(
            f"the config has tensors of an impossible size ({str(error).splitlines()[0]})"
        ) from error
    compare_shapes(found, {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()})
    return module


def compare_shapes(found: Shapes, wanted: Shapes) -> None:
    """Refuse tensors whose names and shapes differ from the required ones.

    Raises:
        MisfitError: naming the first few differences.
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
    """Return the first few names and the number of others."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
