"""The tensors of a model's file: do they fit its config, how are they read and written, and which are they?"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cogview.errors import CogViewError
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.uninitialised import uninitialised

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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Raises:
        CogViewError: it is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): copy or export the model again.") from error


def load_transformer(
    path: Path, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype
) -> tuple[Transformer, torch.dtype | None]:
    """Build a transformer of a file's weights, in evaluation mode; return what they had to be rounded to, too.

    Raises:
        CogViewError: the file cannot be read, or is not of that config.
    """
    weights = read_weights(path)
    # Where it is not so much more, the first tensors that are wrong are named.
    if config.num_parameters > 10 * sum(tensor.numel() for tensor in weights.values()):
        raise CogViewError(
            f"The config of {path} asks for {config.num_parameters:,} parameters, more than the file holds: copy or "
            "export the model again."
        )
    with uninitialised("meta"):
        transformer = Transformer(config)
    check_weights(weights, transformer.state_dict(), path)
    is_exact = all(torch.promote_types(tensor.dtype, dtype) == dtype for tensor in weights.values())
    weights = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    transformer.load_state_dict(weights, assign=True)
    return transformer.eval(), None if is_exact else dtype


def fingerprint_of_transformer(weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str:
    """Return 16 hexadecimal digits that name the weights of a transformer, to tell for which one an adapter was made.

    Values count as float16 rounds them, so that weights have one name in memory, as float32 and as the float16 that
    models are exported in. Rounded to bfloat16, they are others.

    Args:
        weights: by name.
        dtype: that they are first rounded to, as a file of it would.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", dtype).to(torch.float16).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]


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
