"""Validation of other projects' weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import AutoencoderConfig
from cogview.image.tokenizer_folder import check_fit, write_tokenizer_folder
from cogview.tensors import MisfitError, as_weights

INCOMPLETE = "the file is incomplete or of another layout"


@dataclass(frozen=True, kw_only=True)
class ConvertedTokenizer:
    """Image tokenizer whose weights may still lie in another project's file, mapped into memory.

    Args:
        config: derived from the weights' shapes.
        weights: by our names.
        layout: what the file is.
    """

    config: AutoencoderConfig
    weights: Mapping[str, Tensor]
    layout: str = ""

    def save(self, folder: Path, source: Mapping[str, object]) -> str:
        """Write the tokenizer's folder, one tensor after the other; return the fingerprint.

        Args:
            folder: to make.
            source: what is known of the file: layout, checksums, and so on.

        Raises:
            CogViewError: the folder contains something else, which would be deleted.
        """
        return write_tokenizer_folder(folder, self.config, self.weights, source=source)


@contextmanager
def layout_named(layout: str) -> Iterator[None]:
    """Put what the file is before the message of an error.

    Raises:
        CogViewError: there was one.
    """
    try:
        yield
    except CogViewError as error:
        raise CogViewError(f"{layout}: {error}") from error


def shape_of(tensors: Mapping[str, Tensor], name: str, num_axes: int) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Args:
        tensors: by name.
        name: of the tensor.
        num_axes: required number of axes.

    Raises:
        CogViewError: it is missing or empty, or has another number of axes.
    """
    shape = tuple(tensors[name].shape) if name in tensors else None
    if shape is None or len(shape) != num_axes or not all(shape):
        raise CogViewError(
            f"{name} is {'missing' if shape is None else shape}, wanted {num_axes} axes; {INCOMPLETE}"
        )
    return shape


def as_finite(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of plain finite floats, in float32 if it was in float64; otherwise without a copy.

    Raises:
        CogViewError: it is sparse, quantized, complex, integer or without content, or holds infinity or NaN.
    """
    tensor = as_weights(name, tensor)
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    # One pass without a copy; aminmax propagates NaN.
    if tensor.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
        raise CogViewError(
            f"{name} holds values that are infinite or NaN; the file is damaged, copy it again"
        )
    return tensor


def converted(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> ConvertedTokenizer:
    """Check converted weights against a configuration.

    Args:
        config: derived from their shapes.
        weights: by our names, from `as_finite`.

    Raises:
        CogViewError: a weight is missing, unknown or of the wrong shape.
    """
    try:
        check_fit(config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    except MisfitError as error:
        raise CogViewError(f"the tensors do not fit together ({error}); {INCOMPLETE}") from error
    return ConvertedTokenizer(config=config, weights=weights)
