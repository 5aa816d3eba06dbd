"""Others' checkpoints as tensors by name; nothing in them is ever run."""

import _compat_pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.interop.wrappers import unwrapped, wrapped_mapping
from cogview.tensors import read_tensors

_MAX_WRAPPERS = 4
_BYTES_AT_A_TIME = 2**20
_MAX_LIKENESS = 3
"""Two names of one tensor are usual (tied weights); names by the thousand for one are not."""


_MAX_UNKNOWN = 1_000
"""Classes for which stand-ins are put: PyTorch looks through all of them at each step."""

_MAX_LISTS = 20
"""Classes among them whose objects are appended to; each is found out by reading the file once more."""

_APPENDED = re.compile(r"lists, but got <class '([^']+)'>")
_HARMLESS = (
    *("torch.", "collections.", "_codecs."),
    *(f"builtins.{name}" for name in ("bytearray", "complex", "int", "list", "range", "set")),
)
"""How the names of what is no cause for a refusal begin."""


class _Kind(type):
    """The type of stand-ins. Each passes for a dict's where PyTorch asks whether items may be set."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is dict

    __hash__ = type.__hash__


class _StandIn(metaclass=_Kind):
    """What a file's objects of unknown classes become: it takes what it is given, keeps nothing and does nothing."""

    def __new__(cls, *_args: Any, **_more: Any) -> "_StandIn":
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_more: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass


class _StandInList:
    """What objects of unknown classes become to which items are appended: PyTorch does that to plain lists alone."""

    def __new__(cls, *_args: Any, **_more: Any) -> list[Any]:
        return []


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what their trainer wrapped them in.

    The tensors are mapped, so memory holds what of them is in use; those of files older than PyTorch 1.6 are read as a
    whole. Nothing that a file names is imported or run: beside tensors it may hold anything, whose classes are replaced
    by empty ones, and which is left out. What the weights lie in is looked into, and what wrappers put before all names
    is taken away (see `cogview.interop.wrappers`).

    Args:
        path: what `torch.save` wrote, or a safetensors file.

    Raises:
        CogViewError: there is no such file, it is damaged, claims more than it holds, has no tensors, or cannot be read
            without running what is in it.
    """
    if not path.is_file():
        what = "a pipe, a device or a folder, no file" if path.exists() else "no such file"
        raise CogViewError(f"{path}: {what}; check the path")
    others: list[str] = []
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
    else:
        content, others = _read_pickled(path)
        try:
            for _ in range(_MAX_WRAPPERS):
                inner = wrapped_mapping(content)
                if inner is None:
                    break
                content = inner
        except CogViewError as error:
            raise CogViewError(f"{path}: {error}") from error
        items = content.items() if isinstance(content, Mapping) else ()
        tensors = {
            name: value for name, value in items if isinstance(name, str) and isinstance(value, Tensor)
        }
    if not tensors:
        others = [name for name in others if not name.startswith(_HARMLESS)]
        beside = f" but objects of {', '.join(others[:3])}, which are not run" if others else ""
        raise CogViewError(
            f"{path}: holds no tensors by name{beside}; give a checkpoint with a state dict, or have its owner save "
            "that alone"
        )
    try:
        return unwrapped(_as_large_as_stored(tensors, path.stat().st_size))
    except CogViewError as error:
        raise CogViewError(f"{path}: {error}") from error


def _read_pickled(path: Path) -> tuple[Any, list[str]]:
    """Return what a file of PyTorch's holds, and the classes and functions for which stand-ins were put.

    Raises:
        CogViewError: it is damaged, or cannot be read without running what is in it.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_damage(path)
    unknown: list[str] = []
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else _named_in(path)
        unknown = sorted(set(named))
        if len(unknown) > _MAX_UNKNOWN:
            raise ValueError(f"it names {len(unknown):,} classes")
        return _loaded(path, is_zip, unknown), unknown
    # Damaged files raise nearly anything: UnpicklingError, EOFError, KeyError, RuntimeError, ...
    except Exception as error:
        raise CogViewError(
            f"{path}: not a checkpoint that can be read without running code ({_reason(error, unknown)}); if it is "
            "whole, have its owner save the state dict alone"
        ) from error


def _loaded(path: Path, is_zip: bool, unknown: Sequence[str]) -> Any:
    """Return what a file of PyTorch's holds, with stand-ins for unknown classes and functions, or raise anything."""
    lists: set[str] = set()
    while True:
        stand_ins: list[Any] = [
            (_StandInList if name in lists else _Kind(name, (_StandIn,), {"__module__": "builtins"}), name)
            for name in unknown
        ]
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except Exception as error:
            appended = _APPENDED.search(str(error))
            if appended is None or appended[1] not in unknown or len(lists) == _MAX_LISTS:
                raise
            lists.add(appended[1])


def _named_in(path: Path) -> Iterator[str]:
    """Yield what the pickles of a file older than PyTorch 1.6 name by Python 3's names.

    Four lie one behind the other: a number, a version, a system, and the thing itself.
    """
    with path.open("rb") as file:
        for _ in range(4):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), name
                    module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
                    yield f"{module}.{name}"


def _as_large_as_stored(tensors: dict[str, Tensor], num_bytes: int) -> dict[str, Tensor]:
    """Refuse tensors that claim to be larger than what a file holds of them: their sizes are made of it later.

    Raises:
        CogViewError: naming one.
    """
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue  # refused by whoever wants its values
        claimed = tensor.numel() * tensor.element_size()
        held = tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > held or total > _MAX_LIKENESS * num_bytes:
            raise CogViewError(
                f"{name} claims {tensor.numel():,} numbers, more than the file holds; have its owner save the tensors "
                "themselves"
            )
    return tensors


def _refuse_damage(path: Path) -> None:
    """Read a whole zip file once and compare it with its checksums, which a file that is mapped is not compared with.

    Raises:
        CogViewError: a part is not what was written, or is compressed, which would be read as if it were not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in parts):
                raise CogViewError(
                    f"{path}: a zip file with compressed parts, which PyTorch never writes; unpack it, and give the "
                    "checkpoint in it"
                )
            if sum(info.file_size for info in parts) > path.stat().st_size:
                raise CogViewError(f"{path}: damaged (its parts are larger than the file); copy it again")
            for info in parts:
                if not info.CRC:  # PyTorch can be told to write none
                    continue
                with archive.open(info) as part:
                    while part.read(_BYTES_AT_A_TIME):
                        pass
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CogViewError(f"{path}: damaged ({error}); copy it again") from error


def _reason(error: Exception, unknown: Sequence[str]) -> str:
    """Return in a few words why a file could not be read; PyTorch's many also tell how to run what is in it."""
    message = str(error).strip()
    if match := re.search(r"GLOBAL (\S+)", message):
        return f"it asks for {match[1]}"
    if "persistent_load" in message:
        return "a whole model lies in it, in the form that PyTorch wrote before 1.6"
    if (match := re.search(r"but got <class '([^']+)'>", message)) and match[1] in unknown:
        return f"it asks for {match[1]}"
    unknown = [name for name in unknown if not name.startswith(_HARMLESS)] or unknown
    if unknown and type(error).__name__ == "UnpicklingError":
        return f"it asks for {', '.join(unknown[:3])}"
    return message.splitlines()[0].split(". ")[0] if message else type(error).__name__
