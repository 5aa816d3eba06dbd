"""The tensors of a model's file: do they fit its config, how are they read and written, and which are they?"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.tensors import MisfitError, build_to_fit, read_tensors, stored_shapes
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

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


def load_transformer(
    path: Path, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype
) -> tuple[Transformer, torch.dtype | None]:
    """Build a transformer of a file's weights, in evaluation mode; return what they had to be rounded to, too.

    Raises:
        CogViewError: the file cannot be read, or is not of that config.
    """
    try:  # without weights of its own: they come from the file, so none are drawn
        transformer = build_to_fit(lambda: Transformer(config), config.num_layers, stored_shapes(path))
    except MisfitError as error:
        raise misfit(path, error) from error
    weights = read_tensors(path)
    is_exact = all(torch.promote_types(tensor.dtype, dtype) == dtype for tensor in weights.values())
    weights = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    transformer.load_state_dict(weights, assign=True)
    return transformer.eval(), None if is_exact else dtype


def misfit(path: Path, error: Exception) -> CogViewError:
    """Return what is said of a model's or an adapter's file that does not fit its config."""
    return CogViewError(f"The tensors in {path} are not those of its config: {error}.")


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
