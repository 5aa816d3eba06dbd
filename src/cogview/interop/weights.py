"""Validation of other projects' weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cogview.errors import CogViewError
from cogview.image.config import AutoencoderConfig
from cogview.image.tokenizer import ImageTokenizer, autoencoder_of, check_fit
from cogview.tensors import MisfitError, as_weights


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
            f"{name} is {'missing' if shape is None else shape}, wanted {num_axes} axes; the file is incomplete or of "
            "another layout"
        )
    return shape


def as_float(name: str, tensor: Tensor) -> Tensor:
    """Convert a tensor to float32.

    Raises:
        CogViewError: it is sparse, quantized, complex, integer or without content.
    """
    return as_weights(name, tensor).float()


def build_image_tokenizer(config: AutoencoderConfig, weights: Mapping[str, Tensor]) -> ImageTokenizer:
    """Build an image tokenizer from converted weights.

    Args:
        config: derived from their shapes.
        weights: by our names.

    Raises:
        CogViewError: a weight is missing, unknown, not finite or of the wrong shape.
    """
    try:
        check_fit(config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    except MisfitError as error:
        raise CogViewError(
            f"the tensors do not fit together ({error}); the file is incomplete or of another layout"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise CogViewError(
            "the weights hold values that are infinite or NaN; the file is damaged, copy it again"
        )
    return ImageTokenizer(autoencoder_of(config, weights))
