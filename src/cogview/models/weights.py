"""Weight files: validation, reading, writing and fingerprints."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.tensors import MisfitError, write_weights
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.quantized import SCALE_SUFFIX, QuantizedRows, is_quantized
from cogview.transformer.stored import StoredTransformer


def weights_of(transformer: Transformer | StoredTransformer) -> Mapping[str, Tensor]:
    """Return the weights by name; those in a file are read on access."""
    if isinstance(transformer, Transformer):
        return transformer.state_dict()
    return _Read(transformer)


class _Read(Mapping[str, Tensor]):
    """Weights of a stored transformer, in its dtype."""

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
        path: to write.
        transformer: in memory or in another file.
        dtype: on disk; unchanged if None; int8 rounds matrices with a scale for each row.
        read: as for `write_weights`.
    """
    values = weights_of(transformer)
    shapes = values if isinstance(transformer, Transformer) else transformer.meta_weights()

    def read_values(name: str) -> Iterable[Tensor]:
        return read(name) if read else [values[name]]

    if dtype != torch.int8:
        write_weights(path, shapes, dtype, read_values)
        return
    quantized = [name for name in shapes if is_quantized(name)]
    written = {name: torch.empty_like(each, device="meta") for name, each in shapes.items()}
    written |= {name: written[name].new_empty(written[name].shape, dtype=torch.int8) for name in quantized}
    written |= {name + SCALE_SUFFIX: torch.empty(len(written[name]), device="meta") for name in quantized}

    def read_stored(name: str) -> Iterable[Tensor]:
        if name not in shapes:
            return (QuantizedRows.of(part).scales for part in read_values(name.removesuffix(SCALE_SUFFIX)))
        return (QuantizedRows.of(part).values if name in quantized else part for part in read_values(name))

    write_weights(path, written, read=read_stored)


def stored_transformer(
    path: Path, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype
) -> StoredTransformer:
    """Open a transformer whose weights are read from a file when needed.

    Raises:
        CogViewError: the file cannot be read, or does not fit the config.
    """
    try:
        return StoredTransformer(path, config, device, dtype)
    except MisfitError as error:
        raise misfit(path, error) from error


def misfit(path: Path, error: Exception) -> CogViewError:
    """Return the error for a weight file that does not fit its config."""
    return CogViewError(f"The tensors in {path} are not those of its config: {error}.")


def fingerprint_of_transformer(weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str:
    """Return 16 hexadecimal digits that identify the weights of a transformer.

    Values count as rounded to float16, so that weights have one fingerprint as float32 and as exported. Rounded to
    bfloat16, they have another.

    Args:
        weights: by name.
        dtype: to round to first, as a file of that dtype would.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):  # read one by one, if they lie in a file
        values = weights[name].detach().to("cpu", dtype).to(torch.float16).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]
