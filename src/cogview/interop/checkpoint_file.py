"""Safe reading of untrusted checkpoints as tensors by name."""

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
from cogview.interop.wrappers import find_wrapped, unwrap
from cogview.tensors import map_tensors

_MAX_WRAPPERS = 4
_BYTES_AT_A_TIME = 2**20
_MAX_SIZE_RATIO = 3
"""Largest ratio of the tensors' sizes to the file's: tied weights share memory, but not thousands of names."""

_MAX_UNKNOWN = 1_000
"""Most classes to replace by stubs: PyTorch searches all of them at each step."""

_MAX_LISTS = 20
"""Most classes to replace by list stubs; finding each takes another reading of the file."""

_APPENDED = re.compile(r"lists, but got <class '([^']+)'>")
_HARMLESS = (
    *("torch.", "collections.", "_codecs."),
    *(f"builtins.{name}" for name in ("bytearray", "complex", "int", "list", "range", "set")),
)
"""Prefixes of classes that are not mentioned in errors."""


class _StubType(type):
    """Metaclass of stubs; equals dict where PyTorch checks whether items may be set."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is dict

    __hash__ = type.__hash__


class _Stub(metaclass=_StubType):
    """Replacement of unknown classes: accepts and ignores everything."""

    def __new__(cls, *_args: Any, **_more: Any) -> "_Stub":
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_more: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass


class _ListStub:
    """Replacement of unknown classes to which items are appended, which PyTorch allows for plain lists alone."""

    def __new__(cls, *_args: Any, **_more: Any) -> list[Any]:
        return []


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, without the wrappers of trainers.

    Tensors are memory-mapped, except in files older than PyTorch 1.6. Nothing that a file names is imported or run:
    other objects are replaced by stubs and dropped. Nested state dicts are found, and prefixes of wrappers are removed
    from names (see `cogview.interop.wrappers`).

    Args:
        path: a file of `torch.save`, or a safetensors file.

    Raises:
        CogViewError: the file is missing or damaged, declares more than it contains, has no tensors, or cannot be read
            without running code.
    """
    tensors = read_named_tensors(path)
    try:
        return unwrap(tensors)
    except CogViewError as error:
        raise CogViewError(f"{path}: {error}") from error


def read_named_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name; as `read_state_dict`, but names stay as they are.

    Args:
        path: a file of `torch.save`, or a safetensors file.

    Raises:
        CogViewError: as for `read_state_dict`.
    """
    if not path.is_file():
        what = "a pipe, a device or a folder, no file" if path.exists() else "no such file"
        raise CogViewError(f"{path}: {what}; check the path")
    others: list[str] = []
    if path.suffix == ".safetensors":
        tensors = map_tensors(path)
    else:
        content, others = _read_pickled(path)
        try:
            for _ in range(_MAX_WRAPPERS):
                inner = find_wrapped(content)
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
        return _check_sizes(tensors, path.stat().st_size)
    except CogViewError as error:
        raise CogViewError(f"{path}: {error}") from error


def _read_pickled(path: Path) -> tuple[Any, list[str]]:
    """Read a file of PyTorch; return also the classes and functions that were replaced by stubs.

    Raises:
        CogViewError: it is damaged, or cannot be read without running code.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _verify_zip(path)
    else:
        _refuse_no_pickle(path)
    unknown: list[str] = []
    try:
        named = (
            torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else _legacy_globals(path)
        )
        unknown = sorted(set(named))
        if len(unknown) > _MAX_UNKNOWN:
            raise ValueError(f"it names {len(unknown):,} classes")
        return _load_with_stubs(path, is_zip, unknown), unknown
    # Damaged files raise nearly anything: UnpicklingError, EOFError, KeyError, RuntimeError, ...
    except Exception as error:
        raise CogViewError(
            f"{path}: not a checkpoint that can be read without running code ({_reason(error, unknown)}); if it is "
            "whole, have its owner save the state dict alone"
        ) from error


def _refuse_no_pickle(path: Path) -> None:
    """Refuse what is neither a whole zip archive nor a pickle.

    Raises:
        CogViewError: it is empty, cut, or something else.
    """
    with path.open("rb") as file:
        first = file.read(4)
    if first == b"PK\x03\x04":
        raise CogViewError(f"{path}: the file is cut, its end is missing; copy or download it again")
    if not first.startswith(b"\x80"):
        empty = "" if first else ", it is empty"
        raise CogViewError(f"{path}: no file of PyTorch or safetensors{empty}; check the path")


def _load_with_stubs(path: Path, is_zip: bool, unknown: Sequence[str]) -> Any:
    """Load a file of PyTorch with stubs for unknown classes and functions; raises any exception."""
    lists: set[str] = set()
    while True:
        stubs: list[Any] = [
            (_ListStub if name in lists else _StubType(name, (_Stub,), {"__module__": "builtins"}), name)
            for name in unknown
        ]
        try:
            # PyTorch 2.11 warns when it does not know whether to check the indices of sparse tensors.
            checked = torch.sparse.check_sparse_tensor_invariants()  # type: ignore[no-untyped-call]
            with torch.serialization.safe_globals(stubs), checked:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except Exception as error:
            appended = _APPENDED.search(str(error))
            if appended is None or appended[1] not in unknown or len(lists) == _MAX_LISTS:
                raise
            lists.add(appended[1])


def _legacy_globals(path: Path) -> Iterator[str]:
    """Yield the globals of a file older than PyTorch 1.6, by their Python 3 names.

    It consists of four pickles: magic number, version, system, content.
    """
    with path.open("rb") as file:
        for _ in range(4):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), name
                    module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
                    yield f"{module}.{name}"


def _check_sizes(tensors: dict[str, Tensor], num_bytes: int) -> dict[str, Tensor]:
    """Check that tensors are not larger than the data of the file, before models are built by their shapes.

    Raises:
        CogViewError: a tensor is larger.
    """
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            continue  # refused when its values are used
        claimed = tensor.numel() * tensor.element_size()
        num_stored = tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > num_stored or total > _MAX_SIZE_RATIO * num_bytes:
            raise CogViewError(
                f"{name} claims {tensor.numel():,} numbers, more than the file holds; have its owner save the tensors "
                "themselves"
            )
    return tensors


def _verify_zip(path: Path) -> None:
    """Verify the checksums of a zip file, which memory-mapping does not.

    Raises:
        CogViewError: a part is damaged, or is compressed, which PyTorch would ignore.
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
                if not info.CRC:  # PyTorch has an option to write none
                    continue
                with archive.open(info) as part:
                    while part.read(_BYTES_AT_A_TIME):
                        pass
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CogViewError(f"{path}: damaged ({error}); copy it again") from error


def _reason(error: Exception, unknown: Sequence[str]) -> str:
    """Summarize why a file could not be read; PyTorch's messages also advise to run its code."""
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
