"""The tensors of a model's file: do they fit its config, and how are they written?"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError

_KINDS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
"""What the format calls the dtypes of weights; the last come first in a file, so that all lie at multiples of their
size."""


def write_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write a safetensors file, one tensor after the other.

    The library's own way (`safetensors.torch.save`, which gives the same bytes) first holds all of the file in
    memory: of a model of 8 GB, 8 GB more.

    Args:
        path: the file.
        weights: by name; with `read`, their shapes and dtypes alone matter.
        dtype: that they are stored in; each in its own by default.
        read: gives the values of a tensor by its name, in one part or in several along its first axis.
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
        assert file.tell() == start + end, "the parts are not the tensors that were announced"


def check_weights(got: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors whose names or shapes are not those that the config asks for.

    Args:
        got: read from the file.
        wanted: of a module built from the config; shapes alone matter.
        path: the file, for the message.

    Raises:
        CogViewError: naming the first few that are wrong.
    """
    wrong = [
        f"{name} is {list(got[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in got and got[name].shape != wanted[name].shape
    ]
    faults = [
        f"{what} {_some(names)}"
        for what, names in (
            ("missing", [name for name in wanted if name not in got]),
            ("unexpected", [name for name in got if name not in wanted]),
            ("of another shape", wrong),
        )
        if names
    ]
    if faults:
        raise CogViewError(f"The tensors in {path} are not those of its config: {'; '.join(faults)}.")


def _some(names: list[str]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
