"""The tensors of a model's file: do they fit its config, how are they read and written, and which are they?"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.tensors import MisfitError
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.quantized import SCALE_SUFFIX, QuantizedRows, is_quantized
from cogview.transformer.stored import StoredTransformer

_KINDS = {
    torch.int8: "I8",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
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


def weights_of(transformer: Transformer | StoredTransformer) -> Mapping[str, Tensor]:
    """Return the weights by name; those in a file are read when they are asked for."""
    if isinstance(transformer, Transformer):
        return transformer.state_dict()
    return _Read(transformer)


class _Read(Mapping[str, Tensor]):
    """The weights of a transformer in a file, in its dtype."""

    def __init__(self, stored: StoredTransformer) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        return self._stored.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored.weights)

    def __len__(self) -> int:
        return len(self._stored.weights)


def write_transformer(
    path: Path,
    transformer: Transformer | StoredTransformer,
    dtype: torch.dtype | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write a transformer's weights, one after the other.

    Args:
        path: the file.
        transformer: in memory or in another file.
        dtype: that they are stored in: their own if None; as int8, matrices are rounded by a step for each row.
        read: as for `write_weights`.
    """
    values = weights_of(transformer)
    described = values if isinstance(transformer, Transformer) else transformer.described_weights()

    def as_held(name: str) -> Iterable[Tensor]:
        return read(name) if read else [values[name]]

    if dtype != torch.int8:
        write_weights(path, described, dtype, as_held)
        return
    quantized = [name for name in described if is_quantized(name)]
    written = {name: torch.empty_like(each, device="meta") for name, each in described.items()}
    written |= {name: written[name].new_empty(written[name].shape, dtype=torch.int8) for name in quantized}
    written |= {name + SCALE_SUFFIX: torch.empty(len(written[name]), device="meta") for name in quantized}

    def as_written(name: str) -> Iterable[Tensor]:
        if name not in described:
            return (QuantizedRows.of(part).steps for part in as_held(name.removesuffix(SCALE_SUFFIX)))
        return (QuantizedRows.of(part).numbers if name in quantized else part for part in as_held(name))

    write_weights(path, written, read=as_written)


def stored_transformer(
    path: Path, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype
) -> StoredTransformer:
    """Return a transformer whose weights stay in a file until they are needed.

    Raises:
        CogViewError: the file cannot be read, or is not of that config.
    """
    try:
        return StoredTransformer(path, config, device, dtype)
    except MisfitError as error:
        raise misfit(path, error) from error


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
    for name in sorted(weights):  # read one by one, if they lie in a file
        values = weights[name].detach().to("cpu", dtype).to(torch.float16).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]
